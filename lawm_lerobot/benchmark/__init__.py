"""The evidence benchmark: its configuration, its cells and their commands, and the table of their results."""
