"""The speed bench's sections on reading, starting, scaling and real runs, in their quick mode: their reports, never how fast."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tools.speed.against_ffmpeg import bench_against_ffmpeg, ffmpeg_rows, find_ffmpeg
from tools.speed.fixtures import import_videos
from tools.speed.importing import import_section
from tools.speed.loading import bench_loading
from tools.speed.processes import launch
from tools.speed.runs import STEPS, bench_runs
from tools.speed.scaling import bench_scaling, train
from tools.speed.startup import TINY_ACT, TINY_LAWM, bench_startup

Report = dict[str, Any]


@pytest.fixture(scope="module")
def reports() -> Iterator[dict[str, Report]]:
    # What runs as other processes runs beside the rest: most of the time goes into importing LeRobot.
    with ThreadPoolExecutor(1) as pool:
        startup = pool.submit(bench_startup, quick=True)
        imported = pool.submit(import_section, quick=True, device="cpu")
        yield {
            "loading": bench_loading(quick=True),
            "scaling": bench_scaling(quick=True),
            "runs": bench_runs(quick=True),
            "startup": startup.result(),
            "import": imported.result(),
        }


@pytest.mark.slow
@pytest.mark.parametrize("section", ["loading", "scaling", "runs", "startup", "import"])
def test_ratios_are_rows_of_the_table(reports: dict[str, Report], section: str) -> None:
    for row in reports[section]["ratios"]:
        assert row.keys() == {"what", "value", "q1", "q3", "target", "at_most", "unit"}
        assert isinstance(row["value"], float)
        assert row["unit"] in ("x", "s", "hours")
    assert len({row["what"] for row in reports[section]["ratios"]}) == len(reports[section]["ratios"]) > 0


@pytest.mark.slow
def test_loading_measures_every_dataset_by_workers(reports: dict[str, Report]) -> None:
    report = reports["loading"]
    assert report["clips_per_s"].keys() == {"imported 128x128", "stock 128x128", "stock 480x640"}
    for by_workers in report["clips_per_s"].values():
        assert by_workers.keys() == {"0"}
        assert by_workers["0"]["median"] > 0
    assert report["step_clips_per_s"]["median"] > 0
    assert sorted(row["target"] or 0 for row in report["ratios"]) == [0, 1, 3]


@pytest.mark.slow
def test_the_import_is_measured_beside_the_loop(reports: dict[str, Report]) -> None:
    (found,) = reports["import"]["kinds"].values()
    assert (found["source_frames"], found["episodes"]) == (8 * 2 * 12, 8)
    assert found["times_faster"]["n"] == 1
    assert found["times_faster"]["median"] == pytest.approx(
        found["lerobot_loop_s"] / found["import_s"], abs=0.02
    )
    assert 0 < found["decoding_cpu_s"] < found["import_cpu_s"]


FAKE_FFMPEG = """#!/bin/sh
[ "$1" = -version ] && { echo "ffmpeg version 7.0-fake Copyright"; exit; }
echo "$@" >> "$0.log"
for target; do :; done
while [ "$1" != -i ]; do shift; done
cp "$2" "$target"
"""


def test_the_import_is_measured_beside_ffmpegs_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ffmpeg = tmp_path / "ffmpeg"
    ffmpeg.write_text(FAKE_FFMPEG)
    ffmpeg.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert find_ffmpeg() == str(ffmpeg)
    report = bench_against_ffmpeg(str(ffmpeg), {"camera_480p": (1, 1)}, rounds=1)
    assert report["ffmpeg_version"] == "7.0-fake"
    (found,) = report["kinds"].values()
    for name, key in (("times_as_fast", "s"), ("cpu_times_as_fast", "cpu_s")):
        assert found[name]["n"] == len(found[f"ffmpeg_{key}"]) == len(found[f"import_{key}"]) == 1
        assert found[name]["median"] < 1  # copying a file is faster
    _, converted = (tmp_path / "ffmpeg.log").read_text().splitlines()
    for part in ("-threads 1 ", "fps=10,scale=128:128:", "crop=128:128", "-c:v libx264", "-crf 23", "-g 2"):
        assert part in converted
    assert [row["target"] for row in ffmpeg_rows(report)] == [0.9, 0.9]


def test_the_importers_workers_import_anew_what_is_light() -> None:
    """They import the main module, which the bench gives them too: torch in it doubled the time of the import."""
    command = (
        "import sys, tools.speed.importing, tools.speed.against_ffmpeg; sys.exit('torch' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", command], cwd=root).returncode == 0


@pytest.mark.slow
def test_hidden_plugin_is_hidden(reports: dict[str, Report]) -> None:
    assert reports["startup"]["offers_lawm_act"] == {"with": True, "without": False}
    assert reports["startup"]["first_step"].keys() == {"lawm_act", "act"}
    assert {"lawm-export", "import torch"} < reports["startup"]["own_help"].keys()
    for found in reports["startup"]["help"].values():
        assert 0 < found["after_imports_s"]["median"] < found["seconds"]["median"]


@pytest.mark.slow
def test_scaling_reads_the_log_of_a_run(reports: dict[str, Report]) -> None:
    (run,) = reports["scaling"]["processes"]
    assert (run["workers"], run["batch"], run["processes"]) == (0, 8, 1)
    assert run["update_s"] > 0 and run["data_s"] > 0


@pytest.mark.slow
def test_runs_last_as_long_as_their_steps(reports: dict[str, Report]) -> None:
    runs = reports["runs"]["runs"]
    assert [name.split(", ")[1] for name in runs] == ["pretrain", "finetune"]
    for run, row in zip(runs.values(), reports["runs"]["ratios"], strict=True):
        assert row["value"] == pytest.approx((run["update_s"] + run["data_s"]) * STEPS / 3600, abs=0.06)


@pytest.mark.slow
def test_scaling_counts_the_samples_of_all_processes(tmp_path: Path) -> None:
    root = import_videos(tmp_path / "imported", episodes=1, seconds=2)
    flags = ("--policy.type=lawm_act", *TINY_ACT, *TINY_LAWM, "--policy.device=cpu")
    run = train(root, *flags, steps=1, workers=1, batch=2, processes=2)
    assert run["samples_per_s"] == pytest.approx(4 / (run["update_s"] + run["data_s"]), rel=0.01)


def test_a_command_that_fails_says_so_with_its_output() -> None:
    with pytest.raises(RuntimeError, match="ended with 3: .*no such flag"):
        launch(["sh", "-c", "echo no such flag; exit 3"])
    with pytest.raises(RuntimeError, match="ended with 0"):
        launch(["sh", "-c", "echo done"], awaited="step:1")
