"""Cost of the RSSM: its forward and backward pass beside the authors', and beside one that decodes every frame.

    python -m tools.speed --only=rssm

Nothing here imports LeRobot, so that it does not count into the RSSM's memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from tqdm import tqdm

from lawm_lerobot.method.configuration import RSSMConfig
from lawm_lerobot.method.latent_action import LatentActionConfig
from lawm_lerobot.processes import peak_bytes
from tools.speed.processes import in_fresh_process, memory_entry, use_threads
from tools.speed.table import row
from tools.speed.timing import interleaved, ratio, spread

#: A batch of 8 clips of 10 frames of 128 pixels, forward and backward in float32 with two threads.
RSSM_BATCH, RSSM_FRAMES, RSSM_PIXELS = 8, 10, 128
#: The authors' code, measured on another two-core machine.
AUTHORS: dict[str, dict[str, float]] = {
    "27m": {"parameters": 28.9e6, "seconds": 1.3},
    "106m": {"parameters": 115.7e6, "seconds": 4.95, "peak_gb": 2.6},
}
RSSM_TARGETS = {"27m": 0.45, "106m": 1.6}  # seconds
RSSM_MEMORY_TARGET = 0.5  # of the authors'


def bench_rssm(quick: bool = False, device: str = "cpu") -> dict[str, Any]:
    """Seconds and peak memory of the RSSM's forward and backward pass, beside the authors'.

    Args:
        quick: The smaller size only, few turns.
        device: ``cpu`` or ``cuda``; the authors' seconds are of the CPU, so a GPU's stand alone.

    Returns:
        ``device``, ``passes`` (see `rssm_pass`), ``authors`` and ``ratios``.
    """
    passes: dict[str, dict[str, Any]] = {}
    ratios: list[dict[str, Any]] = []
    sizes = ("27m",) if quick else ("27m", "106m")
    for size in tqdm(sizes, desc="rssm", leave=False):
        name = f"rssm {size}"
        found = passes[name] = in_fresh_process(rssm_pass, size, device, 3 if quick else 9)
        drawn = in_fresh_process(decoding_ratio, size, device, 3 if quick else 9)
        frames = RSSMConfig().decoded_frames
        ratios.append(row(f"{name}: decoding {frames} frames of a clip over decoding all", drawn))
        what, seconds = f"{name}: forward and backward", found["seconds"]
        if device != "cpu":
            ratios.append(row(what, seconds, unit="s"))
            continue
        authors = AUTHORS[size]
        over = {key: round(seconds[key] / authors["seconds"], 3) for key in ("median", "q1", "q3")}
        ratios.append(row(f"{what}, over the authors' {authors['seconds']} s", over))
        ratios.append(row(what, seconds, RSSM_TARGETS[size], unit="s"))
        if "peak_gb" in authors:
            memory = round(found["peak_gb"] / authors["peak_gb"], 3)
            over_theirs = f"{name}: peak memory, over the authors' {authors['peak_gb']} GB"
            ratios.append(row(over_theirs, memory, RSSM_MEMORY_TARGET))
    return {
        "device": device,
        "passes": passes,
        "authors": {"where": "the authors' code, measured on another two-core machine", **AUTHORS},
        "ratios": ratios,
    }


def rssm_pass(
    size: str,
    device: str,
    turns: int,
    batch: int = RSSM_BATCH,
    pixels: int = RSSM_PIXELS,
) -> dict[str, Any]:
    """Time a world model alone, for `in_fresh_process`: float32, latents with gradient.

    Returns:
        ``parameters``, their number; ``seconds``, a `spread`; ``peak_gb``, of which ``of_which_imports_gb`` were there
        before the model; and ``threads``.
    """
    use_threads(device)
    imports = peak_bytes(device)
    model, forward_and_backward = rssm(RSSMConfig(size=size, image_size=pixels), device, batch)
    times = interleaved({"pass": forward_and_backward}, turns)["pass"]
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seconds": spread(times),
        **memory_entry(device, imports),
        "threads": torch.get_num_threads(),
    }


def decoding_ratio(size: str, device: str, turns: int) -> dict[str, float]:
    """`ratio` of the pass of `rssm_pass`, which decodes some frames of each clip, to one that decodes all."""
    use_threads(device)
    some = RSSMConfig(size=size, image_size=RSSM_PIXELS)
    every = replace(some, decoded_frames=0)
    passes = {name: rssm(config, device)[1] for name, config in (("some", some), ("all", every))}
    times = interleaved(passes, turns)
    return ratio(times["some"], times["all"])


def rssm(
    config: RSSMConfig, device: str, batch: int = RSSM_BATCH
) -> tuple[torch.nn.Module, Callable[[], None]]:
    """A world model, and a function that runs it forward and back on a random batch."""
    dim, pixels = LatentActionConfig().dim, config.image_size
    model = config.build(dim, RSSM_FRAMES - 1).to(device)
    frames = torch.rand(batch, RSSM_FRAMES, 3, pixels, pixels, device=device)  # (B,T,C,h,w)
    latents = torch.randn(batch, RSSM_FRAMES - 1, dim, device=device, requires_grad=True)  # (B,H,Z)
    valid = torch.ones(batch, RSSM_FRAMES - 1, dtype=torch.bool, device=device)  # (B,H)

    def forward_and_backward() -> None:
        model.zero_grad()
        model(frames, latents, valid).loss.backward()

    return model, forward_and_backward
