"""What is seen of a training while it runs: pictures, curves, the uses of the inputs, and the pace.

LeRobot gives a policy its own config alone. The output folder, the number of steps and whether the run is resumed are
in LeRobot's training config, which is looked up in memory by the policy's. A policy that is trained in another way than
by ``lerobot-train`` is not watched.

Nothing here changes a training: it happens before the loss, in evaluation mode, without gradient, and with random
numbers of its own. Every process computes the same, since a network may be spread over all of them and all must log the
same metrics; the main process alone writes.
"""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lerobot.utils.constants import PRETRAINED_MODEL_DIR, TRAINING_STATE_DIR
from lerobot.utils.random_utils import get_rng_state, set_rng_state, set_seed
from lerobot.utils.utils import format_big_number

from lawm_lerobot.policies.common.compat import is_main_process
from lawm_lerobot.policies.common.curves import Curves
from lawm_lerobot.policies.common.health import evaluating
from lawm_lerobot.policies.common.pace import Pace
from lawm_lerobot.policies.common.uses import Uses

if TYPE_CHECKING:
    from lerobot.configs import PreTrainedConfig
    from lerobot.configs.train import TrainPipelineConfig

    from lawm_lerobot.policies.common.imagination import ShownClips
    from lawm_lerobot.policies.common.policy import LawmPolicy

logger = logging.getLogger(__name__)

#: The folder of the pictures in the output folder, and the picture of the curves there.
PICTURES, CURVES_PICTURE = "pictures", "curves.png"
#: Clips in a picture, and batches over which the uses of the inputs are added up.
CLIPS, BATCHES = 3, 3
#: The metrics of pretraining that are kept as curves, where there are such.
HEALTH = (
    *("mse_over_copy", "policy_mse_over_copy", "shuffle_ratio", "latent_std", "latent_rank"),
    *("policy_std", "policy_grad_norm", "readout_r2"),
)
#: Of what a policy draws in a picture and in the uses, so that two of them differ by the policy alone.
SEED = 0


def training_config(config: PreTrainedConfig) -> TrainPipelineConfig | None:
    """LeRobot's config of the training that a policy's config belongs to; None without one."""
    from lerobot.configs.train import TrainPipelineConfig

    for held in gc.get_objects():
        if type(held) is TrainPipelineConfig and held.policy is config:
            return held
    return None


@contextmanager
def apart(policy: LawmPolicy) -> Iterator[None]:
    """A policy that can be asked anything in the midst of its training, which goes on as if nothing had been."""
    state = get_rng_state()
    set_seed(SEED)
    try:
        with evaluating(policy):
            yield
    finally:
        set_rng_state(state)
        # What autocast has converted here, without gradient, is not for the loss.
        torch.clear_autocast_cache()


