"""Intervals for figures, and ridge regression."""
