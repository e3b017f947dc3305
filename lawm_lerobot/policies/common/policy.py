"""The policy half of every ``lawm_*`` type, mixed in front of a LeRobot policy.

    class LawmActPolicy(LawmPolicy, ACTPolicy): ...

Pretraining batch, after LeRobot's preprocessor (B batch, H latent actions, T = H + 1 frames, C h w, S state):

    observation.images.<camera>          (B,T,C,h,w) float, normalised as the wrapped policy expects
    observation.images.<camera>_is_pad   (B,T) bool, True past the episode's end
    observation.state                    (B,T,S), if the dataset has one
    task                                 list of B strings

A wrapped policy with a history of n observations has n - 1 more frames in front; x_0 is its last. The policy
sees x_0 and its history, never a future frame. In finetuning the batch is the wrapped policy's own.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812
from lerobot.configs import FeatureType, NormalizationMode
from lerobot.utils.constants import (
    ACTION,
    OBS_IMAGES,
    OBS_LANGUAGE,
    OBS_LANGUAGE_SUBTASK,
    OBS_PREFIX,
    OBS_STATE,
)
from torch import Tensor, nn

from lawm_lerobot.checkpoints.reading import read_weights
from lawm_lerobot.labels.training import TrainingLabels
from lawm_lerobot.method.latent_action import INVERSE_DYNAMICS, POLICY
from lawm_lerobot.method.objective import LatentActionPretraining
from lawm_lerobot.method.readout import ActionReadout, LabelBatch
from lawm_lerobot.policies.common.checkpointed import CheckpointedPolicy
from lawm_lerobot.policies.common.configuration import EMPTY_CAMERA, LawmConfig
from lawm_lerobot.policies.common.demonstration_views import policy_views
from lawm_lerobot.policies.common.finite_actions import require_finite
from lawm_lerobot.policies.common.large_frames import warn_of_large_frames
from lawm_lerobot.policies.common.loading import (
    PretrainingCheckpointError,
    backbone_errors,
    drop_backbone_weights,
)
from lawm_lerobot.policies.common.optimizer import fused, pretraining_groups

logger = logging.getLogger(__name__)

IS_PAD = "_is_pad"

# Below these, latents carry (nearly) nothing. They are far under what any healthy run shows: unit variance,
# a rank of several, and a shuffled error tens of percent above the matched one.
COLLAPSED_STD = 0.1
COLLAPSED_RANK = 1.05
IGNORED_RATIO = 1.02
#: Of the policy's own output over a batch. One that has learned nothing yet is far above it, too.
DEAD_STD = 1e-3
#: Measurements before `IGNORED_RATIO` is judged: an untrained world model ignores every latent.
IGNORED_AFTER = 40

if TYPE_CHECKING:
    from lerobot.configs.train import TrainPipelineConfig


class LawmPolicy(CheckpointedPolicy):
    """Stages, pretraining loss and refusals for a wrapped LeRobot policy.

    A subclass names its ``config_class`` and ``name`` and implements `predict_latents`, `latent_head` and
    `transfer_rules`.

    It has more methods than a class should have, because LeRobot or the wrapper of a policy asks the policy itself for
    each of them; most of what they do is in the modules beside this one.
    """

    config: LawmConfig

    def __init__(
        self,
        config: LawmConfig,
        dataset_stats: dict[str, dict[str, Any]] | None = None,
        dataset_meta: Any = None,
        load_base: bool = True,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            config: The config of the stage that is wanted. Pretraining on a dataset writes ``dataset_fps`` and
                ``labels.action_dims`` into it: LeRobot saves this very object with the checkpoint, and whoever
                loads that has no dataset.
            dataset_stats: LeRobot's statistics of the dataset, by which camera images are normalised.
            dataset_meta: LeRobot's metadata of the dataset; present whenever the policy is built for training.
            load_base: Begin with the weights at `LawmConfig.base_path`; not if a checkpoint's follow.

        Raises:
            ConnectionError: If the backbone's published weights cannot be downloaded.
            ValueError: If no clip of the dataset has a second frame; if the latents are to come from a policy whose
                output passes no gradient; if the base is of another type or does not fit.
        """
        source = config.latent_action.source
        if config.pretraining and source != INVERSE_DYNAMICS and not self.differentiable_latents():
            raise ValueError(
                f"latent_action.source is {source!r}, but the output of {self.name} passes no gradient: choose "
                f"--policy.latent_action.source={INVERSE_DYNAMICS}."
            )
        base = config.read_base() if load_base and config.base_path else None
        if base is not None:
            drop_backbone_weights(config)  # The base has them.
        with backbone_errors(config):
            super().__init__(
                config.wrapped_config(), dataset_stats=dataset_stats, dataset_meta=dataset_meta, **kwargs
            )
        self.config = config
        if not config.pretraining:
            return

        if dataset_meta is not None:
            _check_stride(config, dataset_meta)
            warn_of_large_frames(config, self.cameras, dataset_meta)
            config.dataset_fps = dataset_meta.fps
        if source == POLICY and not config.world_model.narrow_door:
            logger.warning(
                f"The policy's own latents drive a '{config.world_model.type}' world model, which sees the first "
                "frame so well that it can ignore them: with --policy.latent_action.source=policy choose "
                "--policy.world_model.type=rssm, and watch shuffle_ratio."
            )
        dim, horizon = config.latent_action.dim, config.latent_action.horizon
        size = config.world_model.image_size
        self._labels: TrainingLabels | None = None
        if dataset_meta is not None:
            views = policy_views(config, self.cameras, dataset_stats)
            self._labels = TrainingLabels.load(
                config.labels, config.latent_action, self.camera, size, dataset_meta, views
            )
            config.labels.action_dims = self._labels.action_dims if self._labels is not None else []
        world_model = config.world_model.build(dim, horizon)
        inverse_dynamics = None if source == POLICY else config.idm.build(dim, size)
        readout = None
        if config.labels.action_dims:
            readout = ActionReadout(dim, config.latent_action.stride, config.labels.action_dims)
            if self._labels is not None:
                self._labels.set_statistics(readout)
        self.pretraining = LatentActionPretraining(
            config.latent_action, world_model, inverse_dynamics, readout, config.labels.weight
        )
        mean, scale = _pixel_affine(config, self.camera, dataset_stats)
        # Saved with the checkpoint: whoever imagines with it needs no dataset to undo the normalisation.
        self.pretraining.register_buffer("pixel_mean", mean)  # (C,1,1)
        self.pretraining.register_buffer("pixel_scale", scale)  # (C,1,1)

        if config.compile_model:  # In place, so that tensors keep their names.
            for module in (world_model, inverse_dynamics):
                if module is not None:
                    module.compile()

        self._health: dict[str, float] = {}
        self._measurements = 0
        self._training_steps = 0
        self._warned: set[str] = set()
        self._policy_grad_norm: Tensor | None = None
        self.latent_head.register_hook(self._note_policy_gradient)
        if base is not None:
            weights = read_weights(str(config.base_path), config.base_revision, "--policy.base_path")
            self.take_over(self.base_names(weights), base, str(config.base_path))

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
        return cls.predict_latents is not LawmPolicy.predict_latents

    def latents_in(self, chunk: Tensor) -> Tensor:
        """Take the latents out of an action chunk of the wrapped policy: (B,slots,Z) -> (B,H,Z)."""
        before, _ = self.config.latent_slots
        return chunk[:, before : before + self.config.latent_action.horizon]

    @property
    def latent_head(self) -> nn.Parameter:
        """A weight of the policy's output layer, whose gradient norm is logged."""
        raise NotImplementedError

    def prepare_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Complete a batch before the wrapped policy gets it: without a state, by one of width 0.

        LeRobot's policies read the device or the shape of ``observation.state`` even where its numbers are unused.
        """
        if OBS_STATE in batch or not self.cameras:
            return batch
        image = batch[self.cameras[0]]  # (B,[n],C,h,w)
        return {**batch, OBS_STATE: image.new_zeros(*image.shape[:-3], 0)}  # (B,[n],0)

    def take_statistics(self, stats: dict[str, dict[str, Any]]) -> None:
        # LeRobot's preprocessor takes this dataset's statistics too, no longer those of the checkpoint.
        mean, scale = _pixel_affine(self.config, self.camera, stats)
        self.pretraining.get_buffer("pixel_mean").copy_(mean)
        self.pretraining.get_buffer("pixel_scale").copy_(scale)

    # --- batch ----------------------------------------------------------------------------------------

    @property
    def cameras(self) -> list[str]:
        """The image features that a batch must have."""
        return [key for key in self.config.image_features if not key.startswith(EMPTY_CAMERA)]

    @property
    def camera(self) -> str:
        """The feature whose frames the world model predicts.

        Raises:
            ValueError: If ``world_model.camera`` names none.
        """
        # Depth maps have one channel; the world model predicts colour.
        cameras = sorted(key for key in self.cameras if self.config.image_features[key].shape[0] == 3)
        wanted = self.config.world_model.camera
        if wanted is None and cameras:
            return cameras[0]
        for camera in cameras:
            if wanted in (camera, camera.removeprefix(f"{OBS_IMAGES}.")):
                return camera
        raise ValueError(
            f"world_model.camera is {wanted!r}, but the dataset's colour cameras are "
            f"{', '.join(cameras) or 'none'}: change --policy.world_model.camera."
        )

    def clip(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """The world model's view of a pretraining batch.

        Returns:
            frames (B,T,C,h,w) in [0, 1] at the world model's size, and valid (B,H) bool.
        """
        first = len(self.config.history_deltas) - 1
        images = batch[self.camera][:, first:]  # (B,T,C,h,w)
        size = self.config.world_model.image_size
        frames = images.flatten(0, 1)  # (B*T,C,h,w)
        if frames.shape[-2:] != (size, size):
            frames = F.interpolate(frames, (size, size), mode="bilinear", antialias=True, align_corners=False)
        frames = (frames * self.pretraining.pixel_scale + self.pretraining.pixel_mean).clamp(0, 1)
        is_pad = batch.get(f"{self.camera}{IS_PAD}")
        valid = (
            torch.ones(images.shape[:2], dtype=torch.bool, device=images.device)
            if is_pad is None
            else ~is_pad[:, first:]
        )
        return frames.unflatten(0, images.shape[:2]), valid[:, 1:]

    def policy_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """What the wrapped policy sees of a pretraining batch: its history up to x_0, and no action."""
        steps = len(self.config.history_deltas)
        has_time = self.config.wrapped_history is not None
        seen: dict[str, Any] = {}
        for key, value in batch.items():
            if key.startswith(ACTION):
                continue
            # What the processors made of the task has no time axis.
            observed = key.startswith(OBS_PREFIX) and not key.startswith((OBS_LANGUAGE, OBS_LANGUAGE_SUBTASK))
            if observed and isinstance(value, Tensor):
                value = value[:, :steps] if has_time else value[:, 0]
            seen[key] = value
        return self.prepare_batch(seen)

    # --- training -------------------------------------------------------------------------------------

    def forward(self, batch: dict[str, Any], *args: Any, **kwargs: Any) -> tuple[Tensor, dict | None]:
        """The stage's training loss, and what LeRobot logs beside it."""
        missing = [key for key in self.cameras if key not in batch]
        if missing:
            raise ValueError(
                f"The batch has no {', '.join(missing)} (it has "
                f"{', '.join(sorted(k for k in batch if k.startswith(OBS_IMAGES) and not k.endswith(IS_PAD)))}):"
                " finetuning from a pretraining checkpoint takes the dataset's own cameras, so leave out "
                "--rename_map."
            )
        if not self.config.pretraining:
            return super().forward(self.prepare_batch(batch), *args, **kwargs)
        return self._pretraining_forward(batch)

    def wrapped_loss(self, batch: dict[str, Any]) -> tuple[Tensor, dict]:
        """The wrapped policy's own training loss () on latents, and its metrics.

        Args:
            batch: `policy_batch`, with the latents as ``action`` (B,slots,Z) and ``action_is_pad`` (B,slots), whose
                slots count in no loss.
        """
        loss, metrics = super().forward(batch)
        return loss, metrics or {}

    def _pretraining_forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        frames, valid = self.clip(batch)
        seen = self.policy_batch(batch)
        slots = self.config.latent_slots

        def imitation_loss(latents: Tensor) -> tuple[Tensor, dict]:
            chunk = F.pad(latents, (0, 0, *slots))  # (B,slots,Z), z_0 where an action for the present is
            is_pad = F.pad(~valid, slots, value=True)  # (B,slots)
            return self.wrapped_loss({**seen, ACTION: chunk, f"{ACTION}{IS_PAD}": is_pad})

        labels, labelled = self._draw_labels(batch, frames)
        every = seen if labelled is None else self.prepare_batch(_joined(seen, labelled))
        loss, metrics, latents = self.pretraining(
            frames, valid, lambda: self.predict_latents(every), imitation_loss, labels
        )
        if self.training:
            if self._training_steps % self.config.health_freq == 0 and len(frames) > 1:
                self._measure_health(frames, latents, valid, seen)
            self._training_steps += 1
            if self._policy_grad_norm is not None:
                metrics["policy_grad_norm"] = self._policy_grad_norm
        return loss, {**_to_floats(metrics), **self._health}

    def _draw_labels(
        self, batch: dict[str, Any], frames: Tensor
    ) -> tuple[LabelBatch | None, dict[str, Any] | None]:
        """A training step's labels, and what the policy sees of the labelled clips, if its latents are in use."""
        readout = self.pretraining.readout
        if self._labels is None or readout is None or not self.training:
            return None, None
        # By step and process: a resumed run goes on, and processes draw different clips.
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        seed = [self.config.labels.seed, int(readout.steps), rank]
        readout.steps += 1
        return self._labels.batch(batch["index"], frames, seed)

    def _measure_health(self, frames: Tensor, latents: Tensor, valid: Tensor, seen: dict[str, Any]) -> None:
        self.eval()
        figures = self.pretraining.health(frames, latents, valid)
        if self.differentiable_latents():
            figures["policy_std"] = self._policy_std(seen)
        self.train()
        self._health = _to_floats(figures)
        self._measurements += 1
        std, rank = self._health["latent_std"], self._health["latent_rank"]
        if std < COLLAPSED_STD or (latents.shape[-1] > 1 and rank < COLLAPSED_RANK):
            self._warn_once(
                "collapsed",
                f"The latent actions have collapsed to (nearly) a constant: standard deviation {std:.3f}, "
                f"effective rank {rank:.2f} of {latents.shape[-1]}. What the policy learns from them is "
                "worthless. Pretrain with --policy.latent_action.source=inverse_dynamics, or with frames "
                "further apart (--policy.latent_action.stride).",
            )
        elif self._health.get("policy_std", 1.0) < DEAD_STD:
            self._warn_once(
                "dead",
                "The policy says (nearly) the same to every frame: the standard deviation of its latents over the "
                f"batch is {self._health['policy_std']:.1e}. Nothing will come of finetuning it. Start anew with a lower "
                "--policy.policy_pretraining_lr, or with published weights of its image backbone.",
            )
        elif self._measurements > IGNORED_AFTER and self._health["shuffle_ratio"] < IGNORED_RATIO:
            self._warn_once(
                "ignored",
                "The world model ignores the latent actions: another clip's latents predict the frames as "
                f"well (ratio {self._health['shuffle_ratio']:.3f}). Take frames further apart "
                "(--policy.latent_action.stride) or less noise (--policy.latent_action.noise).",
            )

    @torch.no_grad()
    def _policy_std(self, seen: dict[str, Any]) -> Tensor:
        """Standard deviation () over the batch of the latents that the policy predicts."""
        devices = [self.latent_head.device] if self.latent_head.device.type == "cuda" else []
        with torch.random.fork_rng(devices):  # A policy that samples must not change what training draws.
            return self.predict_latents(seen).float().std(0).mean()

    def _warn_once(self, kind: str, message: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            logger.warning(message)

    def _note_policy_gradient(self, gradient: Tensor) -> None:
        # Read in the next step's log: the gradient exists only after forward() has returned.
        self._policy_grad_norm = gradient.detach().float().norm()

    def get_optim_params(self) -> Any:
        """The wrapped policy's groups; in pretraining those of `pretraining_groups`."""
        groups = super().get_optim_params()
        if not self.config.pretraining:
            return fused(groups)
        wrapped_lr = self.config.wrapped_optimizer_preset().lr
        policy_lr = self.config.policy_pretraining_lr
        return pretraining_groups(groups, self, self.pretraining, wrapped_lr, policy_lr)

    # --- control --------------------------------------------------------------------------------------

    def predict_action_chunk(self, batch: dict[str, Any], **kwargs: Any) -> Tensor:
        batch = self._control_batch(batch)
        return require_finite(super().predict_action_chunk(batch, **kwargs), batch)

    def select_action(self, batch: dict[str, Any], **kwargs: Any) -> Tensor:
        # Not every policy fills its queue by predict_action_chunk (SmolVLA does not).
        batch = self._control_batch(batch)
        return require_finite(super().select_action(batch, **kwargs), batch)

    @torch.no_grad()
    def latents_without_gradient(self, batch: dict[str, Any]) -> Tensor:
        """The policy's latents for x_0, of a policy without `predict_latents` too: `policy_batch` -> (B,H,Z)."""
        if self.differentiable_latents():
            return self.predict_latents(batch).float()
        # The wrapped policy's own way to act, past the refusal above: these latents control nothing.
        return self.latents_in(super().predict_action_chunk(batch)).float()

    def _control_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        if self.config.pretraining:
            raise PretrainingCheckpointError(str(self.config.pretrained_path or "<checkpoint>"))
        return self.prepare_batch(batch)

    # --- publishing ----------------------------------------------------------------------------------

    def push_model_to_hub(
        self,
        cfg: TrainPipelineConfig,
        peft_model: Any = None,
        state_dict: dict[str, Tensor] | None = None,
        dataset_meta: Any = None,
    ) -> None:
        """LeRobot's push at the end of a training: with this plugin's card, and without this machine's paths."""
        # Upward against the layers, and so late: LeRobot asks the policy to publish itself.
        from lawm_lerobot.policies.common.publishing import push_policy

        health = self._health if self.config.pretraining else None
        push_policy(self, cfg, peft_model, state_dict, dataset_meta, health)


def _joined(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """What two batches have in common, one after the other."""
    shared = {key: (first[key], second[key]) for key in first if second.get(key) is not None}
    for key, (a, b) in shared.items():
        if key.startswith(OBS_LANGUAGE):  # (B,L) tokens and masks, padded to the longest of their own batch
            longest = max(a.shape[1], b.shape[1])
            shared[key] = F.pad(a, (0, longest - a.shape[1])), F.pad(b, (0, longest - b.shape[1]))
    return {
        key: torch.cat([a, b]) if isinstance(a, Tensor) else [*a, *b]
        for key, (a, b) in shared.items()
        if isinstance(a, (Tensor, list))
    }


def _to_floats(metrics: dict[str, Any]) -> dict[str, float]:
    """Tensors () to floats with one transfer from the device instead of one each."""
    tensors = {k: v for k, v in metrics.items() if isinstance(v, Tensor)}
    floats = torch.stack([v.detach().float() for v in tensors.values()]).tolist() if tensors else []
    return {
        **{k: v for k, v in metrics.items() if k not in tensors},
        **dict(zip(tensors, floats, strict=True)),
    }


def _check_stride(config: LawmConfig, dataset_meta: Any) -> None:
    longest = max(dataset_meta.episodes["length"])
    if config.latent_action.stride >= longest:
        raise ValueError(
            f"latent_action.stride is {config.latent_action.stride} frames, but the dataset's longest episode "
            f"has {longest}, so no clip has a second frame: lower --policy.latent_action.stride."
        )


def _pixel_affine(
    config: LawmConfig, camera: str, stats: dict[str, dict[str, Any]] | None
) -> tuple[Tensor, Tensor]:
    """mean, scale (C,1,1) such that ``normalised * scale + mean`` is the image in [0, 1].

    The inverse of LeRobot's `NormalizerProcessorStep`; identity without statistics.
    """
    channels = config.image_features[camera].shape[0]
    mean, scale = torch.zeros(channels, 1, 1), torch.ones(channels, 1, 1)
    mode = config.normalization_mapping.get(FeatureType.VISUAL.value, NormalizationMode.IDENTITY)
    camera_stats = (stats or {}).get(camera)
    if camera_stats is None or mode is NormalizationMode.IDENTITY:
        return mean, scale

    def stat(name: str) -> Tensor:
        return torch.as_tensor(camera_stats[name], dtype=torch.float32).reshape(channels, 1, 1)

    if mode is NormalizationMode.MEAN_STD:
        return stat("mean"), stat("std")
    if mode is NormalizationMode.MIN_MAX:  # LeRobot maps [min, max] to [-1, 1]
        return (stat("max") + stat("min")) / 2, (stat("max") - stat("min")) / 2
    raise ValueError(
        f"Images are normalised by {mode.value}, expected MEAN_STD, MIN_MAX or IDENTITY: change "
        "--policy.normalization_mapping."
    )
