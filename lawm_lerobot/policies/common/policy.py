"""The policy half of every ``lawm_*`` type, mixed in front of a LeRobot policy.

    class LawmActPolicy(LawmPolicy, ACTPolicy): ...

The batch of pretraining is described in pretraining.py. In finetuning the batch is the wrapped policy's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lerobot.utils.constants import OBS_STATE
from torch import Tensor

from lawm_lerobot.checkpoints.reading import read_weights
from lawm_lerobot.method.latent_action import INVERSE_DYNAMICS
from lawm_lerobot.policies.common.asking import remembered
from lawm_lerobot.policies.common.clips import require_cameras
from lawm_lerobot.policies.common.compat import is_main_process, publish_by_policy
from lawm_lerobot.policies.common.configuration import LawmConfig
from lawm_lerobot.policies.common.finetuning import FinetuningPolicy
from lawm_lerobot.policies.common.finite_actions import require_finite, require_finite_statistics
from lawm_lerobot.policies.common.loading import (
    PretrainingCheckpointError,
    backbone_errors,
    drop_backbone_weights,
    require_readable_config,
)
from lawm_lerobot.policies.common.optimizer import fused, including, pretraining_groups
from lawm_lerobot.policies.common.pretraining import PretrainingPolicy
from lawm_lerobot.policies.common.watching import TrainingWatch

if TYPE_CHECKING:
    from lerobot.configs.train import TrainPipelineConfig

publish_by_policy()


class LawmPolicy(PretrainingPolicy, FinetuningPolicy):
    """Stages, pretraining loss and refusals for a wrapped LeRobot policy.

    A subclass names its ``config_class`` and ``name`` and implements `predict_latents`, `latent_head` and
    `transfer_rules`. Its checkpoints are in checkpointed.py, its stages in pretraining.py and finetuning.py.
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
            config: The config of the stage that is wanted. Pretraining on a dataset writes ``dataset_fps``,
                ``labels.action_dims`` and the frames of a stride in seconds into it: LeRobot saves this very object with
                the checkpoint, and whoever loads that has no dataset.
            dataset_stats: LeRobot's statistics of the dataset, by which camera images are normalised.
            dataset_meta: LeRobot's metadata of the dataset; present whenever the policy is built for training.
            load_base: Begin with the weights at `LawmConfig.base_path`; not if a checkpoint's follow.

        Raises:
            ConnectionError: If the backbone's published weights cannot be downloaded.
            ValueError: If no clip of the dataset has a second frame; if the latents are to come from a policy whose
                output passes no gradient; if the base is of another type or does not fit; if the dataset has values
                that are not finite.
        """
        fps = config.dataset_fps if dataset_meta is None or not config.pretraining else dataset_meta.fps
        if fps is not None:
            config.latent_action.settle(fps)
        source = config.latent_action.source
        if config.pretraining and source != INVERSE_DYNAMICS and not self.differentiable_latents():
            raise ValueError(
                f"latent_action.source is {source!r}, but the output of {self.name} passes no gradient: choose "
                f"--policy.latent_action.source={INVERSE_DYNAMICS}."
            )
        if dataset_meta is not None:
            used = {} if config.pretraining else config.output_features
            foretold = [OBS_STATE] if config.pretraining and config.latent_action.proprio_weight > 0 else []
            require_finite_statistics(
                dataset_stats, [*(config.input_features or {}), *(used or {}), *foretold]
            )
        base = config.read_base() if load_base and config.base_path else None
        if base is not None:
            drop_backbone_weights(config)  # The base has them.
        with backbone_errors(config):
            super().__init__(
                config.wrapped_config(), dataset_stats=dataset_stats, dataset_meta=dataset_meta, **kwargs
            )
        self.config = config
        self.watch = TrainingWatch(self, trained=dataset_meta is not None)
        if not config.pretraining:
            if dataset_meta is not None:
                require_readable_config(config)
                if load_base:  # Else it starts once a checkpoint's weights are in place.
                    self.start_finetuning(None, dataset_stats, dataset_meta)
            return

        self._start_pretraining(dataset_stats, dataset_meta)
        if base is not None:
            weights = read_weights(str(config.base_path), config.base_revision, "--policy.base_path")
            self.take_over(self.base_names(weights), base, str(config.base_path))
        if dataset_meta is not None:
            require_readable_config(config)

    # --- training -------------------------------------------------------------------------------------

    def forward(self, batch: dict[str, Any], *args: Any, **kwargs: Any) -> tuple[Tensor, dict | None]:
        """The stage's training loss, and the metrics that LeRobot logs beside it."""
        require_cameras(batch, self.cameras)
        if self.training:
            self.watch.begin(self, batch)
        loss, metrics = self._stage_loss(batch, *args, **kwargs)
        return loss, self.watch.logged(self, metrics or {}) if self.training else metrics

    def _stage_loss(self, batch: dict[str, Any], *args: Any, **kwargs: Any) -> tuple[Tensor, dict | None]:
        if self.config.pretraining:
            return self.pretraining_loss(batch, *args, **kwargs)
        return self.finetuning_loss(self.prepare_batch(batch), *args, **kwargs)

    def update(self) -> None:
        """Take note of the end of a training step: LeRobot calls this after the optimizer's."""
        inherited = getattr(super(), "update", None)
        if callable(inherited):
            inherited()
        self.watch.end(self)

    def get_optim_params(self) -> Any:
        """The wrapped policy's groups; in pretraining those of `pretraining_groups`."""
        groups = super().get_optim_params()
        if not self.config.pretraining:
            return fused(including(groups, self.cotraining.own.values()) if self.cotraining else groups)
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
        self.reset()
        # The network may have a shorter history in pretraining than the queues are made for.
        chunk = super().predict_action_chunk(remembered(self, batch, len(self.config.history_deltas)))
        self.reset()
        return self.latents_in(chunk).float()

    def _control_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        if self.config.pretraining:
            raise PretrainingCheckpointError(str(self.config.pretrained_path or "<checkpoint>"))
        return self.prepare_batch(batch)

    # --- saving and publishing ----------------------------------------------------------------------------------

    def _save_pretrained(self, save_directory: Path, state_dict: dict[str, Tensor] | None = None) -> None:
        super()._save_pretrained(save_directory, state_dict)
        if is_main_process():
            self.watch.save(save_directory)

    def push_model_to_hub(
        self,
        cfg: TrainPipelineConfig,
        peft_model: Any = None,
        state_dict: dict[str, Tensor] | None = None,
        dataset_meta: Any = None,
    ) -> None:
        """LeRobot's push at the end of a training: with this plugin's card, and without this machine's paths."""
        # Imported late: publishing draws pictures, which training does not need.
        from lawm_lerobot.policies.common.publishing import push_policy

        health = self.health.metrics if self.config.pretraining else None
        push_policy(self, cfg, peft_model, state_dict, dataset_meta, health)
