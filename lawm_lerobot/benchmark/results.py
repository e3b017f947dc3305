"""Results of finished cells, as JSON lines."""

import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lawm_lerobot.benchmark.cells import CellRun
from lawm_lerobot.benchmark.configuration import BenchmarkError
from lawm_lerobot.benchmark.runner import duration_of, is_done, log_of

# Metrics of the latents and of the policy that lerobot-train logs in pretraining.
LOGGED_HEALTH = (
    "mse_over_copy",
    "shuffle_ratio",
    "latent_std",
    "latent_rank",
    "policy_std",
    "imitation_loss",
    "readout_r2",
    "code_perplexity",
    "codes_used",
    "proprio_r2",
    "action_latent_ratio",
)


@dataclass(frozen=True)
class ImitationCurve:
    """The error on the held-out demonstrations, in action units, after each of some training steps of a finetuning."""

    steps: list[int]
    errors: list[float]


@dataclass(frozen=True)
class Looking:
    """The uses of a policy's inputs, by `lawm-inspect`.

    Args:
        verdict: The verdict in a word or two.
        pictures: How far the predicted chunk moves with the pictures of another frame, relative to its distance from
            that frame's chunk.
        state: The same for the state; None in a policy without it.
    """

    verdict: str
    pictures: float
    state: float | None


@dataclass(frozen=True)
class CellResult:
    """The result of a cell: a line of ``results.jsonl``, whose keys are these fields.

    Args:
        key: Name of the cell, see `CellRun.key`.
        regime, task, demonstrations, arm, seed: The cell.
        successes: Outcomes of the evaluation episodes.
        imitation_error: The imitation error over finetuning; None without a policy.
        latent_health: The last logged metrics of the latents; None in arms without latents.
        seconds: Durations of the commands by name.
        videos: The number of unlabelled episodes, 0 in arms that use none.
        looking: How much the policy looks; None if that was not measured.
    """

    key: str
    regime: str
    task: str
    demonstrations: int
    arm: str
    seed: int
    successes: list[bool]
    imitation_error: ImitationCurve | None
    latent_health: dict[str, float] | None
    seconds: dict[str, float]
    videos: int = 0
    looking: Looking | None = None

    @classmethod
    def from_line(cls, line: str) -> "CellResult":
        values = json.loads(line)
        if values["imitation_error"] is not None:
            values["imitation_error"] = ImitationCurve(**values["imitation_error"])
        if values.get("looking") is not None:
            values["looking"] = Looking(**values["looking"])
        return cls(**values)


def read_cell(output_dir: Path, run: CellRun) -> CellResult:
    """The result of a cell whose commands are done."""
    curve = looking = None
    if run.imitation is not None:
        curve = ImitationCurve(**json.loads((output_dir / run.imitation.out / "imitation.json").read_text()))
    if run.look is not None:
        found = json.loads((output_dir / run.look.out / "looking.json").read_text())
        state = found["state"]
        looking = Looking(found["verdict"], found["pictures"]["use"], None if state is None else state["use"])
    return CellResult(
        key=run.key,
        **asdict(run.cell.setting),
        arm=run.cell.arm,
        seed=run.cell.seed,
        successes=evaluated_successes(output_dir / run.evaluation.out / "eval_info.json"),
        imitation_error=curve,
        latent_health=None if run.pretraining is None else logged_health(log_of(output_dir, run.pretraining)),
        seconds={command.name: duration_of(output_dir, command) for command in run.commands()},
        videos=run.cell.videos,
        looking=looking,
    )


def evaluated_successes(file: Path) -> list[bool]:
    """The outcomes of the evaluation episodes in what `lerobot-eval` wrote about one task."""
    info = json.loads(file.read_text())
    return [bool(success) for success in info["per_task"][0]["metrics"]["successes"]]


def logged_health(log: str) -> dict[str, float]:
    """Metrics of the latents in the last line of a pretraining log that has them.

    The log is all there is: lerobot-train writes these numbers nowhere else but to Weights & Biases.
    """
    lines = [line for line in log.splitlines() if " step:" in line]
    metrics = dict(re.findall(r"(\w+):(\S+)", lines[-1])) if lines else {}
    return {name: float(metrics[name]) for name in LOGGED_HEALTH if name in metrics}


def read_results(file: Path) -> dict[str, CellResult]:
    """Cells by key. A last line that was cut off is dropped from the file, and stderr says so.

    Raises:
        BenchmarkError: If another line is not one that `append_result` wrote.
    """
    if not file.exists():
        return {}
    whole, _, torn = file.read_text().rpartition("\n")
    if torn:
        print(f"{file.name}: its last line was cut off; that cell is done again", file=sys.stderr)
        with file.open("r+b") as stream:
            stream.truncate(len((whole + "\n").encode()) if whole else 0)
    results = {}
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            result = CellResult.from_line(line)
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise BenchmarkError(f"line {number} of {file} is not a cell's result: remove it.") from error
        results[result.key] = result
    return results


def append_result(file: Path, result: CellResult) -> None:
    with file.open("a") as stream:
        stream.write(json.dumps(asdict(result)) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def append_new_results(output_dir: Path, runs: Sequence[CellRun], results: dict[str, CellResult]) -> int:
    """Add the cells that have finished since to ``results`` and to their file; returns how many."""
    new = [
        run
        for run in runs
        if run.key not in results and all(is_done(output_dir, command) for command in run.measurements)
    ]
    for run in new:
        results[run.key] = read_cell(output_dir, run)
        append_result(output_dir / "results.jsonl", results[run.key])
    return len(new)
