"""The gate: on which tasks there is room to see what video is worth, before any arm is looked at.

There is none where a policy without video succeeds nearly always or hardly ever, where even the video's true actions add
little, or where the policy goes by the state alone and would not notice what video taught it to see.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lawm_lerobot.benchmark.arms import SCRATCH, SUPERVISED_ALL
from lawm_lerobot.benchmark.configuration import BenchmarkConfig, BenchmarkError
from lawm_lerobot.benchmark.protocol import Protocol
from lawm_lerobot.benchmark.rows import Row, line
from lawm_lerobot.files import write_json, write_text
from lawm_lerobot.statistics.intervals import SuccessRate

LOWEST, HIGHEST = 0.15, 0.65  # success without video
MARGIN = 0.25  # by which the true actions of the video must add to it

PASSED = "passed"
# What the gate's file says of the pictures, which a benchmark should share with it.
SCENE = ("size", "camera", "camera_zoom", "variation", "demonstration_noise", "finetuning_steps")


@dataclass(frozen=True)
class GateResult:
    """The findings of the gate on a task.

    Args:
        task: The task.
        regime: The corpus regime.
        demonstrations: The number of labelled episodes.
        videos: The number of episodes whose true actions `SUPERVISED_ALL` has.
        scratch: The success of `SCRATCH`.
        supervised: The success of `SUPERVISED_ALL`.
        looks: True if most policies of `SUPERVISED_ALL` look; None if that was not measured.
        looking: How much they look, in words.
    """

    task: str
    regime: str
    demonstrations: int
    videos: int
    scratch: SuccessRate
    supervised: SuccessRate
    looks: bool | None
    looking: str

    @property
    def outcome(self) -> str:
        """`PASSED`, or what is against it."""
        gain = self.supervised.rate - self.scratch.rate
        if not LOWEST <= self.scratch.rate <= HIGHEST:
            return f"no room: `{SCRATCH}` succeeds in {self.scratch.rate:.0%}, expected {LOWEST:.0%} to {HIGHEST:.0%}"
        if gain < MARGIN:
            return f"no room: true actions add {100 * gain:.0f} points, expected at least {100 * MARGIN:.0f}"
        if self.looks is None:
            return "room, but whether the policy looks was not measured: set evaluation.look"
        return PASSED if self.looks else "the policy does not look"

    def to_json(self) -> dict[str, Any]:
        rates = {
            name: {"successes": rate.successes, "episodes": rate.episodes}
            for name, rate in (("scratch", self.scratch), ("supervised", self.supervised))
        }
        return vars(self) | rates | {"passed": self.outcome == PASSED, "outcome": self.outcome}


def gated(cfg: BenchmarkConfig) -> BenchmarkConfig:
    """The benchmark of the gate: the two arms alone."""
    return replace(cfg, arms=[SCRATCH, SUPERVISED_ALL], compare_with=[SCRATCH], controls=[], primary=[])


def gate_results(rows: Sequence[Row]) -> list[GateResult]:
    """The findings wherever both arms have a seed; other seeds than the common ones do not count."""
    scratch = {row.setting: row for row in rows if row.arm == SCRATCH}
    found = []
    for row in rows:
        if row.arm != SUPERVISED_ALL or (other := scratch.get(row.setting)) is None:
            continue
        seeds = [seed for seed in row.successes if seed in other.successes]
        if seeds:
            setting = row.setting
            found.append(
                GateResult(
                    task=setting.task,
                    regime=setting.regime,
                    demonstrations=setting.demonstrations,
                    videos=row.videos,
                    scratch=other.rate_of(seeds),
                    supervised=row.rate_of(seeds),
                    looks=row.looks,
                    looking=row.described_looking(),
                )
            )
    return found


def gate_table(results: Sequence[GateResult]) -> str:
    header = ["task", "regime", "demonstrations", "videos", f"`{SCRATCH}`", f"`{SUPERVISED_ALL}`"]
    header += ["policies that look", "gate"]
    lines = [line(header), line(["---"] * len(header))]
    for one in results:
        cells = [one.task, one.regime, str(one.demonstrations), str(one.videos), str(one.scratch)]
        lines.append(line([*cells, str(one.supervised), one.looking, f"**{one.outcome}**"]))
    note = (
        f"A task passes if `{SCRATCH}` succeeds in {LOWEST:.0%} to {HIGHEST:.0%} of its episodes, the true actions of the "
        f"video add at least {100 * MARGIN:.0f} points to that, and most of the policies trained on them look."
    )
    return "\n".join([*lines, "", note]) + "\n"


def write_gate(
    cfg: BenchmarkConfig, protocol: Protocol, results: Sequence[GateResult], output_dir: Path
) -> None:
    """Write ``gate.md`` and ``gate.json``."""
    values = {
        "protocol": vars(protocol),
        "scene": {name: getattr(cfg, name) for name in SCENE},
        "tasks": [one.to_json() for one in results],
    }
    write_json(output_dir / "gate.json", values)
    write_text(output_dir / "gate.md", f"{protocol}\n\n{gate_table(results)}")


def read_gate(file: Path) -> dict[str, Any]:
    """Read what `write_gate` wrote.

    Raises:
        BenchmarkError: If the file is not there, or holds something else.
    """
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        return {
            "scene": dict(values["scene"]),
            "outcomes": {(one["task"], one["demonstrations"]): one["outcome"] for one in values["tasks"]},
        }
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BenchmarkError(
            f"{file} is not the gate.json of a lawm-benchmark --gate=true: change --gate_file."
        ) from error


def gate_report(cfg: BenchmarkConfig) -> str:
    """Tell in Markdown which of the benchmark's tasks passed the gate."""
    if cfg.gate_file is None:
        return "Gate: none was read, so the tasks may have no room for a difference (`--gate_file`).\n"
    gate = read_gate(cfg.gate_file)
    lines = ["Gate:"]
    for task in cfg.tasks:
        for demonstrations in cfg.demonstrations:
            outcome = gate["outcomes"].get((task, demonstrations), "not tried")
            lines.append(f"- {task}, {demonstrations} demonstrations: {outcome}.")
    for name in SCENE:
        if name in gate["scene"] and gate["scene"][name] != getattr(cfg, name):
            lines.append(f"- The gate had {name} {gate['scene'][name]} in place of {getattr(cfg, name)}.")
    return "\n".join(lines) + "\n"
