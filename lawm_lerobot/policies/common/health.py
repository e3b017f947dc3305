"""The health of pretraining: metrics that show a collapse, and the warnings that they lead to."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lawm_lerobot.method.objective import ACTION_RATIO

logger = logging.getLogger(__name__)

# Below these, latents carry (nearly) nothing. They are far under what any healthy run shows: unit variance,
# a rank of several, and a shuffled error tens of percent above the matched one.
COLLAPSED_STD = 0.1
COLLAPSED_RANK = 1.05
# Of quantised latents: the codes that a place takes on average, weighted by how often. 1 is a constant.
COLLAPSED_PERPLEXITY = 1.2
IGNORED_RATIO = 1.02
# The least standard deviation of the policy's own output over a batch. One that has learned nothing yet is far above.
DEAD_STD = 1e-3
# Measurements before `IGNORED_RATIO` is judged: an untrained world model ignores every latent.
IGNORED_AFTER = 40


class HealthMonitor:
    """Decides when health is measured, keeps the latest metrics, and warns once of each thing that is wrong.

    ``frequency`` is the number of training steps from one measurement to the next.
    """

    def __init__(self, frequency: int) -> None:
        self.frequency = frequency
        self.metrics: dict[str, float] = {}
        self.measurements = 0
        self.training_steps = 0
        self.warned: set[str] = set()
        self.policy_grad_norm: Tensor | None = None

    @property
    def due(self) -> bool:
        return self.training_steps % self.frequency == 0

    def note_policy_gradient(self, gradient: Tensor) -> None:
        """Keeps the norm of a gradient for the next step's log: it exists only after forward() has returned."""
        self.policy_grad_norm = gradient.detach().float().norm()

    def judge(self, metrics: dict[str, float], dim: int) -> None:
        """Takes new metrics of `LatentActionPretraining.health` for Z = `dim`, and warns of what they show.

        ``policy_std`` may be among them, the standard deviation over a batch of the latents that the policy predicts, and
        those of `LatentActionPretraining.option_health`.
        """
        self.metrics = metrics
        self.measurements += 1
        std, rank = metrics["latent_std"], metrics["latent_rank"]
        # Before the first label there is nothing to measure.
        judged = {k: v for k, v in metrics.items() if k != ACTION_RATIO or not math.isnan(v)}
        broken = [f"{name} {value}" for name, value in judged.items() if not math.isfinite(value)]
        if broken:
            self._warn_once(
                "not finite",
                f"The pretraining is not finite ({', '.join(broken)}), and no further step will make it so. Start anew "
                "from an earlier checkpoint with a lower --policy.policy_pretraining_lr and --policy.pretraining_lr, "
                "and look for values that are not numbers in the dataset and in --policy.labels.repo_id.",
            )
        elif std < COLLAPSED_STD or (dim > 1 and rank < COLLAPSED_RANK):
            self._warn_once(
                "collapsed",
                f"The latent actions have collapsed to (nearly) a constant: standard deviation {std:.3f}, "
                f"effective rank {rank:.2f} of {dim}. What the policy learns from them is "
                "worthless. Pretrain with --policy.latent_action.source=inverse_dynamics, or with frames "
                "further apart (--policy.latent_action.stride).",
            )
        elif metrics.get("code_perplexity", math.inf) < COLLAPSED_PERPLEXITY:
            self._warn_once(
                "codes",
                f"The codes of the latent actions have collapsed: a place takes {metrics['code_perplexity']:.2f} codes on "
                f"average (collapsed below {COLLAPSED_PERPLEXITY}), and {metrics['codes_used']:.0%} of all codes occur. Take "
                "--policy.latent_action.quantizer=fsq, which has no codebook, or none.",
            )
        elif metrics.get("policy_std", 1.0) < DEAD_STD:
            self._warn_once(
                "dead",
                "The policy says (nearly) the same to every frame: the standard deviation of its latents over the "
                f"batch is {metrics['policy_std']:.1e}. Nothing will come of finetuning it. Start anew with a lower "
                "--policy.policy_pretraining_lr, or with published weights of its image backbone.",
            )
        elif self.measurements > IGNORED_AFTER and metrics["shuffle_ratio"] < IGNORED_RATIO:
            self._warn_once(
                "ignored",
                "The world model ignores the latent actions: another clip's latents predict the frames as "
                f"well (ratio {metrics['shuffle_ratio']:.3f}). Take frames further apart "
                "(--policy.latent_action.stride) or less noise (--policy.latent_action.noise).",
            )

    def _warn_once(self, kind: str, message: str) -> None:
        if kind not in self.warned:
            self.warned.add(kind)
            logger.warning(message)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """The module in evaluation mode; afterwards every part of it is in the mode that it was in.

    Nothing is drawn from the random numbers of training within.
    """
    modes = [(part, part.training) for part in module.modules()]
    devices = {tensor.device for tensor in module.parameters() if tensor.device.type == "cuda"}
    module.eval()
    try:
        with torch.random.fork_rng(devices), torch.no_grad():
            yield
    finally:
        for part, mode in modes:
            part.training = mode


def to_floats(metrics: dict[str, Any]) -> dict[str, float]:
    """Tensors () to floats with one transfer from the device instead of one each."""
    tensors = {k: v for k, v in metrics.items() if isinstance(v, Tensor)}
    floats = torch.stack([v.detach().float() for v in tensors.values()]).tolist() if tensors else []
    return {
        **{k: v for k, v in metrics.items() if k not in tensors},
        **dict(zip(tensors, floats, strict=True)),
    }
