"""Configurations and results of benchmarks for tests."""

from __future__ import annotations

from pathlib import Path

import draccus

from lawm_lerobot.benchmark.cells import Setting
from lawm_lerobot.benchmark.configuration import BenchmarkConfig
from lawm_lerobot.benchmark.results import ImitationCurve, Looking
from lawm_lerobot.benchmark.rows import Row

BENCHMARKS = Path(__file__).parents[2] / "configs" / "benchmark"
SMOKE = BENCHMARKS / "smoke.yaml"
SETTING = Setting("same_task", "reach-v3", 1)


def configuration(*flags: str, file: Path = SMOKE, output_dir: Path = Path("unused")) -> BenchmarkConfig:
    """The configuration of a YAML file and flags."""
    return draccus.parse(
        BenchmarkConfig, args=[f"--config_path={file}", f"--output_dir={output_dir}", *flags]
    )


def outcomes(text: str) -> list[bool]:
    """Evaluation episodes from letters: x succeeded."""
    return [letter == "x" for letter in text]


def row(
    arm: str,
    successes: dict[int, str],
    errors: dict[int, list[float]] | None = None,
    setting: Setting = SETTING,
    videos: int = 0,
    verdicts: str = "",
) -> Row:
    """A row of the report; successes and errors at two checkpoints by seed, verdicts of looking by a word each."""
    curves = {seed: ImitationCurve([2, 4], (errors or {}).get(seed, [0.5, 0.4])) for seed in successes}
    looking = {
        seed: Looking(verdict, 0.5, None) for seed, verdict in zip(successes, verdicts.split(), strict=False)
    }
    won = {seed: outcomes(text) for seed, text in successes.items()}
    return Row(setting, arm, videos, won, curves, looking)
