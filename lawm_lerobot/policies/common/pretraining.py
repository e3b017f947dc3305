"""The pretraining half of every ``lawm_*`` policy: its view of a batch, and the loss.

Pretraining batch, after LeRobot's preprocessor (B batch, H latent actions, T = H + 1 frames, C h w, S state):

    observation.images.<camera>          (B,T,C,h,w) float, normalised as the wrapped policy expects
    observation.images.<camera>_is_pad   (B,T) bool, True past the episode's end
    observation.state                    (B,T,S), if the dataset has one
    task                                 list of B strings

A wrapped policy with a history of n observations has n - 1 more frames in front; x_0 is its last. The policy
sees x_0 and its history, never a future frame.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from lerobot.utils.constants import ACTION, OBS_STATE
from torch import Tensor, nn

from lawm_lerobot.labels.training import TrainingLabels
from lawm_lerobot.method.action_latents import ActionEncoder
from lawm_lerobot.method.clip import Clip
from lawm_lerobot.method.latent_action import INVERSE_DYNAMICS, LATENT_MODELS, POLICY
from lawm_lerobot.method.objective import InferredLatents, LatentActionPretraining
from lawm_lerobot.method.readout import ActionReadout, LabelBatch
from lawm_lerobot.policies.common.checkpointed import CheckpointedPolicy
from lawm_lerobot.policies.common.clips import (
    IS_PAD,
    join_batches,
    make_clip,
    pixel_affine,
    policy_views,
    present_batch,
    real_cameras,
    world_model_camera,
)
from lawm_lerobot.policies.common.configuration import FINETUNE, LawmConfig
from lawm_lerobot.policies.common.health import HealthMonitor, evaluating, to_floats
from lawm_lerobot.policies.common.large_frames import warn_of_large_frames

logger = logging.getLogger(__name__)


class PretrainingPolicy(CheckpointedPolicy):
    """The half of `LawmPolicy` that is pretrained, mixed in front of a LeRobot policy.

    It has more methods than a class should have, because the wrapper of a policy overrides them one by one.

    Args:
        pretraining: The world model, the inverse dynamics and the read-out; only in the ``pretrain`` stage.
        health: The health of the latents, as it is logged; only in the ``pretrain`` stage.
    """

    pretraining: LatentActionPretraining
    health: HealthMonitor

    # --- what a policy's own wrapper adds -------------------------------------------------------------

    def predict_latents(self, batch: dict[str, Any]) -> Tensor:
        """Predict the latents for x_0, with gradient: `policy_batch` -> (B,H,Z).

        A policy whose output passes no gradient leaves this out, and can be pretrained with
        ``latent_action.source=inverse_dynamics`` only.
        """
        raise NotImplementedError

    @classmethod
    def differentiable_latents(cls) -> bool:
        """Tell if the policy has a `predict_latents`."""
        return cls.predict_latents is not PretrainingPolicy.predict_latents

    def latents_in(self, chunk: Tensor) -> Tensor:
        """Take the latents out of an action chunk of the wrapped policy: (B,slots,Z) -> (B,H,Z)."""
        before, _ = self.config.latent_slots
        return chunk[:, before : before + self.config.latent_action.horizon]

    @property
    def latent_head(self) -> nn.Parameter:
        """A weight of the policy's output layer, whose gradient norm is logged."""
        raise NotImplementedError

    def prepare_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Complete a batch before the wrapped policy gets it: one that takes no state gets one of width 0.

        LeRobot's policies read the device or the shape of ``observation.state`` even where its numbers are unused.
        """
        if (OBS_STATE in batch and self.config.robot_state_feature is not None) or not self.cameras:
            return batch
        image = batch[self.cameras[0]]  # (B,[n],C,h,w)
        return {**batch, OBS_STATE: image.new_zeros(*image.shape[:-3], 0)}  # (B,[n],0)

    def take_statistics(self, stats: dict[str, dict[str, Any]]) -> None:
        # LeRobot's preprocessor takes this dataset's statistics too, no longer those of the checkpoint.
        mean, scale = pixel_affine(self.config, self.camera, stats)
        self.pretraining.get_buffer("pixel_mean").copy_(mean)
        self.pretraining.get_buffer("pixel_scale").copy_(scale)

    # --- batch ----------------------------------------------------------------------------------------

    @property
    def cameras(self) -> list[str]:
        """The image features that a batch must have."""
        return list(real_cameras(self.config))

    @property
    def camera(self) -> str:
        """The image feature whose frames the world model predicts, see `world_model_camera`."""
        return world_model_camera(self.config)

    def clip(self, batch: dict[str, Any]) -> Clip:
        """The world model's view of a pretraining batch."""
        mean, scale = map(self.pretraining.get_buffer, ("pixel_mean", "pixel_scale"))  # each (C,1,1)
        return make_clip(batch, self.config, mean, scale)

    def policy_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The wrapped policy's view of a pretraining batch: its history up to x_0, and no action."""
        return self.prepare_batch(present_batch(batch, self.config))

    # --- loss ------------------------------------------------------------------------------------------

    def _start_pretraining(
        self, dataset_stats: dict[str, dict[str, Any]] | None, dataset_meta: Any = None
    ) -> None:
        """Add the parts that only pretraining has."""
        config = self.config
        if dataset_meta is not None:
            _check_stride(config, dataset_meta)
            _check_video(config)
            warn_of_large_frames(config, self.cameras, dataset_meta)
            fps = dataset_meta.fps  # Some tools write 30.0 into info.json, or 29.97.
            config.dataset_fps = int(fps) if fps == int(fps) else fps
            config.latent_action.proprio_dim = _proprio_dim(config, dataset_meta)
        if config.latent_action.source == POLICY and not config.world_model.first_frame_bottleneck:
            logger.warning(
                f"The policy's own latents drive a '{config.world_model.type}' world model, which sees the first "
                "frame so well that it can ignore them: with --policy.latent_action.source=policy choose "
                "--policy.world_model.type=rssm, and watch shuffle_ratio."
            )
        self._labels: TrainingLabels | None = None
        if dataset_meta is not None:
            views = policy_views(config, self.cameras, dataset_stats)
            self._labels = TrainingLabels.load(
                config.labels,
                config.latent_action,
                self.camera,
                config.world_model.image_size,
                dataset_meta,
                views,
            )
            config.labels.action_dims = self._labels.action_dims if self._labels is not None else []
            config.labels.digests = self._labels.digests if self._labels is not None else []
        self.pretraining = self._build_pretraining(dataset_stats)
        self.health = HealthMonitor(config.health_freq)
        self.latent_head.register_hook(self.health.note_policy_gradient)

    def _build_pretraining(self, dataset_stats: dict[str, dict[str, Any]] | None) -> LatentActionPretraining:
        """World model, inverse dynamics and read-out, newly initialised."""
        config, action = self.config, self.config.latent_action
        size = config.world_model.image_size
        world_model = config.world_model.build(action.dim, action.horizon)
        inverse_dynamics = None if action.source == POLICY else config.idm.build(action.dim, size)
        labels, readout, action_encoder = config.labels, None, None
        if labels.action_dims:
            readout = ActionReadout(action.dim, action.stride, labels.action_dims)
            if self._labels is not None:
                self._labels.set_statistics(readout)
            if labels.grounding_weight > 0:
                action_encoder = ActionEncoder(action.dim, action.stride, labels.action_dims)
        pretraining = LatentActionPretraining(
            action,
            world_model,
            inverse_dynamics,
            readout,
            labels.weight,
            action_encoder,
            labels.grounding_weight,
        )
        mean, scale = pixel_affine(config, self.camera, dataset_stats)
        # Saved with the checkpoint: whoever imagines with it needs no dataset to undo the normalisation.
        pretraining.register_buffer("pixel_mean", mean)  # (C,1,1)
        pretraining.register_buffer("pixel_scale", scale)  # (C,1,1)
        if config.compile_model:  # In place, so that tensors keep their names.
            for module in (world_model, inverse_dynamics):
                if module is not None:
                    module.compile()
        return pretraining

    def wrapped_loss(self, batch: dict[str, Any]) -> tuple[Tensor, dict]:
        """The wrapped policy's own training loss () on latents, and its metrics.

        The batch is a `policy_batch`, with the latents as ``action`` (B,slots,Z) and ``action_is_pad`` (B,slots), whose
        slots count in no loss.
        """
        loss, metrics = super().forward(batch)
        return loss, metrics or {}

    def pretraining_loss(
        self, batch: dict[str, Any], reduction: str = "mean"
    ) -> tuple[Tensor, dict[str, float]]:
        """The whole pretraining loss (); its parts are those of `LatentActionPretraining` and the policy's own loss."""
        if reduction != "mean":
            raise ValueError(
                f"Pretraining has one loss for the whole batch and none for each sample (reduction={reduction!r}), so "
                "its samples cannot be weighted: leave out --sample_weighting."
            )
        method, action = self.pretraining, self.config.latent_action
        clip, seen = self.clip(batch), self.policy_batch(batch)
        labels, labelled_seen = self._draw_labels(batch, clip.frames)
        # One batch with the L labelled clips, so that the normalisation of the latents is the same for all.
        clips = clip if labels is None else clip.followed_by(Clip(labels.frames, labels.valid))
        all_seen = seen if labelled_seen is None else self.prepare_batch(join_batches(seen, labelled_seen))

        loss = clip.frames.new_zeros(())
        metrics: dict[str, Any] = {}
        inferred: InferredLatents | None = None
        for model, prefix in LATENT_MODELS[action.source].items():
            if model == INVERSE_DYNAMICS:
                continuous = method.continuous_latents(clips.frames, clips.valid)  # (B+L,H,Z)
                z = method.quantised(continuous, clips.valid)  # (B+L,H,Z)
            else:
                z = method.policy_latents(self.predict_latents(all_seen), clips.valid)  # (B+L,H,Z)
            latents = z[: len(clip)]  # (B,H,Z)

            # Labelled clips too, where the latents of their actions are to foretell the same.
            driven = clip if method.action_encoder is None else clips
            world = method.world_model_loss(driven, z[: len(driven)])
            loss = loss + world.loss
            parts: dict[str, Any] = {"world_model_loss": world.loss.detach()}

            if model == INVERSE_DYNAMICS:
                targets = method.imitation_targets(clip.frames, clip.valid, latents)  # (B,H,Z)
                imitation, policy_metrics = self.wrapped_loss(self.with_latents(seen, targets, clip.valid))
                loss = loss + action.imitation_weight * imitation
                parts = {"imitation_loss": imitation.detach(), **parts, **policy_metrics}
                inferred = InferredLatents(clip, clips, labels, continuous, z)
                options, option_metrics = method.option_losses(inferred)
                loss = loss + options
                parts |= option_metrics
            parts |= world.metrics

            if labels is not None:
                readout, readout_metrics = method.readout_loss(z, clips.valid, labels, track=not prefix)
                loss = loss + readout
                parts |= readout_metrics
            metrics |= {f"{prefix}{name}": value for name, value in parts.items()}

        if self.training:
            metrics |= self._watch_health(clip, latents.detach(), seen, inferred)
        return loss, {**to_floats(metrics), **self.health.metrics}

    def with_latents(self, seen: dict[str, Any], latents: Tensor, valid: Tensor) -> dict[str, Any]:
        """A `policy_batch` with the latents (B,H,Z) as the wrapped policy's actions, padded where they are not valid."""
        slots = self.config.latent_slots
        chunk = F.pad(latents, (0, 0, *slots))  # (B,slots,Z), z_0 where an action for the present is
        is_pad = F.pad(~valid, slots, value=True)  # (B,slots)
        return {**seen, ACTION: chunk, f"{ACTION}{IS_PAD}": is_pad}

    def _draw_labels(
        self, batch: dict[str, Any], frames: Tensor
    ) -> tuple[LabelBatch | None, dict[str, Any] | None]:
        """A training step's labels, and the policy's view of the labelled clips, if its latents are in use."""
        readout = self.pretraining.readout
        if self._labels is None or readout is None or not self.training:
            return None, None
        # By step and process: a resumed run goes on, and processes draw different clips.
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        seed = [self.config.labels.seed, int(readout.steps), rank]
        readout.steps += 1
        return self._labels.batch(batch["index"], frames, seed)

    def _watch_health(
        self, clip: Clip, latents: Tensor, seen: dict[str, Any], inferred: InferredLatents | None
    ) -> dict[str, Tensor]:
        """Measures health where it is due, given the latents (B,H,Z); returns the metrics of every training step."""
        if self.health.due and len(clip) > 1:
            with evaluating(self):  # All of it, because the policy's latents may come from any part.
                measured = self.pretraining.health(clip.frames, latents, clip.valid)
                if inferred is not None:
                    measured |= self.pretraining.option_health(inferred)
                if self.differentiable_latents():
                    measured["policy_std"] = self.predict_latents(seen).float().std(0).mean()
            self.health.judge(to_floats(measured), latents.shape[-1])
        self.health.training_steps += 1
        norm = self.health.policy_grad_norm
        return {} if norm is None else {"policy_grad_norm": norm}


