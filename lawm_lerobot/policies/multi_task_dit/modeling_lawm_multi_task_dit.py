"""``lawm_multi_task_dit``: LeRobot's multi-task Diffusion Transformer with LAWM pretraining."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.multi_task_dit.modeling_multi_task_dit import MultiTaskDiTPolicy
from torch import Tensor, nn

from lawm_lerobot.checkpoints.conditioning import condition_blocks, match_condition, match_encoders
from lawm_lerobot.checkpoints.transfer import InterpolateRows, OtherActions, Rule
from lawm_lerobot.policies.common.denoising import denoise_once
from lawm_lerobot.policies.common.policy import LawmPolicy
from lawm_lerobot.policies.multi_task_dit.configuration_lawm_multi_task_dit import LawmMultiTaskDiTConfig


class LawmMultiTaskDiTPolicy(LawmPolicy, MultiTaskDiTPolicy):
    """Language-conditioned DiT that denoises latent actions in pretraining, actions afterwards.

    In the ``finetune`` stage this is `MultiTaskDiTPolicy`: same tensors, same names, same cost.
    """

    config_class = LawmMultiTaskDiTConfig
    name = "lawm_multi_task_dit"

    def predict_latents(self, batch: dict[str, Any]) -> Tensor:
        return self.latents_in(self.estimate_chunk(batch))

    def estimate_chunk(self, batch: dict[str, Any]) -> Tensor:
        condition = self.observation_encoder.encode(self._prepare_batch(batch))  # (B,features)
        shape = (len(condition), self.noise_predictor.horizon, self.noise_predictor.action_dim)
        noise = torch.randn(shape, device=condition.device, dtype=condition.dtype)  # (B,slots,Z)
        if self.config.is_flow_matching:
            # One Euler step along the whole way, from noise at time 0 to data at time 1.
            return noise + self.noise_predictor(noise, noise.new_zeros(len(noise)), condition)
        return denoise_once(
            self.objective.noise_scheduler,
            lambda noisy, step: self.noise_predictor(noisy, step, condition),
            noise,
        )

    @property
    def latent_head(self) -> nn.Parameter:
        return self.noise_predictor.output_proj.weight

    def transfer_rules(self, source: PreTrainedConfig) -> Sequence[Rule]:
        target, encoder = self.config.wrapped_config(), "observation_encoder.vision_encoder"
        other_actions = "takes or gives actions, which are of another kind now"
        return [
            OtherActions("noise_predictor.input_proj.*", other_actions),
            OtherActions("noise_predictor.output_proj.*", other_actions),
            InterpolateRows("noise_predictor.pos_embedding", "positions stretched to the new chunk"),
            match_condition("noise_predictor.*.adaLN_modulation.1.weight", source, target, self._blocks),
            match_encoders(source, target, encoder, f"{encoder}s"),
        ]

    def _blocks(self, config: PreTrainedConfig) -> dict[str, int]:
        """List what the transformer is conditioned on."""
        encoder = self.observation_encoder.vision_encoder or self.observation_encoder.vision_encoders[0]
        return condition_blocks(
            config,
            first={"denoising step": config.timestep_embed_dim},
            per_camera=encoder.embed_dim,
            last={"task": config.hidden_dim},
        )
