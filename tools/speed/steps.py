"""What pretraining costs: its step beside an imitation step of the same policy, and the RSSM beside the authors'.

    python -m tools.speed --only=steps,rssm

Both policies train turn by turn in one process, so that a busy machine slows both. Peak memory is that of a fresh
process for each. LeRobot is imported only where a policy is built, so that it does not count into the RSSM's memory.
"""

from __future__ import annotations

import multiprocessing
import re
import resource
import sys
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from lawm_lerobot.method.configuration import RSSMConfig, WorldModelConfig
from lawm_lerobot.method.latent_action import BOTH, INVERSE_DYNAMICS, POLICY, LatentActionConfig
from tools.speed.bench import THREADS, figure
from tools.speed.timing import interleaved, ratio, spread

CAMERA = "observation.images.front"
JOINTS = 6  # of an SO-101
TOKENS = 16  # of a short instruction
GB = 1e9

#: The pretraining step over the imitation step, at most.
ACT_TARGET, VLA_TARGET = 1.5, 1.2

#: A batch of 8 clips of 10 frames of 128 pixels, forward and backward in float32 with two threads.
RSSM_BATCH, RSSM_FRAMES, RSSM_PIXELS = 8, 10, 128
#: The authors' code, measured on another two-core machine.
AUTHORS: dict[str, dict[str, float]] = {
    "27m": {"parameters": 28.9e6, "seconds": 1.3},
    "106m": {"parameters": 115.7e6, "seconds": 4.95, "peak_gb": 2.6},
}
RSSM_TARGETS = {"27m": 0.45, "106m": 1.6}  # seconds
RSSM_MEMORY_TARGET = 0.5  # of the authors'


@dataclass(frozen=True)
class Run:
    """A plain LeRobot policy that imitates, and the same policy that pretrains.

    Args:
        policy: The plain type.
        source: Of the latents.
        world_model, size: Of pretraining.
        batch: Samples of imitation, and clips of pretraining.
        turns: Steps of each that are timed.
        bf16: Both under autocast.
        compiled: With ``compile_model``, whichever of the two has it.
        target: The pretraining step over the imitation step, at most.
        pixels: Height and width of the pictures.
        fields: Of both configs, LeRobot's defaults otherwise.
    """

    policy: str
    source: str = INVERSE_DYNAMICS
    world_model: str = "recurrent"
    size: str = "2m"
    batch: int = 8
    turns: int = 12
    bf16: bool = False
    compiled: bool = False
    target: float | None = None
    pixels: int = 128
    fields: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        extras = [f"{name} {value}" for name, value in self.fields.items()]
        extras += [name for name in ("bf16", "compiled") if getattr(self, name)]
        return ", ".join([f"lawm_{self.policy}", self.source, f"{self.world_model} {self.size}", *extras])


def plan(quick: bool, device: str) -> list[Run]:
    """The rows: sources, world models and policies one at a time, around the default pretraining of ACT."""
    turns = 3 if quick else 12
    default = Run("act", turns=turns, target=ACT_TARGET)
    act = replace(default, target=None)
    rows = [default, replace(act, source=POLICY), replace(act, source=BOTH)]
    if quick:
        return rows
    for world_model, size in (("recurrent", "8m"), ("recurrent", "17m"), ("rssm", "3m"), ("rssm", "12m")):
        rows.append(replace(act, world_model=world_model, size=size))
    rows.append(replace(act, source=POLICY, world_model="rssm", size="3m"))
    # A plain ACT imitates 100 actions, more than there are latents: with as many, what the world model adds is bare.
    latents = LatentActionConfig().horizon
    rows.append(replace(act, fields={"chunk_size": latents, "n_action_steps": latents}))
    gpu = device == "cuda"
    smolvla = Run("smolvla", batch=8 if gpu else 2, turns=12 if gpu else 4, target=VLA_TARGET)
    rows += [Run("diffusion", turns=12 if gpu else 5), smolvla]
    if gpu:
        rows += [replace(act, bf16=True), replace(smolvla, bf16=True)]
        rows += [replace(act, compiled=True), replace(act, compiled=True, bf16=True)]
    return rows


