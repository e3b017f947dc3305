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

and, where they are asked for and z is the inverse dynamics' (docs/latents.md):

    z = quantised(continuous_latents(frames, valid), valid)     in place of infer_latents, which is the same
    loss += option_losses(InferredLatents(clip, clips, labels, continuous, z))

`LawmPolicy` does so for LeRobot's policies.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lawm_lerobot.method.action_latents import ActionEncoder
from lawm_lerobot.method.clip import Clip
from lawm_lerobot.method.inverse_dynamics import InverseDynamics
from lawm_lerobot.method.latent import LatentNorm, effective_rank, latent_std
from lawm_lerobot.method.latent_action import POLICY, LatentActionConfig
from lawm_lerobot.method.networks import masked_mean
from lawm_lerobot.method.principal_components import PrincipalComponents
from lawm_lerobot.method.proprioception import ProprioDynamics
from lawm_lerobot.method.quantizers import build_quantizer
from lawm_lerobot.method.readout import ActionReadout, LabelBatch
from lawm_lerobot.method.world_models.base import WorldModel, WorldModelOutput

# The metric of how well the latents of true actions foretell what those inferred of the same frames do.
ACTION_RATIO = "action_latent_ratio"


@dataclass
class InferredLatents:
    """The inverse dynamics' latents of a training step.

    Args:
        clip: The B clips of the corpus.
        clips: The B clips, and then the L labelled ones.
        labels: The true actions, if some are in use.
        continuous: The latents (B+L,H,Z) before they were quantised.
        z: The latents (B+L,H,Z) that drive the world model.
    """

    clip: Clip
    clips: Clip
    labels: LabelBatch | None
    continuous: Tensor
    z: Tensor


