"""The parts of the pretraining loss: latent actions through world modelling.

Letters: B batch, L labelled clips beside it, H latent actions, T = H + 1 frames, C h w, Z latent dimension. Latent z_k
drives x_k -> x_{k+1}, for k = 0..H-1.

Whoever trains a policy adds up the parts, with the policy's own training loss among them. For each model in
`LATENT_MODELS[source]`, in this order:

    z = infer_latents(frames, valid)             of the inverse dynamics, or
    z = policy_latents(the policy's own, valid)
    loss += world_model_loss(clip, z)
    loss += imitation_weight * the policy's own loss on imitation_targets(frames, valid, z)
                                                 where z is the inverse dynamics'
    loss += readout_loss(z, valid, labels)       where there are labels

`LawmPolicy` does so for LeRobot's policies.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lawm_lerobot.method.clip import Clip
from lawm_lerobot.method.inverse_dynamics import InverseDynamics
from lawm_lerobot.method.latent import LatentNorm, effective_rank, latent_std
from lawm_lerobot.method.latent_action import POLICY, LatentActionConfig
from lawm_lerobot.method.networks import masked_mean
from lawm_lerobot.method.principal_components import PrincipalComponents
from lawm_lerobot.method.readout import ActionReadout, LabelBatch
from lawm_lerobot.method.world_models.base import WorldModel, WorldModelOutput


class LatentActionPretraining(nn.Module):
    """World model, inverse dynamics and read-out, and the losses by which they learn.

    Args:
        config: The configuration of the latents.
        world_model: p(x_1..x_H | x_0, z_0..z_{H-1}).
        inverse_dynamics: q(z_k | x_k, x_{k+1}, neighbours), None with ``source=policy``.
        readout: The read-out of robot actions, None without labels.
        readout_weight: The weight of the read-out's loss.
    """

    def __init__(
        self,
        config: LatentActionConfig,
        world_model: WorldModel,
        inverse_dynamics: InverseDynamics | PrincipalComponents | None,
        readout: ActionReadout | None = None,
        readout_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.config = config
        self.world_model = world_model
        self.inverse_dynamics = inverse_dynamics
        self.readout = readout
        self.readout_weight = readout_weight
        # Standardising over the batch is the constraint on the latents: bounded, and unable to collapse
        # by shrinking. With source=policy that is the guard against a collapse; with source=both the
        # policy's latents imitate q's, and so share their scale.
        self.latent_norm = LatentNorm(config.dim)
        self._readout_losses: dict[bool, Tensor] = {}

    def infer_latents(self, frames: Tensor, valid: Tensor) -> Tensor:
        """q's latents for a clip: frames (B,T,C,h,w), valid (B,H) -> (B,H,Z) of unit variance."""
        if self.inverse_dynamics is None:
            raise RuntimeError("latent_action.source=policy has no inverse dynamics.")
        return self.latent_norm(self.inverse_dynamics(frames, valid), valid)

    def policy_latents(self, z: Tensor, valid: Tensor) -> Tensor:
        """The policy's own latents (B,H,Z) as they drive the world model, given valid (B,H)."""
        return self.latent_norm(z, valid) if self.config.source == POLICY else z

    def world_model_loss(self, clip: Clip, z: Tensor) -> WorldModelOutput:
        """The world model's loss on B clips, driven by their latents (B,H,Z) and noise."""
        if self.training and self.config.noise:
            z = z + self.config.noise * torch.randn_like(z)  # (B,H,Z)
        return self.world_model(clip.frames, z, clip.valid)

    @torch.no_grad()
    def imitation_targets(self, frames: Tensor, valid: Tensor, z: Tensor) -> Tensor:
        """The latents (B,H,Z) that the policy is to imitate, given those that drive the world model.

        Without gradient: the policy imitates the latents, it must not make them easy to imitate. The policy sees x_0 as
        it is and cannot know how q's input was shifted: where it was, q looks once more.
        """
        if self.inverse_dynamics is None or not (
            self.inverse_dynamics.shifts and self.config.unshifted_targets
        ):
            return z.detach()
        return self.latent_norm(self.inverse_dynamics(frames, valid, shift=False), valid, track=False)

    def readout_loss(
        self, z: Tensor, valid: Tensor, labels: LabelBatch, track: bool = True
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted error () of reading the true actions out of the latents, which it shapes, and its metrics ().

        The latents z (B+L,H,Z) and valid (B+L,H) are those of the batch and then of the labelled clips. With ``track``
        this step counts in the running R2, which is among the metrics then.
        """
        if self.readout is None:
            raise RuntimeError("Labels were given to a pretraining module without a read-out.")
        error, variance = self.readout(z, valid, labels.targets)
        if labels.targets:
            self._readout_losses[track] = error.detach()
        # Of a step without labels the latest loss, and NaN before the first: all processes must log the same metrics.
        metrics = {"readout_loss": self._readout_losses.get(track, error.new_full((), torch.nan))}
        if track:
            metrics["readout_r2"] = self.readout.track(error, variance)
        return self.readout_weight * error, metrics

    @torch.no_grad()
    def health(self, frames: Tensor, latents: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """The metrics () by which a collapse cannot pass unseen, on one batch: (B,T,C,h,w), (B,H,Z), (B,H).

        latent_std is the mean over Z of the latents' standard deviation over the batch: 1 is healthy, 0 a constant.
        latent_rank is their effective rank, from 1 to Z. shuffle_ratio is the open-loop squared error with the latents
        of another clip over that with the clip's own; 1 means that they are ignored.
        """
        # From half a batch away: in an ordered batch the neighbour is a clip of the same motion.
        shift = max(len(latents) // 2, 1)
        # Where the other clip is over, its latents are zero, which is no latent of anybody's.
        both = valid & valid.roll(shift, dims=0)  # (B,H)
        own = self._open_loop_error(frames, latents, both)
        other = self._open_loop_error(frames, latents.roll(shift, dims=0), both)
        return {
            "latent_std": latent_std(latents, valid),
            "latent_rank": effective_rank(latents, valid),
            "shuffle_ratio": other / own.clamp_min(1e-8),
        }

    def _open_loop_error(self, frames: Tensor, latents: Tensor, valid: Tensor) -> Tensor:
        """(B,T,C,h,w), (B,H,Z), (B,H) -> () over the valid transitions."""
        imagined = self.world_model.imagine(frames[:, 0], latents)  # (B,H,C,h,w)
        error = (imagined.float() - frames[:, 1:].float()).square().mean(dim=(2, 3, 4))  # (B,H)
        return masked_mean(error, valid)
