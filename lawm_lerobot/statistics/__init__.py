"""Intervals for metrics, differences over draws, and ridge regression."""
