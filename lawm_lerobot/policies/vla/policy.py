"""The policy half shared by the vision-language-action policies.

Letters: B batch, H latent actions, Z latent dimension, P the dimension that actions and latents are padded to
(``max_action_dim``); the latents are its first Z.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from lerobot.configs import PreTrainedConfig
from lerobot.utils.constants import ACTION, OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS
from torch import Tensor, nn

from lawm_lerobot.checkpoints.transfer import OtherActions, Reinitialise, Rule
from lawm_lerobot.method.networks import masked_mean
from lawm_lerobot.policies.common.clips import IS_PAD, real_cameras
from lawm_lerobot.policies.common.optimizer import fused, trainable
from lawm_lerobot.policies.common.policy import LawmPolicy
from lawm_lerobot.policies.vla.configuration import FlowVLAConfig, VLAConfig

logger = logging.getLogger(__name__)


class VLAPolicy(LawmPolicy):
    """Mixed in front of a VLA, whose network is ``self.model``: ``class LawmPI0FastPolicy(VLAPolicy, PI0FastPolicy)``."""

    config: VLAConfig

    def get_optim_params(self) -> Any:
        if not self.config.pretraining:
            return super().get_optim_params()
        vla = {"params": trainable(self.model), "lr": self.config.optimizer_lr}
        return fused([vla, {"params": trainable(self.pretraining)}])

    def transfer_rules(self, source: PreTrainedConfig) -> Sequence[Rule]:
        """Have no rule for a tensor: a subclass adds its own to this list, which goes with a line on the cameras."""
        _say_places(list(real_cameras(source)), list(real_cameras(self.config)))
        return []


class FlowVLAPolicy(VLAPolicy):
    """Mixed in front of a VLA: ``class LawmSmolVLAPolicy(FlowVLAPolicy, SmolVLAPolicy)``.

    ``self.model`` is the VLA's network: ``forward(*model_inputs, actions, noise, time)`` gives the squared errors
    (B,H,P) of its velocity at x_t = t * noise + (1 - t) * actions, which it predicts through ``action_out_proj``.
    """

    config: FlowVLAConfig

    def model_inputs(self, batch: dict[str, Any]) -> tuple[Any, ...]:
        """List what ``self.model.forward`` takes before the actions: images, tokens, the masks of both, the state."""
        tokens, mask = batch[OBS_LANGUAGE_TOKENS], batch[OBS_LANGUAGE_ATTENTION_MASK]
        return (*self.prepare_images(batch), tokens, mask, *self.state_inputs(batch))

    def state_inputs(self, batch: dict[str, Any]) -> tuple[Tensor, ...]:
        return (self.prepare_state(batch),)

    def predict_latents(self, batch: dict[str, Any]) -> Tensor:
        return self.estimate_chunk(batch)  # (B,H,Z)

    def estimate_chunk(self, batch: dict[str, Any]) -> Tensor:
        """One Euler step over the whole flow: noise - v(noise, t = 1).

        By the training pass: LeRobot's sampler of pi0 has gradients switched off, and its cache of keys and values
        excludes gradient checkpointing.
        """
        inputs = self.model_inputs(batch)
        batch_size, device = len(inputs[0][0]), inputs[0][0].device
        shape = (batch_size, self.model.config.chunk_size, self.config.max_action_dim)
        noise = self.model.sample_noise(shape, device)  # (B,H,P)
        velocity: list[Tensor] = []
        hook = self.model.action_out_proj.register_forward_hook(lambda *call: velocity.append(call[-1]))
        try:
            # The class's, because the instance's may be compiled, without the hook.
            type(self.model).forward(
                self.model, *inputs, torch.zeros_like(noise), noise, torch.ones(batch_size, device=device)
            )
        finally:
            hook.remove()
        return (noise - velocity[0])[..., : self.config.output_features[ACTION].shape[0]]

    def wrapped_loss(self, batch: dict[str, Any]) -> tuple[Tensor, dict]:
        """Compute the VLA's own loss over what is not padded: LeRobot's pi0 and pi0.5 count padded steps too."""
        actions = self.prepare_action(batch)  # (B,H,P)
        noise = self.model.sample_noise(actions.shape, actions.device)
        time = self.model.sample_time(len(actions), actions.device)
        errors = self.model.forward(*self.model_inputs(batch), actions, noise, time)  # (B,H,P)
        latent_errors = errors[..., : self.config.latent_action.dim].mean(dim=-1)  # (B,H)
        return masked_mean(latent_errors, ~batch[f"{ACTION}{IS_PAD}"]), {}

    @property
    def latent_head(self) -> nn.Parameter:
        return self.model.action_out_proj.weight

    def transfer_rules(self, source: PreTrainedConfig) -> Sequence[Rule]:
        rules: list[Rule] = [
            *super().transfer_rules(source),
            OtherActions("model.action_in_proj.*", "embedded actions of another kind"),
            OtherActions("model.action_out_proj.*", "predicted actions of another kind"),
        ]
        # A frozen embedding still is the published one.
        if getattr(self.config, "train_state_proj", True):
            rules.append(
                Reinitialise("model.state_proj.*", "embeds the robot's state, which differs between robots")
            )
        return rules


def _say_places(before: list[str], now: list[str]) -> None:
    """Say which camera takes which one's place: a VLA tells its cameras apart by their order, not by their names."""
    places = [(ours, theirs) for ours, theirs in zip(now, before, strict=False) if ours != theirs]
    if places:
        swapped = any(ours in before for ours, _ in places)
        logger.log(
            logging.WARNING if swapped else logging.INFO,
            "The policy takes its cameras by their order: "
            + ", ".join(f"{ours} is where {theirs} was" for ours, theirs in places)
            + " in the checkpoint. To change that, list the cameras in --policy.input_features in the wanted order.",
        )


class OpenPIPolicy(VLAPolicy):
    """Mixed in front of pi0, pi0.5 and pi0-FAST, LeRobot's ports of openpi."""

    def prepare_images(self, batch: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
        return self._preprocess_images(batch)

    def base_names(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        current = self._fix_pytorch_state_dict_keys(weights, self.config)
        return {
            name if name.startswith("model.") else f"model.{name}": tensor for name, tensor in current.items()
        }