def bench_steps(quick: bool = False, device: str = "cpu") -> dict[str, Any]:
    """Seconds and peak memory of pretraining steps over those of imitation steps.

    Args:
        quick: ACT with each source only, few turns.
        device: ``cpu`` or ``cuda``.

    Returns:
        ``device``, ``threads``, ``rows`` (see `measure`) and ``ratios``, a `figure` of each row's time and memory.
    """
    _use_threads(device)
    rows: list[dict[str, Any]] = []
    ratios: list[dict[str, Any]] = []
    peaks: dict[tuple, dict[str, float]] = {}  # of imitation, which is the same for many rows
    with tempfile.TemporaryDirectory() as folder:
        for run in tqdm(plan(quick, device), desc="steps", leave=False):
            row = measure(run, device, Path(folder))
            imitation = (run.policy, run.batch, run.bf16, run.compiled, *run.fields.items())
            if imitation not in peaks:
                peaks[imitation] = in_fresh_process(peak_of_steps, run, False, device, folder)
            row["memory"] = {
                "imitation": peaks[imitation],
                "pretraining": in_fresh_process(peak_of_steps, run, True, device, folder),
            }
            memory = row["memory"]["pretraining"]["peak_gb"] / row["memory"]["imitation"]["peak_gb"]
            rows.append(row)
            ratios.append(figure(f"{run}: pretraining step over imitation step", row["ratio"], run.target))
            ratios.append(figure(f"{run}: peak memory over imitation's", round(memory, 3)))
        default = plan(quick, device)[0]
        finetuning = measure_finetuning(default, device, Path(folder))
        ratios.append(figure(f"lawm_{default.policy}: finetuning step over imitation step", finetuning))
    return {"device": device, "threads": torch.get_num_threads(), "rows": rows, "ratios": ratios}


def measure(run: Run, device: str, folder: Path) -> dict[str, Any]:
    """Time both kinds of step of a row, in turn.

    The latents' health, measured at every `health_freq`-th step, falls into the warm-up and is not in the figures.

    Returns:
        the row; ``parameters`` of both; ``imitation_s`` and ``pretraining_s``, `spread`s of seconds; and ``ratio``, the
        latter over the former.
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
        "parameters": {name: _count(policy) for name, policy in policies.items()},
        **{f"{name}_s": spread(seconds) for name, seconds in times.items()},
        "ratio": ratio(times["pretraining"], times["imitation"]),
    }


def measure_finetuning(run: Run, device: str, folder: Path) -> dict[str, float]:
    """`ratio` of the wrapped policy's finetuning step to the plain one's: one network, stepped by a fused optimizer."""
    plain = build(run, False, device, folder)
    settings = {f.name: getattr(plain.config, f.name) for f in fields(plain.config) if f.init}
    wrapped_class = _policy_class(run, True)
    wrapped = wrapped_class(wrapped_class.config_class(stage="finetune", **settings)).to(device)
    batch = random_batch(plain.config, run, device)
    steps = {
        name: training_step(policy, batch, run.bf16) for name, policy in (("plain", plain), ("ours", wrapped))
    }
    times = interleaved(steps, run.turns)
    return ratio(times["ours"], times["plain"])


def peak_of_steps(run: Run, pretraining: bool, device: str, folder: str) -> dict[str, float]:
    """Peak memory of this process after some training steps, for `in_fresh_process`."""
    _use_threads(device)
    _policy_class(run, pretraining)
    imports = peak_bytes(device)
    policy = build(run, pretraining, device, Path(folder))
    step = training_step(policy, random_batch(policy.config, run, device), run.bf16)
    for _ in range(3):
        step()
    return {"peak_gb": round(peak_bytes(device) / GB, 3), "of_which_imports_gb": round(imports / GB, 3)}


# --- a policy, its batch and its step -------------------------------------------------------------------


def _choice(name: str) -> Any:
    """The config class registered as ``name``."""
    from lerobot.configs import PreTrainedConfig
    from lerobot.policies import ACTConfig  # noqa: F401  registers LeRobot's own

    import lawm_lerobot.policies  # noqa: F401

    return PreTrainedConfig.get_choice_class(name)


def _policy_class(run: Run, pretraining: bool) -> Any:
    from lerobot.policies import get_policy_class

    name = f"lawm_{run.policy}" if pretraining else run.policy
    _choice(name)
    return get_policy_class(name)


def build(run: Run, pretraining: bool, device: str, folder: Path) -> Any:
    """The policy with random weights, wrapped or plain; ``folder`` takes what a backbone's config needs on disk."""
    from lerobot.configs import FeatureType, PolicyFeature
    from lerobot.utils.constants import ACTION, OBS_STATE

    settings: dict[str, Any] = {**run.fields, "device": device}
    if run.policy == "smolvla":
        settings |= {"vlm_model_name": str(smolvlm(folder / "smolvlm")), "load_vlm_weights": False}
    else:
        settings["pretrained_backbone_weights"] = None
    latents = LatentActionConfig(source=run.source)
    if pretraining:
        world_model = WorldModelConfig.get_choice_class(run.world_model)(size=run.size)
        settings |= {"latent_action": latents, "world_model": world_model}
    policy_class = _policy_class(run, pretraining)
    if run.compiled and hasattr(policy_class.config_class, "compile_model"):
        settings["compile_model"] = True
    config = policy_class.config_class(
        input_features={
            OBS_STATE: PolicyFeature(FeatureType.STATE, (JOINTS,)),
            CAMERA: PolicyFeature(FeatureType.VISUAL, (3, run.pixels, run.pixels)),
        },
        output_features={
            ACTION: PolicyFeature(FeatureType.ACTION, (latents.dim if pretraining else JOINTS,))
        },
        **settings,
    )
    return policy_class(config).to(device)


