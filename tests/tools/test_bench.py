"""The speed bench: that ratios are of what they say, and that an interrupted bench goes on. No test asserts a time."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from lawm_lerobot.method.latent_action import BOTH
from lawm_lerobot.processes import peak_bytes
from tools.speed import bench, control, policies, processes, rssm, steps
from tools.speed.bench import main
from tools.speed.policies import CAMERA, Run
from tools.speed.table import row, target_met

TINY = Run(
    "act",
    source=BOTH,
    size="test",
    batch=2,
    turns=2,
    pixels=32,
    fields={
        "dim_model": 16,
        "n_heads": 2,
        "dim_feedforward": 16,
        "n_encoder_layers": 1,
        "n_vae_encoder_layers": 1,
        "latent_dim": 4,
        "chunk_size": 12,
        "n_action_steps": 12,
    },
)


@pytest.fixture
def sections(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two sections in place of the real ones; the list is of those that were measured."""
    measured: list[str] = []
    fake: Any = ModuleType("fake_sections")

    def first(quick: bool, device: str) -> dict[str, Any]:
        measured.append("first")
        spread = {"median": 1.4, "q1": 1.3, "q3": 1.6}
        return {
            "quick": quick,
            "device": device,
            "ratios": [row("slow over quick", spread, 1.5), row("one pass", 0.6, 0.45, unit="s")],
        }

    def second(quick: bool, device: str) -> dict[str, Any]:
        measured.append("second")
        return {"ratios": [row("times as fast", 3.5, 4, at_most=False), row("bytes", 1.0)]}

    fake.first, fake.second = first, second
    monkeypatch.setitem(sys.modules, "fake_sections", fake)
    names = {name: f"fake_sections:{name}" for name in ("first", "second")}
    monkeypatch.setattr(bench, "SECTIONS", {**names, "absent": "tools.speed.no_such_module:run"})
    monkeypatch.setattr(bench, "use_threads", lambda device: None)  # those of the other tests
    return measured


