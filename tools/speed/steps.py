"""Cost of pretraining: its step beside an imitation step of the same policy.

    python -m tools.speed --only=steps

Both policies train turn by turn in one process, so that a busy machine slows both. Peak memory is that of a fresh
process for each.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from tqdm import tqdm

from lawm_lerobot.method.latent_action import BOTH, POLICY, LatentActionConfig
from lawm_lerobot.processes import peak_bytes
from tools.speed.policies import Run, build, policy_class_of, random_batch, training_step
from tools.speed.processes import in_fresh_process, memory_entry, use_threads
from tools.speed.table import row
from tools.speed.timing import interleaved, ratio, spread

#: Upper limits for the time of the pretraining step over that of the imitation step.
ACT_TARGET, VLA_TARGET = 1.5, 1.2
#: Upper limit for the time of a co-training step over that of a finetuning step.
COTRAINING_TARGET = 1.6
#: Upper limit for the time of a training with pictures over that of one without.
PICTURES_TARGET = 1.02


def runs(quick: bool, device: str) -> list[Run]:
    """The runs to measure: sources, world models and policies one at a time, around the default pretraining of ACT."""
    turns = 3 if quick else 12
    default = Run("act", turns=turns, target=ACT_TARGET)
    act = replace(default, target=None)
    found = [default, replace(act, source=POLICY), replace(act, source=BOTH)]
    if quick:
        return found
    for world_model, size in (("recurrent", "8m"), ("recurrent", "17m"), ("rssm", "3m"), ("rssm", "12m")):
        found.append(replace(act, world_model=world_model, size=size))
    found.append(replace(act, source=POLICY, world_model="rssm", size="3m"))
    # A plain ACT imitates 100 actions, more than there are latents: with as many, what the world model adds is bare.
    latents = LatentActionConfig().horizon
    found.append(replace(act, fields={"chunk_size": latents, "n_action_steps": latents}))
    gpu = device == "cuda"
    smolvla = Run("smolvla", batch=8 if gpu else 2, turns=12 if gpu else 4, target=VLA_TARGET)
    found += [Run("diffusion", turns=12 if gpu else 5), smolvla]
    if gpu:
        found += [replace(act, bf16=True), replace(smolvla, bf16=True)]
        found += [replace(act, compiled=True), replace(act, compiled=True, bf16=True)]
    return found


def bench_steps(quick: bool = False, device: str = "cpu") -> dict[str, Any]:
    """Seconds and peak memory of pretraining steps over those of imitation steps.

    Args:
        quick: ACT with each source only, few turns.
        device: ``cpu`` or ``cuda``.

    Returns:
        ``device``, ``threads``, ``rows`` (see `measure`) and ``ratios``, a row of the table for each run's time and memory.
    """
    use_threads(device)
    entries: list[dict[str, Any]] = []
    ratios: list[dict[str, Any]] = []
    peaks: dict[tuple, dict[str, float]] = {}  # of imitation, which is the same for many rows
    with tempfile.TemporaryDirectory() as folder:
        for run in tqdm(runs(quick, device), desc="steps", leave=False):
            entry = measure(run, device, Path(folder))
            imitation = (run.policy, run.batch, run.bf16, run.compiled, *run.fields.items())
            if imitation not in peaks:
                peaks[imitation] = in_fresh_process(peak_of_steps, run, False, device, folder)
            entry["memory"] = {
                "imitation": peaks[imitation],
                "pretraining": in_fresh_process(peak_of_steps, run, True, device, folder),
            }
            memory = entry["memory"]["pretraining"]["peak_gb"] / entry["memory"]["imitation"]["peak_gb"]
            entries.append(entry)
            ratios.append(row(f"{run}: pretraining step over imitation step", entry["ratio"], run.target))
            ratios.append(row(f"{run}: peak memory over imitation's", round(memory, 3)))
        default = runs(quick, device)[0]
        finetuning = measure_finetuning(default, device, Path(folder))
        ratios.append(row(f"lawm_{default.policy}: finetuning step over imitation step", finetuning))
        cotraining = measure_cotraining(default, device, Path(folder))
        what = f"lawm_{default.policy}: co-training step over finetuning step, half as many frames of video"
        ratios.append(row(what, cotraining, COTRAINING_TARGET))
        for stage, measured in measure_pictures(default, device, Path(folder)).items():
            what = f"lawm_{default.policy}: {stage} with pictures over the same without, --policy.picture_freq default"
            ratios.append(row(what, measured, PICTURES_TARGET))
    return {"device": device, "threads": torch.get_num_threads(), "rows": entries, "ratios": ratios}


def measure(run: Run, device: str, folder: Path) -> dict[str, Any]:
    """Time both kinds of step of a run, in turn.

    The latents' health, measured at every `health_freq`-th step, falls into the warm-up and is not timed.

    Returns:
        the fields of the run; ``parameters``, the number of each policy's; ``imitation_s`` and ``pretraining_s``, `spread`s
        of seconds; and ``ratio``, the latter over the former.
    """
    policies = {
        "imitation": build(run, False, device, folder),
        "pretraining": build(run, True, device, folder),
    }
    steps = {
        name: training_step(policy, random_batch(policy.config, run, device), run.bf16)
        for name, policy in policies.items()
    }
    times = interleaved(steps, run.turns)
    return {
        **{name: value for name, value in asdict(run).items() if name != "target"},
        "parameters": {
            name: sum(parameter.numel() for parameter in policy.parameters())
            for name, policy in policies.items()
        },
        **{f"{name}_s": spread(seconds) for name, seconds in times.items()},
        "ratio": ratio(times["pretraining"], times["imitation"]),
    }


def measure_finetuning(run: Run, device: str, folder: Path) -> dict[str, float]:
    """`ratio` of the wrapped policy's finetuning step to the plain one's: one network, stepped by a fused optimizer."""
    plain = build(run, False, device, folder)
    settings = {f.name: getattr(plain.config, f.name) for f in fields(plain.config) if f.init}
    wrapped_class = policy_class_of(run, True)
    wrapped = wrapped_class(wrapped_class.config_class(stage="finetune", **settings)).to(device)
    batch = random_batch(plain.config, run, device)
    steps = {
        name: training_step(policy, batch, run.bf16) for name, policy in (("plain", plain), ("ours", wrapped))
    }
    times = interleaved(steps, run.turns)
    return ratio(times["ours"], times["plain"])


def measure_cotraining(run: Run, device: str, folder: Path) -> dict[str, float]:
    """`ratio` of a finetuning step with video in the batch, read by one loader process, to a plain one."""
    from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
    from lerobot.policies import make_policy

    from tools.speed.fixtures import record

    pretrained = folder / "pretrained"
    build(run, True, device, folder).save_pretrained(pretrained)
    root = record(folder / "video", run.pixels, run.pixels, episodes=4, seconds=5, labelled=True)
    meta = LeRobotDatasetMetadata("bench/video", root=root)
    config_class = policy_class_of(run, True).config_class
    policies = {}
    for name in ("plain", "video"):
        config = config_class.from_pretrained(pretrained)
        config.stage, config.pretrained_path = "finetune", pretrained
        config.input_features = {}
        if name == "video":
            config.video.repo_id, config.video.root, config.video.num_workers = "bench/video", root, 1
        policies[name] = make_policy(config, ds_meta=meta)
    batch = random_batch(policies["plain"].config, run, device)
    steps = {name: training_step(policy, batch, run.bf16) for name, policy in policies.items()}
    times = interleaved(steps, run.turns)
    return ratio(times["video"], times["plain"])


def measure_pictures(run: Run, device: str, folder: Path) -> dict[str, dict[str, float]]:
    """Time of a training with pictures, or uses of the inputs, over that of one without, by stage.

    A picture takes turns with a step, and its share is that of one picture in ``picture_freq`` steps; of the uses, of as
    many batches as they are measured on.
    """
    from lawm_lerobot.policies.common.watching import BATCHES, TrainingWatch

    policy_class = policy_class_of(run, True)
    pretraining = build(run, True, device, folder)
    plain = build(run, False, device, folder)
    settings = {f.name: getattr(plain.config, f.name) for f in fields(plain.config) if f.init}
    finetuning = policy_class(policy_class.config_class(stage="finetune", **settings)).to(device)
    found = {}
    for stage, policy, times in (("pretraining", pretraining, 1), ("finetuning", finetuning, BATCHES)):
        batch = random_batch(policy.config, run, device)
        watch = TrainingWatch(policy, trained=False)
        watch.run, watch.frequency = SimpleNamespace(output_dir=folder), 1

        def picture(watch: Any = watch, policy: Any = policy, batch: Any = batch) -> None:
            watch.begin(policy, batch)

        seconds = interleaved({"step": training_step(policy, batch, run.bf16), "picture": picture}, run.turns)
        every = policy.config.picture_freq / times
        with_pictures = [
            step + one / every for step, one in zip(seconds["step"], seconds["picture"], strict=True)
        ]
        assert watch.frequency, "no picture was drawn"
        found[stage] = ratio(with_pictures, seconds["step"])
    return found


def peak_of_steps(run: Run, pretraining: bool, device: str, folder: str) -> dict[str, float]:
    """Peak memory of this process after some training steps, for `in_fresh_process`."""
    use_threads(device)
    policy_class_of(run, pretraining)
    imports = peak_bytes(device)
    policy = build(run, pretraining, device, Path(folder))
    step = training_step(policy, random_batch(policy.config, run, device), run.bf16)
    for _ in range(3):
        step()
    return memory_entry(device, imports)