def random_batch(config: Any, run: Run, device: str) -> dict[str, Any]:
    """As LeRobot's loader and preprocessor hand it to a policy of this config, with random numbers."""
    from lerobot.utils.constants import ACTION, OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS

    batch: dict[str, Any] = {"task": ["Pick up the cube."] * run.batch}
    seen = config.observation_delta_indices
    leading = (run.batch,) if seen is None else (run.batch, len(seen))
    for key, feature in config.input_features.items():
        batch[key] = torch.rand(*leading, *feature.shape, device=device)
        if seen is not None:
            batch[f"{key}_is_pad"] = torch.zeros(leading, dtype=torch.bool, device=device)
    if config.action_delta_indices is not None:
        chunk = (run.batch, len(config.action_delta_indices))
        batch[ACTION] = torch.randn(*chunk, JOINTS, device=device)
        batch[f"{ACTION}_is_pad"] = torch.zeros(chunk, dtype=torch.bool, device=device)
    if run.policy == "smolvla":
        batch[OBS_LANGUAGE_TOKENS] = torch.randint(0, 1000, (run.batch, TOKENS), device=device)
        batch[OBS_LANGUAGE_ATTENTION_MASK] = torch.ones(run.batch, TOKENS, dtype=torch.bool, device=device)
    return batch


def training_step(policy: Any, batch: dict[str, Any], bf16: bool) -> Callable[[], None]:
    """One step as `lerobot-train` takes it, with the policy's own optimizer."""
    preset = policy.config.get_optimizer_preset()
    optimizer = preset.build(policy.get_optim_params())
    device = next(policy.parameters()).device.type

    def step() -> None:
        policy.train()
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            loss, _ = policy.forward(batch)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), preset.grad_clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        loss.item(), norm.item()  # for the log

    return step


def smolvlm(folder: Path) -> Path:
    """Config and processor of SmolVLM2-500M's dimensions in ``folder``, without weights.

    Of its 32 text layers there are the 16 that SmolVLA keeps: it would build the others only to drop them.
    """
    if folder.exists():
        return folder
    from tokenizers import Tokenizer, models
    from transformers import (
        PreTrainedTokenizerFast,
        SmolVLMConfig,
        SmolVLMImageProcessor,
        SmolVLMProcessor,
    )
    from transformers.models.smolvlm.video_processing_smolvlm import SmolVLMVideoProcessor

    named = {
        "image_token": "<image>",
        "fake_image_token": "<fake>",
        "global_image_token": "<global>",
        "end_of_utterance_token": "<end>",
    }
    words = ["<pad>", "<s>", "</s>", *named.values()]
    vocabulary = models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<pad>")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(vocabulary),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens=named,
    )
    SmolVLMProcessor(
        image_processor=SmolVLMImageProcessor(),
        tokenizer=tokenizer,
        video_processor=SmolVLMVideoProcessor(),
    ).save_pretrained(folder)
    dimensions: dict[str, Any] = {
        "image_token_id": words.index("<image>"),
        "pad_token_id": words.index("<pad>"),
        "scale_factor": 4,
        "text_config": {
            "model_type": "llama",
            "vocab_size": 49280,
            "hidden_size": 960,
            "intermediate_size": 2560,
            "num_hidden_layers": 16,
            "num_attention_heads": 15,
            "num_key_value_heads": 5,
            "head_dim": 64,
        },
        "vision_config": {
            "image_size": 512,
            "patch_size": 16,
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
        },
    }
    SmolVLMConfig(**dimensions).save_pretrained(folder)
    return folder


