"""World models, inverse dynamics and latent actions: plain PyTorch that knows nothing of LeRobot."""

from .base import WorldModel, WorldModelOutput
from .configuration import InverseDynamicsConfig, RecurrentConfig, RSSMConfig, WorldModelConfig

__all__ = [
    "InverseDynamicsConfig",
    "RSSMConfig",
    "RecurrentConfig",
    "WorldModel",
    "WorldModelConfig",
    "WorldModelOutput",
]
