"""The recordings of a cell: its corpus, its demonstrations, and those that nothing is trained on."""

import json
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lawm_lerobot.benchmark.arms import Arm
from lawm_lerobot.benchmark.cells import Cell
from lawm_lerobot.benchmark.commands import OUT, Command
from lawm_lerobot.benchmark.configuration import BenchmarkConfig, Variant
from lawm_lerobot.benchmark.simulators import Simulator

# Episode k of a recording starts from seed + k. Ranges that never meet, also after the recorder's retries, which
# add millions; within the last two every benchmark seed has a thousand to itself.
CORPUS_SEED = 0
HELD_OUT_SEED = 100_000
EVALUATION_SEED = 200_000
DEMONSTRATION_SEED = 300_000
SEED_STEP = 1000


def dataset_flags(command: Command, prefix: str) -> list[str]:
    """Flags that name the dataset which a recording or labelling command wrote."""
    return [f"--{prefix}.repo_id=benchmark/{command.kind}", f"--{prefix}.root={command.out}"]


@dataclass(frozen=True)
class CellRecordings:
    """The commands that record what a cell is trained and measured on.

    Args:
        cfg: The configuration of the benchmark.
        cell: The cell.
    """

    cfg: BenchmarkConfig
    cell: Cell

    @cached_property
    def variant(self) -> Variant:
        return self.cfg.variant(self.cell.arm)

    @cached_property
    def arm(self) -> Arm:
        return self.cfg.arm(self.cell.arm)

    @property
    def simulator(self) -> Simulator:
        return self.cfg.simulated

    def record(
        self, title: str, parts: list[dict[str, Any]], *, with_actions: bool, with_state: bool = True
    ) -> Command:
        """The command that records ``parts``, each of them the fields of an `ExpertRecording`, as one dataset."""
        pictures = self.simulator.pictures(self.cfg) | ({} if self.arm.sees else {"draw": False})
        spec = {
            "repo_id": "benchmark/record",
            "fps": self.simulator.fps,
            "with_actions": with_actions,
            "with_state": with_state,
            "parts": [part | pictures for part in parts],
        }
        if self.cfg.simulator != "metaworld":  # which recorded before there were others
            spec["simulator"] = self.cfg.simulator
        episodes = sum(part["episodes_per_task"] * len(part["tasks"]) for part in parts)
        seconds = episodes * self.cfg.costs.recorded_episode
        return Command("record", title, "record", (json.dumps(spec), OUT), seconds=seconds)

    def corpus_part(self) -> dict[str, Any]:
        corpus = self.cfg.corpus
        tasks = self.cfg.corpus_tasks(self.cell.setting.regime, self.cell.setting.task)
        return {
            "tasks": tasks,
            "episodes_per_task": math.ceil(self.cell.videos / len(tasks)),
            "seed": CORPUS_SEED,
            "noise": corpus.noise,
            **{
                name: getattr(corpus, name)
                for name in ("camera_shift", "distractors", "body")
                if f"corpus.{name}" in self.simulator.options
            },
        }

    def record_corpus(self, *, with_actions: bool) -> Command:
        """The same episodes with or without actions: an arm that may not use actions has none at hand."""
        part = self.corpus_part()
        shown = part["tasks"][0] if len(part["tasks"]) == 1 else f"{len(part['tasks'])}-tasks"
        title = f"{'labelled-' if with_actions else ''}corpus-{shown}-v{self.cell.videos}"
        with_state = with_actions or self.cfg.corpus.with_state
        return self.record(title, [part], with_actions=with_actions, with_state=with_state)

    def demonstration_part(self, episodes: int, seed: int) -> dict[str, Any]:
        noise = self.cfg.demonstration_noise
        return {
            "tasks": [self.cell.setting.task],
            "episodes_per_task": episodes,
            "seed": seed,
            "noise": noise,
        }

    def record_demonstrations(self, *, with_corpus: bool = False) -> Command:
        count, task = self.cell.setting.demonstrations, self.cell.setting.task
        parts = [self.demonstration_part(count, DEMONSTRATION_SEED + SEED_STEP * self.cell.seed)]
        title = f"demonstrations-{task}-n{count}-s{self.cell.seed}"
        if with_corpus:
            parts.append(self.corpus_part())
            title += f"-and-corpus-v{self.cell.videos}"
        return self.record(title, parts, with_actions=True)

    def record_held_out(self) -> Command:
        count, task = self.cfg.evaluation.held_out_demonstrations, self.cell.setting.task
        part = self.demonstration_part(count, HELD_OUT_SEED)
        return self.record(f"held-out-{task}", [part], with_actions=True)
