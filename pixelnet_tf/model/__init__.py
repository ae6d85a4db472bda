"""The network: VGG-16, hypercolumn, head, and their fast exact forms."""