class TrainingWatch:
    """Watches the training of one policy.

    Args:
        policy: The policy, which is not kept.
        trained: The policy is built to be trained.
    """

    def __init__(self, policy: LawmPolicy, trained: bool) -> None:
        self.frequency = policy.config.picture_freq
        self.run: TrainPipelineConfig | None = None
        self.step = 0
        self.curves = Curves()
        self.pace: Pace | None = None
        self._unbegun = trained
        self._shown: ShownClips | None = None
        self._uses = Uses()
        self._latest_uses: dict[str, float] = {}
        self._measurements = 0

    def begin(self, policy: LawmPolicy, batch: dict[str, Any]) -> None:
        """Take note of a training step that begins with a preprocessed batch; draw or measure where it is due."""
        if self._unbegun:
            self._unbegun = False
            self._begin_run(policy)
        if self.run is None:
            return
        self.step += 1
        if self.pace is not None:
            self.pace.begin()
        if not self.frequency:
            return
        before_due = -self.step % self.frequency
        if policy.config.pretraining and before_due == 0:
            with self._forgiving(), apart(policy):
                self._draw_clips(policy, batch)
        elif not policy.config.pretraining and before_due < BATCHES:
            with self._forgiving(), apart(policy):
                self._uses.add(policy, batch, SEED + before_due)
            if before_due == 0:
                self._latest_uses, self._uses = self._uses.metrics(), Uses()
                if self._latest_uses:
                    self.curves.record(self.step, self._latest_uses)

    def logged(self, policy: LawmPolicy, metrics: dict[str, Any]) -> dict[str, Any]:
        """Add the uses to a training step's metrics, and keep its health where that was measured."""
        if self.run is not None and policy.config.pretraining:
            if policy.health.measurements > self._measurements:
                self.curves.record(self.step, {name: metrics[name] for name in HEALTH if name in metrics})
            self._measurements = policy.health.measurements
        return {**metrics, **self._latest_uses}

    def end(self, policy: LawmPolicy) -> None:
        """Take note of the end of a training step; say the pace once it is known."""
        if self.run is None or self.pace is None:
            return
        self.pace.end()
        if not self.pace.measuring:
            if is_main_process():
                logger.info(self.pace.sentence(self.run, self.step, policy.config.world_model.image_size))
            self.pace = None

    def save(self, checkpoint: Path) -> None:
        """Save the curves with a checkpoint of this run, and draw them beside the pictures."""
        if (
            self.run is None
            or not self.frequency
            or not checkpoint.is_relative_to(Path(str(self.run.output_dir)))
        ):
            return
        self.curves.save(checkpoint)
        if len({row["step"] for row in self.curves.rows}) > 1:
            with self._forgiving():
                self._replace(CURVES_PICTURE, self.curves.draw)

    def _begin_run(self, policy: LawmPolicy) -> None:
        self.run = training_config(policy.config)
        if self.run is None:
            return
        if self.run.resume and self.run.checkpoint_path is not None:
            from lerobot.common.train_utils import load_training_step

            self.step = load_training_step(self.run.checkpoint_path / TRAINING_STATE_DIR)
            self.curves.load(self.run.checkpoint_path / PRETRAINED_MODEL_DIR)
        if policy.config.pretraining:
            self.pace = Pace(next(policy.parameters()).device)
            if is_main_process():
                logger.info(f"Parameters: {_parameters(policy)}.")

    def _draw_clips(self, policy: LawmPolicy, batch: dict[str, Any]) -> None:
        # Imported late: it needs the policies, which need this module.
        from lawm_lerobot.policies.common.imagination import (
            choose_clips,
            draw_strips,
            frame_titles,
            imagined_strips,
        )

        if self._shown is None:  # The same clips in all pictures of a run, so that one sees them change.
            self._shown = choose_clips(policy, batch, CLIPS)
        strips = imagined_strips(policy, self._shown)
        if is_main_process():
            titles = frame_titles(policy.config)
            file = self._replace(
                f"step_{self.step:06d}.png", lambda aside: draw_strips(strips, titles, aside)
            )
            _log_to_wandb(file, self.step)

    def _replace(self, name: str, draw: Any) -> Path:
        """Draw a picture aside, and give it its name when it is whole."""
        assert self.run is not None
        file = Path(str(self.run.output_dir)) / PICTURES / name
        file.parent.mkdir(parents=True, exist_ok=True)
        return draw(file.with_suffix(".partial")).replace(file)

    @contextmanager
    def _forgiving(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Whatever it is, a picture is no reason to lose a training.
            self.frequency = 0
            logger.warning(
                f"The training goes on without pictures and uses (--policy.picture_freq): {type(error).__name__}: {error}"
            )


def _parameters(policy: LawmPolicy) -> str:
    """The number of parameters of each part of a policy in pretraining."""
    method = policy.pretraining
    parts = {
        "world model": method.world_model,
        "inverse dynamics": method.inverse_dynamics,
        "read-out": method.readout,
    }
    counts = {name: _count(part) for name, part in parts.items() if part is not None}
    counts = {"policy": _count(policy) - _count(method), **counts}
    return ", ".join(f"{name} {format_big_number(count, 1)}" for name, count in counts.items())


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _log_to_wandb(file: Path, step: int) -> None:
    wandb = sys.modules.get("wandb")
    if wandb is not None and getattr(wandb, "run", None) is not None:
        # At this step's number, at which LeRobot logs its metrics after it: numbers must not fall.
        wandb.run.log({f"train/{PICTURES}": wandb.Image(str(file))}, step=step)
