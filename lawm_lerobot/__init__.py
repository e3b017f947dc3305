"""Latent-action pretraining of LeRobot policies on video without action labels."""

__version__ = "0.1.0"
