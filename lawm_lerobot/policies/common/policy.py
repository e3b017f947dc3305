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

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.error import URLError

import torch
import torch.nn.functional as F  # noqa: N812
from lerobot.configs import PreTrainedConfig
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import ACTION, OBS_STATE
from safetensors import SafetensorError
from torch import Tensor, nn

from lawm_lerobot.checkpoints.reading import load_weights, read_policy_config, read_weights
from lawm_lerobot.checkpoints.transfer import KEPT, Reinitialise, Rule, transfer_tensors
from lawm_lerobot.hub.errors import hub_errors
from lawm_lerobot.labels.demonstrations import TrainingLabels
from lawm_lerobot.method.clip import Clip
from lawm_lerobot.method.latent_action import INVERSE_DYNAMICS, LATENT_MODELS, POLICY
from lawm_lerobot.method.objective import LatentActionPretraining
from lawm_lerobot.method.readout import ActionReadout, LabelBatch
from lawm_lerobot.policies.common.clips import (
    IS_PAD,
    join_batches,
    make_clip,
    pixel_affine,
    policy_cameras,
    present_batch,
    require_cameras,
    world_model_camera,
)
from lawm_lerobot.policies.common.configuration import FINETUNE, PRETRAIN, LawmConfig
from lawm_lerobot.policies.common.finite_actions import require_finite
from lawm_lerobot.policies.common.health import HealthMonitor, evaluating, to_floats
from lawm_lerobot.policies.common.large_frames import warn_of_large_frames

logger = logging.getLogger(__name__)

TRANSFER_REPORT = "transfer_report.json"

if TYPE_CHECKING:
    from lerobot.configs.train import TrainPipelineConfig
    from lerobot.policies.pretrained import PreTrainedPolicy as _Mixin
else:
    _Mixin = object


class PretrainingCheckpointError(ValueError):
    """A pretraining checkpoint was asked to control something."""

    def __init__(self, checkpoint: str) -> None:
        super().__init__(
            f"{checkpoint} is a LAWM pretraining checkpoint: it predicts latent actions, which no robot "
            "understands. Finetune it first: lerobot-train --policy.path="
            f"{checkpoint} --policy.stage={FINETUNE} --dataset.repo_id=<labelled demonstrations>."
        )