class LatentActionPretraining(nn.Module):
    """World model, inverse dynamics and read-out, and the losses by which they learn.

    Args:
        config: The configuration of the latents.
        world_model: p(x_1..x_H | x_0, z_0..z_{H-1}).
        inverse_dynamics: q(z_k | x_k, x_{k+1}, neighbours), None with ``source=policy``.
        readout: The read-out of robot actions, None without labels.
        readout_weight: The weight of the read-out's loss.
        action_encoder: The encoder of true actions into latents, which needs a read-out; None for none.
        grounding_weight: The weight of the losses by which the action encoder learns.
    """

    def __init__(
        self,
        config: LatentActionConfig,
        world_model: WorldModel,
        inverse_dynamics: InverseDynamics | PrincipalComponents | None,
        readout: ActionReadout | None = None,
        readout_weight: float = 1.0,
        action_encoder: ActionEncoder | None = None,
        grounding_weight: float = 1.0,
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
        self._latest: dict[str, Tensor] = {}
        # Those that are not asked for are None, and then leave no trace in a checkpoint.
        self.quantizer = build_quantizer(config)
        self.proprio: ProprioDynamics | None = None
        if config.proprio_weight > 0 and config.proprio_dim is not None:
            self.proprio = ProprioDynamics(config.dim, config.proprio_dim)
        self.action_encoder = action_encoder
        self.grounding_weight = grounding_weight

    def infer_latents(self, frames: Tensor, valid: Tensor) -> Tensor:
        """q's latents for a clip: frames (B,T,C,h,w), valid (B,H) -> (B,H,Z), of unit variance unless quantised."""
        return self.quantised(self.continuous_latents(frames, valid), valid)

    def continuous_latents(self, frames: Tensor, valid: Tensor) -> Tensor:
        """q's latents for a clip before they are quantised: (B,T,C,h,w), (B,H) -> (B,H,Z) of unit variance."""
        if self.inverse_dynamics is None:
            raise RuntimeError("latent_action.source=policy has no inverse dynamics.")
        return self.latent_norm(self.inverse_dynamics(frames, valid), valid)

    def quantised(self, z: Tensor, valid: Tensor, track: bool = True) -> Tensor:
        """Latents (B,H,Z) as they drive the world model, given valid (B,H); the same ones without a quantiser.

        With ``track=False`` the quantiser learns nothing of them.
        """
        return z if self.quantizer is None else self.quantizer(z, valid, track)

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
        z = self.latent_norm(self.inverse_dynamics(frames, valid, shift=False), valid, track=False)
        return self.quantised(z, valid, track=False)

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
        metrics = {"readout_loss": self._of_labels(f"readout_loss {track}", error, labels)}
        if track:
            metrics["readout_r2"] = self.readout.track(error, variance)
        return self.readout_weight * error, metrics

    def _of_labels(self, name: str, value: Tensor, labels: LabelBatch) -> Tensor:
        """The value () for the log: of a step without labels the latest one, NaN before the first.

        All processes must log the same metrics.
        """
        if labels.targets:
            self._latest[name] = value.detach()
        return self._latest.get(name, value.new_full((), torch.nan))

    def option_losses(self, step: InferredLatents) -> tuple[Tensor, dict[str, Tensor]]:
        """The losses () of the families of docs/latents.md that are asked for, summed and weighted, and their metrics ()."""
        loss = step.z.new_zeros(())
        metrics: dict[str, Tensor] = {}
        if self.quantizer is not None:
            loss = loss + self.quantizer.loss(step.continuous, step.z, step.clips.valid)
        if self.proprio is not None:
            foretelling, found = self.proprio_loss(step.clip, step.z[: len(step.clip)])
            loss, metrics = loss + foretelling, metrics | found
        if self.action_encoder is not None and step.labels is not None:
            grounding, found = self.grounding_loss(step.clips, step.labels)
            loss, metrics = loss + grounding, metrics | found
        return loss, metrics

    def proprio_loss(self, clip: Clip, z: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted error () of foretelling the state's change from B clips' latents (B,H,Z), and its metrics ().

        villa-X (arXiv 2507.23682, section on the latent action model): the proprioceptive forward dynamics' loss, beside
        the visual one.
        """
        if self.proprio is None or clip.states is None:
            raise RuntimeError("latent_action.proprio_weight needs clips with states.")
        error, r2 = self.proprio(z, clip.states, clip.valid)
        return self.config.proprio_weight * error, {"proprio_loss": error.detach(), "proprio_r2": r2}

    def grounding_loss(self, clips: Clip, labels: LabelBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted losses () by which true actions become latents, given B+L clips, and their metrics ().

        GLAM (arXiv 2606.21672): the latents of the actions must predict, through the one world model, what the inferred ones
        predict, and the one decoder must lead from them back to the actions.
        """
        latents, rows = self.action_latents(clips, labels), labels.rows
        loss = world = latents.new_zeros(())
        if len(rows):
            labelled = Clip(clips.frames[rows], clips.valid[rows])
            world = self.world_model_loss(labelled, latents[rows]).loss
            assert self.readout is not None
            loss = world + self.readout_weight * self.readout(latents, clips.valid, labels.targets)[0]
        metrics = {"action_world_model_loss": self._of_labels("action_world_model_loss", world, labels)}
        return self.grounding_weight * loss, metrics

    def action_latents(self, clips: Clip, labels: LabelBatch) -> Tensor:
        """The latents (B+L,H,Z) of the true actions of B+L clips; those of clips without labels mean nothing."""
        if self.action_encoder is None or self.readout is None:
            raise RuntimeError("Labels were given to a pretraining module without an action encoder.")
        latents = clips.frames.new_zeros(*clips.valid.shape, self.config.dim, dtype=torch.float32)
        for target in labels.targets:
            actions = self.readout.standardised(target)  # (N,H,stride*A)
            latents[target.rows] = self.action_encoder(actions, target.head)
        return self.quantised(latents * clips.valid.unsqueeze(-1), clips.valid, track=False)

    @torch.no_grad()
    def option_health(self, step: InferredLatents) -> dict[str, Tensor]:
        """The metrics () of a step's latents that the families of docs/latents.md add to `health`, as far as asked for.

        Those of the codes are `Quantizer.usage`. action_latent_ratio is the open-loop squared error with the latents of the
        true actions over that with the inferred latents of the same clips: near 1 where both foretell the same.
        """
        metrics = {} if self.quantizer is None else self.quantizer.usage(step.z, step.clips.valid)
        if self.action_encoder is None or step.labels is None:
            return metrics
        rows, ratio = step.labels.rows, step.z.new_full((), torch.nan)
        if len(rows):
            frames, valid = step.clips.frames[rows], step.clips.valid[rows]
            of_actions, inferred = (
                open_loop_error(self.world_model, frames, latents[rows], valid)
                for latents in (self.action_latents(step.clips, step.labels), step.z)
            )
            ratio = of_actions / inferred.clamp_min(1e-8)
        return {**metrics, ACTION_RATIO: self._of_labels(ACTION_RATIO, ratio, step.labels)}

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
        own = open_loop_error(self.world_model, frames, latents, both)
        other = open_loop_error(self.world_model, frames, latents.roll(shift, dims=0), both)
        return {
            "latent_std": latent_std(latents, valid),
            "latent_rank": effective_rank(latents, valid),
            "shuffle_ratio": other / own.clamp_min(1e-8),
        }


def open_loop_error(world_model: WorldModel, frames: Tensor, latents: Tensor, valid: Tensor) -> Tensor:
    """The squared error () of what is imagined from x_0, for (B,T,C,h,w), (B,H,Z), over the valid (B,H) transitions."""
    imagined = world_model.imagine(frames[:, 0], latents)  # (B,H,C,h,w)
    error = (imagined.float() - frames[:, 1:].float()).square().mean(dim=(2, 3, 4))  # (B,H)
    return masked_mean(error, valid)
