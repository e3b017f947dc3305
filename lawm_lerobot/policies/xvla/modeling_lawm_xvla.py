"""``lawm_xvla``: LeRobot's X-VLA with LAWM pretraining.

Letters: B batch, H latent actions, Z latent dimension, P the dimension that actions and latents are padded to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.xvla.configuration_xvla import XVLAConfig
from lerobot.policies.xvla.modeling_xvla import (
    XVLAPolicy,
    _is_vendored_florence_state_dict,
    _remap_vendored_florence_state_dict,
)
from lerobot.utils.constants import ACTION
from torch import Tensor, nn

from lawm_lerobot.checkpoints.transfer import OtherActions, Rule
from lawm_lerobot.method.networks import masked_mean
from lawm_lerobot.policies.common.clips import IS_PAD
from lawm_lerobot.policies.common.optimizer import pretraining_groups
from lawm_lerobot.policies.vla.policy import VLAPolicy
from lawm_lerobot.policies.xvla.configuration_lawm_xvla import LawmXVLAConfig


class XVLAInGroups(XVLAPolicy):
    """X-VLA whose parameters come in the groups that its own optimizer makes of their names."""

    def get_optim_params(self) -> Any:
        preset = XVLAConfig.get_optimizer_preset(self.config)
        groups = preset.build(super().get_optim_params()).param_groups
        return [{key: group[key] for key in ("params", "lr", "weight_decay")} for group in groups]


class LawmXVLAPolicy(VLAPolicy, XVLAInGroups):
    """X-VLA that denoises latent actions in pretraining, actions afterwards.

    In the ``finetune`` stage this is `XVLAPolicy`: same tensors, same names, same cost.
    """

    config_class = LawmXVLAConfig
    name = "lawm_xvla"

    def predict_latents(self, batch: dict[str, Any]) -> Tensor:
        return self.latents_in(self.estimate_chunk(batch))  # (B,H,Z)

    def estimate_chunk(self, batch: dict[str, Any]) -> Tensor:
        """Predict the clean chunk from noise alone: LeRobot's sampler in one step, with gradient."""
        model, inputs = self.model, self._build_model_inputs(batch)
        dtype, proprio = model._get_target_dtype(), inputs["proprio"]
        pictures = inputs["image_input"].to(dtype)
        seen = model.forward_vlm(inputs["input_ids"], pictures, inputs["image_mask"])
        shape = (len(proprio), model.chunk_size, model.dim_action)
        noise = torch.randn(shape, device=proprio.device, dtype=dtype)  # (B,slots,P)
        proprio, noisy = model.action_space.preprocess(proprio.to(dtype), noise)
        clean = model.transformer(
            domain_id=inputs["domain_id"],
            action_with_noise=noisy,
            proprio=proprio,
            t=noise.new_ones(len(noise)),
            **seen,
        )
        return model.action_space.postprocess(clean).float()

    def wrapped_loss(self, batch: dict[str, Any]) -> tuple[Tensor, dict]:
        """Compute X-VLA's own loss over what is not padded: LeRobot's counts padded steps too."""
        targets = self._prepare_action_targets(batch)  # (B,slots,P)
        clean: list[Tensor] = []
        hook = self.model.transformer.register_forward_hook(lambda *call: clean.append(call[-1]))
        try:
            self.model(action=targets, **self._build_model_inputs(batch))
        finally:
            hook.remove()
        latents = slice(self.config.latent_action.dim)
        errors = (clean[0][..., latents].float() - targets[..., latents]).square().mean(dim=-1)  # (B,slots)
        return masked_mean(errors, ~batch[f"{ACTION}{IS_PAD}"]), {}

    @property
    def latent_head(self) -> nn.Parameter:
        return self.model.transformer.action_decoder.fc.weight

    def get_optim_params(self) -> Any:
        if not self.config.pretraining:
            return super().get_optim_params()
        lr = self.config.optimizer_lr
        return pretraining_groups(XVLAInGroups.get_optim_params(self), self, self.pretraining, lr, lr)

    def base_names(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        if _is_vendored_florence_state_dict(weights):
            return _remap_vendored_florence_state_dict(weights)
        return weights

    def transfer_rules(self, source: PreTrainedConfig) -> Sequence[Rule]:
        return [
            *super().transfer_rules(source),
            OtherActions(
                "model.transformer.action_encoder.*",
                "embeds actions, which are of another kind now, with the robot's state",
            ),
            OtherActions(
                "model.transformer.action_decoder.*", "predicts actions, which are of another kind now"
            ),
        ]