def _check_stride(config: LawmConfig, dataset_meta: Any) -> None:
    from lawm_lerobot.labels.episodes import (
        episodes_in_use,  # It imports LeRobot's datasets, which are slow to load.
    )

    lengths = dataset_meta.episodes["length"]
    longest = max(lengths[episode] for episode in episodes_in_use(dataset_meta))
    stride = config.latent_action.stride
    if config.shortest_clip >= longest:
        lacking = "is whole, as this policy needs it" if config.whole_chunks else "has a second frame"
        raise ValueError(
            f"latent_action.stride is {stride} frames ({stride / dataset_meta.fps:.2f} s), but the dataset's longest episode "
            f"has {longest}, so no clip {lacking}: lower --policy.latent_action.stride."
        )


def _proprio_dim(config: LawmConfig, dataset_meta: Any) -> int | None:
    """S, if the latents must foretell the state; ValueError if the dataset has none."""
    weight = config.latent_action.proprio_weight
    if not weight > 0:
        return None
    if OBS_STATE not in dataset_meta.features:
        raise ValueError(
            f"latent_action.proprio_weight is {weight:g}, but the dataset has no '{OBS_STATE}' that latents could foretell "
            f"(its features are {', '.join(sorted(dataset_meta.features))}): leave out "
            "--policy.latent_action.proprio_weight, or choose another --dataset.repo_id."
        )
    return int(dataset_meta.features[OBS_STATE]["shape"][0])


def _check_video(config: LawmConfig) -> None:
    if config.video.repo_id is not None:
        raise ValueError(
            f"video.repo_id is {config.video.repo_id!r}, but the video of pretraining is --dataset.repo_id: to keep video "
            f"beside demonstrations, finetune a checkpoint (--policy.stage={FINETUNE}); to pretrain, leave it out with "
            "--policy.video.repo_id=null."
        )
