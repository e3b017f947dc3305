"""``lawm_diffusion``: LeRobot's Diffusion Policy with LAWM pretraining."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
from lerobot.utils.constants import OBS_ENV_STATE, OBS_IMAGES
from torch import Tensor, nn

from lawm_lerobot.checkpoints.conditioning import condition_blocks, match_condition, match_encoders
from lawm_lerobot.checkpoints.transfer import OtherActions, Reinitialise, Rule
from lawm_lerobot.policies.common.denoising import denoise_once
from lawm_lerobot.policies.common.policy import LawmPolicy
from lawm_lerobot.policies.diffusion.configuration_lawm_diffusion import LawmDiffusionConfig


class LawmDiffusionPolicy(LawmPolicy, DiffusionPolicy):
    """Diffusion Policy that denoises latent actions in pretraining, actions afterwards.

    In the ``finetune`` stage this is `DiffusionPolicy`: same tensors, same names, same cost.
    """

    config_class = LawmDiffusionConfig
    name = "lawm_diffusion"

    def predict_latents(self, batch: dict[str, Any]) -> Tensor:
        return self.latents_in(self.estimate_chunk(batch))

    def estimate_chunk(self, batch: dict[str, Any]) -> Tensor:
        model = self.diffusion
        images = torch.stack([batch[key] for key in self.config.image_features], dim=-4)  # (B,n,K,C,h,w)
        condition = model._prepare_global_conditioning({**batch, OBS_IMAGES: images})  # (B,features)
        shape = (len(condition), model.config.horizon, model.config.action_feature.shape[0])
        return denoise_once(
            model.noise_scheduler,
            lambda noisy, step: model.unet(noisy, step, global_cond=condition),
            torch.randn(shape, device=condition.device, dtype=condition.dtype),
        )

    @property
    def latent_head(self) -> nn.Parameter:
        return self.diffusion.unet.final_conv[-1].weight

    def transfer_rules(self, source: PreTrainedConfig) -> Sequence[Rule]:
        target, unet = self.config.wrapped_config(), "diffusion.unet.*"
        other_actions = "takes or gives actions, which are of another kind now"
        return [
            OtherActions(f"{unet}down_modules.0.0.conv1.block.0.*", other_actions),
            OtherActions(f"{unet}down_modules.0.0.residual_conv.*", other_actions),
            OtherActions(f"{unet}final_conv.1.*", other_actions),
            match_condition(f"{unet}cond_encoder.1.weight", source, target, _blocks),
            Reinitialise("diffusion.rgb_encoder.*pool.pos_grid", "fixed coordinates for the images' size"),
            match_encoders(source, target, "diffusion.rgb_encoder", "diffusion.rgb_encoder"),
        ]


def _blocks(config: PreTrainedConfig) -> dict[str, int]:
    """The parts of the Unet's condition; a camera has two coordinates a keypoint."""
    environment = config.env_state_feature
    return condition_blocks(
        config,
        first={"denoising step": config.diffusion_step_embed_dim},
        per_camera=2 * config.spatial_softmax_num_keypoints,
        last={OBS_ENV_STATE: environment.shape[0]} if environment else {},
    )
