"""Seeing what pretraining learned, and counting honestly whether it helped."""
