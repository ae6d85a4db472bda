"""What the package offers to programs and to the command line, which is a client of it."""
