"""Latent-action pretraining of LeRobot policies on video without action labels."""

from lawm_lerobot.decoder_notice import shorten_decoder_warning

__version__ = "0.1.0"

# Here, because this is imported before LeRobot opens a dataset in any command that loads the plugin.
shorten_decoder_warning()
