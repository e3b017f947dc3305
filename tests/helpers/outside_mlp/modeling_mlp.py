"""``mlp``: a policy that is not LeRobot's."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from helpers.outside_mlp.configuration_mlp import MLPConfig
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import ACTION, OBS_STATE
from torch import Tensor, nn


class MLPPolicy(PreTrainedPolicy):
    """Learns a chunk (B,H,A) by its squared error, padding left out."""

    config_class = MLPConfig
    name = "mlp"

    def __init__(self, config: MLPConfig, **kwargs: Any) -> None:
        super().__init__(config)
        self.config = config
        self.image_in = nn.Sequential(
            nn.Conv2d(3, 16, 5, stride=4), nn.ReLU(), nn.Conv2d(16, config.hidden_dim, 3, stride=2), nn.ReLU()
        )
        state = config.robot_state_feature
        self.state_in = nn.Linear(state.shape[0] if state else 0, config.hidden_dim)
        self.trunk = nn.Sequential(nn.Tanh(), nn.Linear(config.hidden_dim, config.hidden_dim), nn.Tanh())
        self.head = nn.Linear(config.hidden_dim, config.chunk_size * config.action_feature.shape[0])
        self.reset()

    def get_optim_params(self) -> Any:
        return self.parameters()

    def reset(self) -> None:
        self._actions: deque[Tensor] = deque()

    def chunk(self, batch: dict[str, Tensor]) -> Tensor:
        features = self.state_in(batch[OBS_STATE])  # (B,D)
        for key in self.config.image_features:
            features = features + self.image_in(batch[key]).mean((-1, -2))
        return self.head(self.trunk(features)).unflatten(1, (self.config.chunk_size, -1))  # (B,H,A)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict]:
        errors = (self.chunk(batch) - batch[ACTION]).square().mean(-1)  # (B,H)
        valid = (~batch[f"{ACTION}_is_pad"]).float()
        return (errors * valid).sum() / valid.sum().clamp_min(1), {}

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Tensor], **kwargs: Any) -> Tensor:
        return self.chunk(batch)

    @torch.no_grad()
    def select_action(self, batch: dict[str, Tensor], **kwargs: Any) -> Tensor:
        if not self._actions:
            self._actions.extend(self.predict_action_chunk(batch).unbind(1))
        return self._actions.popleft()
