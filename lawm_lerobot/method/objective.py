"""The pretraining loss: latent actions through world modelling.

Letters: B batch, H latent actions, T = H + 1 frames, C h w, Z latent dimension. Latent z_k drives x_k ->
x_{k+1}, for k = 0..H-1. Plain PyTorch; nothing here knows of LeRobot.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lawm_lerobot.method.inverse_dynamics import InverseDynamics
from lawm_lerobot.method.latent import LatentNorm, effective_rank, latent_std
from lawm_lerobot.method.latent_action import BOTH, INVERSE_DYNAMICS, POLICY, LatentActionConfig
from lawm_lerobot.method.networks import masked_mean
from lawm_lerobot.method.readout import ActionReadout, LabelBatch
from lawm_lerobot.method.world_models.base import WorldModel

#: predict_latents() -> (B+L,H,Z), with gradient into the policy: for the batch, then for labelled clips, if any.
PredictLatents = Callable[[], Tensor]
#: imitation_loss(latents (B,H,Z)) -> the policy's own training loss on them, and its own metrics.
ImitationLoss = Callable[[Tensor], tuple[Tensor, dict]]


class LatentActionPretraining(nn.Module):
    """World model, inverse dynamics, and the loss that joins them to a policy.

    Args:
        config: Of the latents.
        world_model: p(x_1..x_H | x_0, z_0..z_{H-1}).
        inverse_dynamics: q(z_k | x_k, x_{k+1}, neighbours), None with ``source=policy``.
        readout: To robot actions, where there are labels.
        readout_weight: Of its loss.
    """

    def __init__(
        self,
        config: LatentActionConfig,
        world_model: WorldModel,
        inverse_dynamics: InverseDynamics | None,
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

    def forward(
        self,
        frames: Tensor,
        valid: Tensor,
        predict_latents: PredictLatents,
        imitation_loss: ImitationLoss,
        labels: LabelBatch | None = None,
    ) -> tuple[Tensor, dict[str, Tensor | float], Tensor]:
        """The whole pretraining loss, over the transitions that lie within their episode.

        Args:
            frames: (B,T,C,h,w), in [0, 1], at the world model's size.
            valid: (B,H) bool, False where x_{k+1} lies past the episode's end.
            predict_latents: The policy's latents, called where the source needs them.
            imitation_loss: The policy's own training loss on given latents, likewise.
            labels: True actions of some of these clips, and labelled clips beside them, which only the
                read-out sees.

        Returns:
            The loss (); metrics; and the latents (B,H,Z) that drove the world model, detached.
        """
        loss = frames.new_zeros(())
        metrics: dict[str, Tensor | float] = {}
        clips = len(frames)
        # One batch, so that the normalisation of the latents is the same for all clips.
        every_valid = valid if labels is None else torch.cat([valid, labels.valid])  # (B+L,H)

        if self.config.source in (INVERSE_DYNAMICS, BOTH):
            every_frame = frames if labels is None else torch.cat([frames, labels.frames])  # (B+L,T,C,h,w)
            every_z = self.infer_latents(every_frame, every_valid)  # (B+L,H,Z)
            z = every_z[:clips]  # (B,H,Z)
            dynamics = self.world_model(frames, self._perturb(z), valid)
            # Stop-gradient: the policy imitates the latents, it must not make them easy to imitate.
            imitation, policy_metrics = imitation_loss(self.imitation_targets(frames, valid, z))
            loss = loss + dynamics.loss
            loss = loss + self.config.imitation_weight * imitation
            metrics |= {"imitation_loss": imitation.detach(), "world_model_loss": dynamics.loss.detach()}
            metrics |= policy_metrics | dynamics.metrics
            if labels is not None:
                loss = loss + self._read_out(every_z, every_valid, labels, metrics, "")

        if self.config.source in (POLICY, BOTH):
            prefix = "policy_" if self.config.source == BOTH else ""
            every_z = predict_latents()  # (B+L,H,Z)
            if self.config.source == POLICY:
                every_z = self.latent_norm(every_z, every_valid)
            z = every_z[:clips]  # (B,H,Z)
            dynamics = self.world_model(frames, self._perturb(z), valid)
            loss = loss + dynamics.loss
            figures = {"world_model_loss": dynamics.loss.detach(), **dynamics.metrics}
            metrics |= {f"{prefix}{name}": value for name, value in figures.items()}
            if labels is not None:
                loss = loss + self._read_out(every_z, every_valid, labels, metrics, prefix)

        return loss, metrics, z.detach()

    def _read_out(
        self, z: Tensor, valid: Tensor, labels: LabelBatch, metrics: dict[str, Tensor | float], prefix: str
    ) -> Tensor:
        """The weighted loss () of telling the true actions from (B+L,H,Z); its gradient shapes the latents."""
        if self.readout is None:
            raise RuntimeError("Labels were given to a pretraining module without a read-out.")
        error, spread = self.readout(z, valid, labels.targets)
        metrics[f"{prefix}readout_loss"] = error.detach()
        if not prefix:
            metrics["readout_r2"] = self.readout.track(error, spread)
        return self.readout_weight * error

    def infer_latents(self, frames: Tensor, valid: Tensor) -> Tensor:
        """q's latents for a clip: frames (B,T,C,h,w), valid (B,H) -> (B,H,Z) of unit variance."""
        if self.inverse_dynamics is None:
            raise RuntimeError("latent_action.source=policy has no inverse dynamics.")
        return self.latent_norm(self.inverse_dynamics(frames, valid), valid)

    @torch.no_grad()
    def imitation_targets(self, frames: Tensor, valid: Tensor, z: Tensor) -> Tensor:
        """The latents (B,H,Z) that the policy is to imitate, given those that drive the world model.

        The policy sees x_0 as it is and cannot know how q's input was shifted: where it was, q looks once more.
        """
        if self.inverse_dynamics is None or not (
            self.inverse_dynamics.shifts and self.config.unshifted_targets
        ):
            return z.detach()
        return self.latent_norm(self.inverse_dynamics(frames, valid, shift=False), valid, track=False)

    def _perturb(self, z: Tensor) -> Tensor:
        return z + self.config.noise * torch.randn_like(z) if self.training and self.config.noise else z

    @torch.no_grad()
    def health(self, frames: Tensor, latents: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """Figures by which collapse cannot pass unseen, on one batch.

        Returns:
            latent_std: mean over Z of the latents' standard deviation over the batch; 1 is healthy, 0 a
                constant.
            latent_rank: their effective rank, from 1 to Z.
            shuffle_ratio: open-loop squared error with the latents of another clip over that with the
                clip's own; 1 means that they are ignored.
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
        imagined = self.world_model.imagine(frames[:, 0], latents)  # (B,H,C,h,w)
        error = (imagined.float() - frames[:, 1:].float()).square().mean(dim=(2, 3, 4))  # (B,H)
        return masked_mean(error, valid)
