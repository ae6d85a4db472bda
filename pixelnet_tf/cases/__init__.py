"""What a study is: layouts, cases, labels, the split, the phantom."""
