"""Where a policy looks when it plans: the use of its inputs for the latent actions that it predicts in pretraining."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lerobot.datasets.lerobot_dataset import LeRobotDataset
from torch import Tensor

from lawm_lerobot.inspection.looking import FRAMES, Looking, measure_pairs, take_pairs
from lawm_lerobot.inspection.occlusion import Occlusions, occlude
from lawm_lerobot.policies.common.asking import AskedPolicy
from lawm_lerobot.policies.common.policy import LawmPolicy
from lawm_lerobot.policies.common.pretraining_checkpoint import Preprocessor


@dataclass(frozen=True)
class Planning:
    """The uses of a policy's inputs for its plan, and what painting over patches of its pictures changes."""

    looking: Looking
    occlusions: Occlusions

    def __str__(self) -> str:
        uses = {"pictures": self.looking.pictures, "state": self.looking.state, "task": self.looking.task}
        found = ", ".join(f"its {name} by {use}" for name, use in uses.items() if use is not None)
        return (
            f"When it plans, the policy uses {found}: how far the latent actions that it predicts move when that input is "
            "another frame's, as a share of the way to that frame's."
        )

    def to_json(self) -> dict[str, Any]:
        """The uses as plain data; the verdicts on policies that act are not for plans."""
        values = self.looking.to_json()
        return {name: value for name, value in values.items() if name not in ("verdict", "sentence")}


def measure_planning(
    policy: LawmPolicy, preprocessor: Preprocessor, dataset: LeRobotDataset, seed: int
) -> Planning:
    """Ask a pretraining policy for its latent actions as `looking.measure` asks one that acts; errors as there."""

    def plan(batch: dict[str, Any]) -> Tensor:
        return policy.latents_without_gradient(policy.prepare_batch(batch))  # (B,H,Z)

    asked = AskedPolicy(policy, preprocessor, plan)
    pairs = take_pairs(asked, dataset, FRAMES, seed)
    looking = measure_pairs(asked, pairs, seed, progress=True)
    return Planning(looking, occlude(asked, pairs, looking.distance, seed, progress=True))
