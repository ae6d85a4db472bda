"""Files: written whole or not at all, and read with errors that say what to do."""