def test_table_of_rows(sections: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "new" / "speed.json"
    main([f"--output={output}", "--only=first,second", "--quick"])
    report = json.loads(output.read_text())
    assert report.keys() == {"machine", "device", "threads", "quick", "sections"}
    assert report["sections"]["first"]["quick"] and report["sections"]["first"]["device"] == "cpu"

    text = output.with_suffix(".md").read_text()
    assert capsys.readouterr().out.startswith(text)
    machine, blank, *lines = text.splitlines()
    assert report["machine"]["processor"] in machine and "quick look" in machine and not blank
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert rows[0] == ["section", "what", "ratio or value (q1-q3)", "target", "met?"]
    assert rows[2:] == [
        ["first", "slow over quick", "1.40x (1.30-1.60)", "at most 1.5x", "yes"],
        ["second", "times as fast", "3.50x", "at least 4x", "no"],
        ["second", "bytes", "1.00x", "", ""],
        ["first", "one pass", "0.6 s", "at most 0.45 s", "no"],
    ]


def test_interrupted_bench_goes_on(
    sections: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "speed.json"

    def interrupted(quick: bool, device: str) -> dict[str, Any]:
        raise KeyboardInterrupt

    whole = sys.modules["fake_sections"].second
    monkeypatch.setattr(sys.modules["fake_sections"], "second", interrupted)
    arguments = [f"--output={output}", "--only=second,first"]
    with pytest.raises(KeyboardInterrupt):
        main([f"--output={output}", "--only=first,second"])
    assert json.loads(output.read_text())["sections"].keys() == {"first"}

    monkeypatch.setattr(sys.modules["fake_sections"], "second", whole)
    main(arguments)
    assert sections == ["first", "second"]
    assert f"Taken over from {output}: first (" in capsys.readouterr().err
    assert list(json.loads(output.read_text())["sections"]) == ["first", "second"]

    main([*arguments, "--fresh"])
    assert sections == ["first", "second", "second", "first"]
    with pytest.raises(SystemExit, match="was taken with another quick"):
        main([*arguments, "--quick"])


def test_refused_sections(sections: list[str], tmp_path: Path) -> None:
    output = tmp_path / "speed.json"
    with pytest.raises(SystemExit, match="no section 'third': choose --only from first,second,absent"):
        main([f"--output={output}", "--only=first,third"])
    with pytest.raises(SystemExit, match=r"'absent' cannot run \(.*no_such_module.*\): leave it out"):
        main([f"--output={output}", "--only=first,absent"])
    assert not sections and not output.exists()
    main([f"--output={output}", "--only=first"])  # what is absent is missed by nobody who does not ask for it


def test_rows_of_the_steps() -> None:
    default, *others = steps.runs(quick=False, device="cpu")
    assert str(default) == "lawm_act, inverse_dynamics, recurrent 2m"
    assert default.target == 1.5
    assert {run.target for run in others if run.policy == "act"} == {None}
    assert {run.target for run in others if run.policy == "smolvla"} == {1.2}
    assert len({str(run) for run in (default, *others)}) == 1 + len(others)
    assert any(run.bf16 for run in steps.runs(quick=False, device="cuda"))


def test_policies_and_batches_of_a_step(tmp_path: Path) -> None:
    both = {pretraining: policies.build(TINY, pretraining, "cpu", tmp_path) for pretraining in (False, True)}
    assert [policy.config.type for policy in both.values()] == ["act", "lawm_act"]
    shapes = {
        pretraining: {
            key: tuple(value.shape)
            for key, value in policies.random_batch(policy.config, TINY, "cpu").items()
            if isinstance(value, torch.Tensor) and not key.endswith("_is_pad")
        }
        for pretraining, policy in both.items()
    }
    assert shapes[False] == {
        "observation.state": (2, 6),
        CAMERA: (2, 3, 32, 32),
        "action": (2, 12, 6),
    }
    assert shapes[True] == {"observation.state": (2, 9, 6), CAMERA: (2, 9, 3, 32, 32)}

    # A step moves the weights and leaves no gradient behind, as in `lerobot-train`.
    for policy in both.values():
        before = [parameter.detach().clone() for parameter in policy.parameters()]
        policies.training_step(policy, policies.random_batch(policy.config, TINY, "cpu"), bf16=True)()
        moved = [not torch.equal(a, b) for a, b in zip(before, policy.parameters(), strict=True)]
        assert sum(moved) > len(moved) / 2
        assert all(parameter.grad is None for parameter in policy.parameters())


def test_steps_are_measured_by_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "runs", lambda quick, device: [TINY])
    monkeypatch.setattr(steps, "use_threads", lambda device: None)
    asked: list[bool] = []

    def peak(function: Any, run: Run, pretraining: bool, *rest: Any) -> dict[str, float]:
        assert function is steps.peak_of_steps and run is TINY
        asked.append(pretraining)
        found = function(run, pretraining, *rest)
        assert 0 < found["of_which_imports_gb"] <= found["peak_gb"]
        return {"peak_gb": 3.0 if pretraining else 2.0}

    monkeypatch.setattr(steps, "in_fresh_process", peak)
    report = steps.bench_steps(quick=True)
    (found,) = report["rows"]
    assert found["policy"] == "act" and found["source"] == BOTH
    assert found["imitation_s"]["n"] == found["pretraining_s"]["n"] == found["ratio"]["n"] == TINY.turns
    assert found["parameters"]["pretraining"] > found["parameters"]["imitation"] > 0
    assert asked == [False, True]
    time, memory, finetuning, cotraining, *pictures = report["ratios"]
    assert (time["value"], time["q1"], time["q3"]) == tuple(found["ratio"][k] for k in ("median", "q1", "q3"))
    assert memory["value"] == 1.5 and "peak memory" in memory["what"]
    assert finetuning["what"] == "lawm_act: finetuning step over imitation step" and finetuning["value"] > 0
    assert "co-training step over finetuning step" in cotraining["what"] and cotraining["value"] > 0
    for stage, measured in zip(("pretraining", "finetuning"), pictures, strict=True):
        assert measured["what"].startswith(f"lawm_act: {stage} with pictures") and measured["value"] > 1


def test_rssm_in_a_fresh_process() -> None:
    ballast = torch.ones(2**27)  # half a gigabyte that is none of the child's
    found = processes.in_fresh_process(rssm.rssm_pass, "test", "cpu", 2, 2, 32)
    assert found["seconds"]["n"] == 2 and found["parameters"] > 1000
    assert found["threads"] == processes.THREADS
    assert 0 < found["of_which_imports_gb"] <= found["peak_gb"]
    ours = peak_bytes("cpu")
    assert found["peak_gb"] + ballast.nbytes / 2 / processes.GB < ours / processes.GB


def test_decoding_some_frames_beside_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rssm, "RSSM_PIXELS", 32)
    monkeypatch.setattr(rssm, "use_threads", lambda device: None)
    asked: list[int] = []
    build = rssm.rssm

    def spied(config: Any, device: str) -> Any:
        asked.append(config.decoded_frames)
        return build(config, device, batch=2)

    monkeypatch.setattr(rssm, "rssm", spied)
    assert rssm.decoding_ratio("test", "cpu", 2)["median"] > 0
    assert asked == [4, 0]


def test_rssm_beside_the_authors(monkeypatch: pytest.MonkeyPatch) -> None:
    def halved(function: Any, size: str, *rest: Any) -> dict[str, Any]:
        if function is rssm.decoding_ratio:
            return {"median": 0.5, "q1": 0.5, "q3": 0.5, "n": 1}
        seconds = rssm.AUTHORS[size]["seconds"] / 2
        return {"seconds": {"median": seconds, "q1": seconds, "q3": seconds, "n": 1}, "peak_gb": 1.3}

    monkeypatch.setattr(rssm, "in_fresh_process", halved)
    ratios = rssm.bench_rssm()["ratios"]
    assert {found["value"] for found in ratios if found["unit"] == "x"} == {0.5}
    assert {found["target"] for found in ratios if found["unit"] == "s"} == {0.45, 1.6}
    assert all(
        found["target"] is None and (found["unit"] == "s") != ("decoding" in found["what"])
        for found in rssm.bench_rssm(device="cuda")["ratios"]
    )


def test_the_report_of_the_control_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    report = {
        "network": {"ratio": {"median": 1.01}},
        "queue": {"ratio": {"median": 1.2}},
        "checkpoint_bytes": {"act": 100, "lawm_act": 100},
    }
    monkeypatch.setattr(control, "bench_control", lambda *args, **kwargs: report)
    assert [target_met(found) for found in control.control_section(True, "cpu")["ratios"]] == [
        "yes",
        "no",
        "yes",
    ]
