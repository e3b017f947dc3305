"""Intervals for metrics, and ridge regression."""
