"""A local page that shows images, references, predictions and their differences."""
