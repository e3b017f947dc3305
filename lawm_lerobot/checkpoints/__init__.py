"""Checkpoints: reading them, and carrying weights from one stage to the next."""
