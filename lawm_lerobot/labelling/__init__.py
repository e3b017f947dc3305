"""Labelling: actions decoded for video that has none, from a few demonstrations."""