class LawmPolicy(_Mixin):
    """Stages, pretraining loss, weight transfer and refusals for a wrapped LeRobot policy.

    A subclass names its ``config_class`` and ``name`` and implements `predict_latents`, `latent_head` and
    `transfer_rules`.
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
            config: Of the stage that is wanted.
            dataset_stats: LeRobot's; they tell how camera images were normalised.
            dataset_meta: LeRobot's; present whenever the policy is built for training.
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
        if base is not None and getattr(config, "pretrained_backbone_weights", None):
            config.pretrained_backbone_weights = None  # The base has them.
        try:
            super().__init__(
                config.wrapped_config(), dataset_stats=dataset_stats, dataset_meta=dataset_meta, **kwargs
            )
        except (URLError, TimeoutError, ConnectionError) as error:
            weights = getattr(config, "pretrained_backbone_weights", None)
            raise ConnectionError(
                f"The backbone weights {weights} could not be downloaded ({error}): connect this "
                "machine to the internet once, or start from random weights with "
                "--policy.pretrained_backbone_weights=null."
            ) from error
        self.config = config
        self.transfer_report: dict[str, Any] | None = None
        if not config.pretraining:
            return

        if dataset_meta is not None:
            _check_stride(config, dataset_meta)
            warn_of_large_frames(config, self.cameras, dataset_meta)
            config.dataset_fps = dataset_meta.fps
        if source == POLICY and not config.world_model.first_frame_bottleneck:
            logger.warning(
                f"The policy's own latents drive a '{config.world_model.type}' world model, which sees the first "
                "frame so well that it can ignore them: with --policy.latent_action.source=policy choose "
                "--policy.world_model.type=rssm, and watch shuffle_ratio."
            )
        self._labels: TrainingLabels | None = None
        if dataset_meta is not None:
            self._labels = TrainingLabels.load(config, self.camera, self.cameras, dataset_meta, dataset_stats)
            config.labels.action_dims = self._labels.action_dims if self._labels is not None else []
        self.pretraining = self._build_pretraining(dataset_stats)
        self.health = HealthMonitor(config.health_freq)
        self.latent_head.register_hook(self.health.note_policy_gradient)
        if base is not None:
            weights = read_weights(str(config.base_path), config.base_revision, "--policy.base_path")
            self._take_over(self.base_names(weights), base, str(config.base_path))

    # --- what a policy's own wrapper adds -------------------------------------------------------------

    def predict_latents(self, batch: dict[str, Any]) -> Tensor:
        """The policy's latents for x_0, with gradient: `policy_batch` -> (B,H,Z).

        A policy whose output passes no gradient leaves this out, and can be pretrained with
        ``latent_action.source=inverse_dynamics`` only.
        """
        raise NotImplementedError

    @classmethod
    def differentiable_latents(cls) -> bool:
        return cls.predict_latents is not LawmPolicy.predict_latents

    def latents_in(self, chunk: Tensor) -> Tensor:
        """The latents in an action chunk of the wrapped policy: (B,slots,Z) -> (B,H,Z)."""
        before, _ = self.config.latent_slots
        return chunk[:, before : before + self.config.latent_action.horizon]

    @property
    def latent_head(self) -> nn.Parameter:
        """A weight of the policy's output layer, whose gradient norm is logged."""
        raise NotImplementedError

    def transfer_rules(self, source: PreTrainedConfig) -> Sequence[Rule]:
        """What does not carry over unchanged from a checkpoint of another stage.

        Args:
            source: The config that its network was built from: in pretraining a `LawmConfig.wrapped_config`, of
                a base the plain config. This policy's is ``self.config.wrapped_config()``.
        """
        raise NotImplementedError

    def base_names(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """A plain checkpoint's tensors under the names of today, as the wrapped type's own loader gives them."""
        return weights

    def prepare_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Last changes to a batch before the wrapped policy gets it: without a state, one of width 0.

        LeRobot's policies read the device or the shape of ``observation.state`` even where its numbers are unused.
        """
        if OBS_STATE in batch or not self.cameras:
            return batch
        image = batch[self.cameras[0]]  # (B,[n],C,h,w)
        return {**batch, OBS_STATE: image.new_zeros(*image.shape[:-3], 0)}  # (B,[n],0)

    # --- batch ----------------------------------------------------------------------------------------

    @property
    def cameras(self) -> list[str]:
        """The image features that a batch must have."""
        return policy_cameras(self.config)

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

    # --- training -------------------------------------------------------------------------------------

    def _build_pretraining(self, dataset_stats: dict[str, dict[str, Any]] | None) -> LatentActionPretraining:
        """World model, inverse dynamics and read-out, newly initialised."""
        config, action = self.config, self.config.latent_action
        size = config.world_model.image_size
        world_model = config.world_model.build(action.dim, action.horizon)
        inverse_dynamics = None if action.source == POLICY else config.idm.build(action.dim, size)
        readout = None
        if config.labels.action_dims:
            readout = ActionReadout(action.dim, action.stride, config.labels.action_dims)
            if self._labels is not None:
                self._labels.set_statistics(readout)
        pretraining = LatentActionPretraining(
            action, world_model, inverse_dynamics, readout, config.labels.weight
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

    def forward(self, batch: dict[str, Any], *args: Any, **kwargs: Any) -> tuple[Tensor, dict | None]:
        """The stage's training loss, and the metrics that LeRobot logs beside it."""
        require_cameras(batch, self.cameras)
        if not self.config.pretraining:
            return super().forward(self.prepare_batch(batch), *args, **kwargs)
        return self._pretraining_forward(batch, *args, **kwargs)

    def wrapped_loss(self, batch: dict[str, Any]) -> tuple[Tensor, dict]:
        """The wrapped policy's own training loss () on latents, and its metrics.

        Args:
            batch: A `policy_batch`, with the latents as ``action`` (B,slots,Z) and ``action_is_pad`` (B,slots), whose
                slots count in no loss.
        """
        loss, metrics = super().forward(batch)
        return loss, metrics or {}

    def _pretraining_forward(
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
        for model, prefix in LATENT_MODELS[action.source].items():
            if model == INVERSE_DYNAMICS:
                z = method.infer_latents(clips.frames, clips.valid)  # (B+L,H,Z)
            else:
                z = method.policy_latents(self.predict_latents(all_seen), clips.valid)  # (B+L,H,Z)
            latents = z[: len(clip)]  # (B,H,Z)

            world = method.world_model_loss(clip, latents)
            loss = loss + world.loss
            parts: dict[str, Any] = {"world_model_loss": world.loss.detach()}

            if model == INVERSE_DYNAMICS:
                targets = method.imitation_targets(clip.frames, clip.valid, latents)  # (B,H,Z)
                imitation, policy_metrics = self.wrapped_loss(self._with_latents(seen, targets, clip.valid))
                loss = loss + action.imitation_weight * imitation
                parts = {"imitation_loss": imitation.detach(), **parts, **policy_metrics}
            parts |= world.metrics

            if labels is not None:
                readout, readout_metrics = method.readout_loss(z, clips.valid, labels, track=not prefix)
                loss = loss + readout
                parts |= readout_metrics
            metrics |= {f"{prefix}{name}": value for name, value in parts.items()}

        if self.training:
            metrics |= self._watch_health(clip, latents.detach(), seen)
        return loss, {**to_floats(metrics), **self.health.metrics}

    def _with_latents(self, seen: dict[str, Any], latents: Tensor, valid: Tensor) -> dict[str, Any]:
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

    def _watch_health(self, clip: Clip, latents: Tensor, seen: dict[str, Any]) -> dict[str, Tensor]:
        """Measures health where it is due, given the latents (B,H,Z); returns the metrics of every training step."""
        if self.health.due and len(clip) > 1:
            with evaluating(self):  # All of it, because the policy's latents may come from any part.
                measured = self.pretraining.health(clip.frames, latents, clip.valid)
                if self.differentiable_latents():
                    measured["policy_std"] = self.predict_latents(seen).float().std(0).mean()
            self.health.judge(to_floats(measured), latents.shape[-1])
        self.health.training_steps += 1
        norm = self.health.policy_grad_norm
        return {} if norm is None else {"policy_grad_norm": norm}

    def get_optim_params(self) -> Any:
        """The wrapped policy's, in pretraining at `LawmConfig.policy_pretraining_lr`, where what learns at a multiple of
        its rate (an image encoder's tenth, say) keeps that; world model and inverse dynamics beside them."""
        groups = super().get_optim_params()
        if not self.config.pretraining:
            return fused(groups)
        own_lr, policy_lr = self.config.wrapped_optimizer_preset().lr, self.config.policy_pretraining_lr
        multiples = [
            {
                "params": [p for p in group["params"] if p.requires_grad],
                "lr": group["lr"] / own_lr * policy_lr,
            }
            for group in groups
            if isinstance(group, dict) and group.get("lr", own_lr) != own_lr
        ]
        elsewhere = {id(p) for group in multiples for p in group["params"]}
        beside = [p for p in self.pretraining.parameters() if p.requires_grad]
        elsewhere.update(map(id, beside))
        policy = [p for p in self.parameters() if p.requires_grad and id(p) not in elsewhere]
        return fused([{"params": beside}, {"params": policy, "lr": policy_lr}, *multiples])

    # --- control --------------------------------------------------------------------------------------

    def predict_action_chunk(self, batch: dict[str, Any], **kwargs: Any) -> Tensor:
        batch = self._control_batch(batch)
        return require_finite(super().predict_action_chunk(batch, **kwargs), batch)

    def select_action(self, batch: dict[str, Any], **kwargs: Any) -> Tensor:
        # Not every policy fills its queue by predict_action_chunk (SmolVLA does not).
        batch = self._control_batch(batch)
        return require_finite(super().select_action(batch, **kwargs), batch)

    def _control_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        if self.config.pretraining:
            raise PretrainingCheckpointError(str(self.config.pretrained_path or "<checkpoint>"))
        return self.prepare_batch(batch)

    # --- checkpoints ----------------------------------------------------------------------------------

    def _save_pretrained(self, save_directory: Path, state_dict: dict[str, Tensor] | None = None) -> None:
        super()._save_pretrained(save_directory, state_dict=state_dict)
        if self.transfer_report is not None:
            (save_directory / TRANSFER_REPORT).write_text(json.dumps(self.transfer_report, indent=2) + "\n")

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

        health = self.health.metrics if self.config.pretraining else None
        push_policy(self, cfg, peft_model, state_dict, dataset_meta, health)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_name_or_path: str | Path,
        *,
        config: PreTrainedConfig | None = None,
        allow_pretraining: bool = False,
        revision: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """LeRobot's `from_pretrained`, aware of the two stages.

        Args:
            pretrained_name_or_path: Directory or Hub id.
            config: If given, of the stage that is wanted: a ``finetune`` config on a pretraining checkpoint
                transfers its weights.
            allow_pretraining: Load a pretraining checkpoint although no dataset says that this is for
                training; for looking into it, never for control.
            revision: Of the Hub repository.
            kwargs: `PreTrainedPolicy.from_pretrained`'s.

        Raises:
            PretrainingCheckpointError: If a pretraining checkpoint is loaded for control.
            ValueError: If the checkpoint is of another type or does not fit; if it is damaged.
            HubError: If the Hub does not hand it out.
        """
        path = str(pretrained_name_or_path)
        hub = {
            k: kwargs[k] for k in ("token", "cache_dir", "local_files_only", "force_download") if k in kwargs
        }
        source = read_policy_config(path, revision, **hub) or {}
        if source.get("type") != cls.name:
            raise ValueError(
                f"{path} holds a policy of type {source.get('type')!r}, expected {cls.name!r}: change "
                "--policy.path, or start anew with --policy.type."
            )
        # Adapters that are to follow make it a finetuned policy.
        for_training = kwargs.get("dataset_meta") is not None or (
            config is not None and config.use_peft and config.stage == FINETUNE
        )
        if source.get("stage") == PRETRAIN and not (for_training or allow_pretraining):
            raise PretrainingCheckpointError(path)
        if config is None:
            config = PreTrainedConfig.from_pretrained(path, revision=revision, **hub)
        if source.get("stage") == FINETUNE and config.stage == PRETRAIN:
            raise ValueError(
                f"{path} is a finetuned checkpoint, which has no world model to go on pretraining with: "
                f"leave out --policy.stage={PRETRAIN}, or choose a pretraining checkpoint as --policy.path."
            )
        # The weights are in the checkpoint: without this LeRobot would first download ImageNet's, only to
        # overwrite them, and fail on a robot without internet.
        if getattr(config, "pretrained_backbone_weights", None):
            config.pretrained_backbone_weights = None
        if config.base_path != source.get("base_path"):
            raise ValueError(
                f"{path} is a checkpoint already, and --policy.base_path={config.base_path} would begin another "
                "one: leave out one of --policy.path and --policy.base_path."
            )
        transfer = source.get("stage") == PRETRAIN and config.stage == FINETUNE
        if transfer and config.push_to_hub and config.repo_id and config.repo_id == source.get("repo_id"):
            raise ValueError(
                f"--policy.repo_id is {config.repo_id}, as in the pretraining checkpoint, which the finetuned policy "
                "would replace there: give another --policy.repo_id, or --policy.push_to_hub=false."
            )
        if transfer:
            config.transferred_from = path if revision is None else f"{path}@{revision}"
        config._transfer_source = source if transfer else None
        # Not the wrapped policy's: pi0's returns a policy with random weights where a file does not fit.
        load = PreTrainedPolicy.from_pretrained.__func__
        with hub_errors(f"Loading {path}", "--policy.path"):
            policy = load(cls, path, config=config, revision=revision, load_base=False, **kwargs)
        stats = kwargs.get("dataset_stats")
        if config.pretraining and stats is not None:
            # LeRobot's preprocessor takes this dataset's statistics too, no longer those of the checkpoint.
            mean, scale = pixel_affine(config, policy.camera, stats)
            policy.pretraining.pixel_mean.copy_(mean)
            policy.pretraining.pixel_scale.copy_(scale)
        report = Path(path) / TRANSFER_REPORT
        if not transfer and report.is_file():
            policy.transfer_report = json.loads(report.read_text())
        return policy

    @classmethod
    def _load_as_safetensor(cls, model: Self, model_file: str, map_location: str, strict: bool) -> Self:
        source = getattr(model.config, "_transfer_source", None)
        try:
            if source is None:
                # Always strict: a tensor that silently kept its random start is worse than no policy.
                return super()._load_as_safetensor(model, model_file, map_location, True)
        except SafetensorError:
            load_weights(model_file)  # Says what is wrong.
            raise
        except RuntimeError as error:
            raise ValueError(
                f"{model_file} does not fit the policy that its config describes ({error}): pass the "
                "architecture flags (--policy.*) that it was trained with."
            ) from error
        built_from = _decode_config(cls, source).wrapped_config()
        model._take_over(load_weights(model_file), built_from, str(model.config.transferred_from))
        return model

    def _all_names(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """A file's tensors under every name of this policy: safetensors keeps one name of tied weights."""
        names: dict[int, list[str]] = {}
        for name, tensor in self.state_dict(keep_vars=True).items():
            names.setdefault(id(tensor), []).append(name)
        tied = {
            name: weights[saved]
            for group in names.values()
            for saved in group
            if saved in weights
            for name in group
        }
        return {**tied, **weights}

    # --- adapters (--peft) ----------------------------------------------------------------------------

    def _validate_peft_config(self, peft_config: Any) -> None:
        if self.config.pretraining:
            raise ValueError(
                "Adapters (--peft) are for finetuning, because in pretraining the world model and the output layer "
                f"learn from scratch: leave out --peft, or pass --policy.stage={FINETUNE}."
            )
        super()._validate_peft_config(peft_config)

    def _build_peft_config(self, cli_overrides: dict[str, Any]) -> Any:
        """LeRobot's, with all that transfer left fresh trained and saved in full.

        An adapter's checkpoint holds the adapters only; loading it repeats the transfer, which draws other random
        numbers for those modules.
        """
        peft_config = super()._build_peft_config(cli_overrides)
        if getattr(self.config, "_transfer_source", None) is not None:
            kept = {t["name"] for t in (self.transfer_report or {})["tensors"] if t["status"] == KEPT}
            fresh = {name.rpartition(".")[0] for name, _ in self.named_parameters() if name not in kept}
            peft_config.modules_to_save = sorted(fresh.union(peft_config.modules_to_save or []))
        return peft_config

    def _take_over(self, weights: dict[str, Tensor], built_from: PreTrainedConfig, name: str) -> None:
        """Start from the weights of another stage's network, and report on every tensor."""
        rules = [
            Reinitialise("pretraining.*", "world model and inverse dynamics serve pretraining only"),
            *self.transfer_rules(built_from),
        ]
        state, report = transfer_tensors(self._all_names(weights), self.state_dict(), rules, name)
        self.load_state_dict(state, strict=True)
        self.transfer_report = report.to_dict()
        for line in report.lines():
            logger.info(line)


def _decode_config(cls: type[LawmPolicy], source: dict[str, Any]) -> LawmConfig:
    """A checkpoint's ``config.json`` as its config class."""
    import draccus

    values = {key: value for key, value in source.items() if key != draccus.CHOICE_TYPE_KEY}
    return draccus.decode(cls.config_class, values)


def fused(groups: Any) -> list[dict[str, Any]]:
    """Parameter groups that torch's Adam, AdamW and SGD update in a single pass over memory; others ignore the key.

    The arithmetic is the same. On a CPU the default is a loop of some ten small passes for every tensor.
    """
    groups = list(groups)
    if groups and not isinstance(groups[0], dict):
        groups = [{"params": groups}]
    return [{**group, "fused": True} for group in groups]


def _check_stride(config: LawmConfig, dataset_meta: Any) -> None:
    longest = max(dataset_meta.episodes["length"])
    if config.latent_action.stride >= longest:
        raise ValueError(
            f"latent_action.stride is {config.latent_action.stride} frames, but the dataset's longest episode "
            f"has {longest}, so no clip has a second frame: lower --policy.latent_action.stride."
        )
