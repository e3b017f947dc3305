"""`make demo`, smaller still: interrupted, gone on with, and not redone."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"
TINY = ["--corpus_episodes=1", "--demonstrations=2", "--held_out=1", "--eval_episodes=2"]
TINY += ["--pretraining_steps=60", "--finetuning_steps=9"]


@pytest.mark.slow
def test_interrupted_demo_goes_on_and_a_finished_one_is_not_redone(tmp_path: Path) -> None:
    command = [sys.executable, str(DEMO), f"--output_dir={tmp_path / 'demo'}", *TINY]
    first = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A shell's background jobs ignore it, and their children would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    checkpoints = tmp_path / "demo" / "train" / "pretrained" / "checkpoints"
    while not (checkpoints / "last").exists():
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.5)
    first.send_signal(signal.SIGINT)
    output, _ = first.communicate()
    assert first.returncode != 0
    assert "goes on from here" in output

    second = subprocess.run(command, capture_output=True, text=True)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "record corpus: done already" in second.stdout
    log = (tmp_path / "demo" / "logs" / "train_pretrained.log").read_text()
    assert "--resume=true" in log
    assert "Resuming data order" in log
    results = json.loads((tmp_path / "demo" / "results.json").read_text())
    assert results["success"]["lawm"][1] == 2
    assert results["success"]["exported"] == results["success"]["lawm"]
    assert (tmp_path / "demo" / "imagination.png").stat().st_size > 10_000

    third = subprocess.run(command, capture_output=True, text=True)
    assert third.returncode == 0, third.stdout + third.stderr
    assert third.stdout.count("done already") == 9
    assert "$ lerobot" not in third.stdout
    table = (tmp_path / "demo" / "table.md").read_text()
    assert table in third.stdout
