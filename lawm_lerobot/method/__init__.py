"""The method in plain PyTorch: latent actions, world models, and the loss that joins them to a policy.

Imports nothing of LeRobot and nothing of the rest of this package.
"""