# --- the RSSM -------------------------------------------------------------------------------------------


def bench_rssm(quick: bool = False, device: str = "cpu") -> dict[str, Any]:
    """Seconds and peak memory of the RSSM's forward and backward pass, beside the authors'.

    Args:
        quick: The smaller size only, few turns.
        device: ``cpu`` or ``cuda``; the authors' figures are of the CPU, so a GPU's stand alone.

    Returns:
        ``device``, ``passes`` (see `rssm_pass`), ``authors`` and ``ratios``.
    """
    passes: dict[str, dict[str, Any]] = {}
    ratios: list[dict[str, Any]] = []
    sizes = ("27m",) if quick else ("27m", "106m")
    for size in tqdm(sizes, desc="rssm", leave=False):
        name = f"rssm {size}"
        found = passes[name] = in_fresh_process(rssm_pass, size, device, 3 if quick else 9)
        drawn = in_fresh_process(decoding, size, device, 3 if quick else 9)
        frames = RSSMConfig().decoded_frames
        ratios.append(figure(f"{name}: decoding {frames} frames of a clip over decoding all", drawn))
        what, seconds = f"{name}: forward and backward", found["seconds"]
        if device != "cpu":
            ratios.append(figure(what, seconds, unit="s"))
            continue
        authors = AUTHORS[size]
        over = {key: round(seconds[key] / authors["seconds"], 3) for key in ("median", "q1", "q3")}
        ratios.append(figure(f"{what}, over the authors' {authors['seconds']} s", over))
        ratios.append(figure(what, seconds, RSSM_TARGETS[size], unit="s"))
        if "peak_gb" in authors:
            memory = round(found["peak_gb"] / authors["peak_gb"], 3)
            over_theirs = f"{name}: peak memory, over the authors' {authors['peak_gb']} GB"
            ratios.append(figure(over_theirs, memory, RSSM_MEMORY_TARGET))
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
        ``parameters``, counted; ``seconds``, a `spread`; ``peak_gb``, of which ``of_which_imports_gb`` before the model;
        and ``threads``.
    """
    _use_threads(device)
    imports = peak_bytes(device)
    model, forward_and_backward = rssm(RSSMConfig(size=size, image_size=pixels), device, batch)
    times = interleaved({"pass": forward_and_backward}, turns)["pass"]
    return {
        "parameters": _count(model),
        "seconds": spread(times),
        "peak_gb": round(peak_bytes(device) / GB, 3),
        "of_which_imports_gb": round(imports / GB, 3),
        "threads": torch.get_num_threads(),
    }


def decoding(size: str, device: str, turns: int) -> dict[str, float]:
    """`ratio` of the pass of `rssm_pass`, which decodes some frames of each clip, to one that decodes all of them."""
    _use_threads(device)
    some = RSSMConfig(size=size, image_size=RSSM_PIXELS)
    every = replace(some, decoded_frames=0)
    passes = {name: rssm(config, device)[1] for name, config in (("some", some), ("all", every))}
    times = interleaved(passes, turns)
    return ratio(times["some"], times["all"])


def rssm(
    config: RSSMConfig, device: str, batch: int = RSSM_BATCH
) -> tuple[torch.nn.Module, Callable[[], None]]:
    """A world model, and what runs it forward and back on a random batch."""
    dim, pixels = LatentActionConfig().dim, config.image_size
    model = config.build(dim, RSSM_FRAMES - 1).to(device)
    frames = torch.rand(batch, RSSM_FRAMES, 3, pixels, pixels, device=device)  # (B,T,C,h,w)
    latents = torch.randn(batch, RSSM_FRAMES - 1, dim, device=device, requires_grad=True)  # (B,H,Z)
    valid = torch.ones(batch, RSSM_FRAMES - 1, dtype=torch.bool, device=device)  # (B,H)

    def forward_and_backward() -> None:
        model.zero_grad()
        model(frames, latents, valid).loss.backward()

    return model, forward_and_backward


# --- processes and memory -------------------------------------------------------------------------------


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """What ``function`` returns in a process that has done nothing else."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def peak_bytes(device: str) -> int:
    """The most memory that this process has held: allocated on the GPU, or resident on the host."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():  # On Linux a child's ru_maxrss starts at what its parent held.
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        if found:
            return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _use_threads(device: str) -> None:
    if device == "cpu":
        torch.set_num_threads(THREADS)


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
