"""Comparisons of settings of the latent actions. Not part of the installed package."""
