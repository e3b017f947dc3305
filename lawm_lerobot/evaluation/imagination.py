"""What a pretraining checkpoint imagines: figures and pictures from its world model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.datasets.factory import resolve_delta_timestamps
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies import get_policy_class, make_pre_post_processors
from torch import Tensor

import lawm_lerobot.policies  # noqa: F401  registers the types that a checkpoint may be of
from lawm_lerobot.pretraining.configuration import LawmConfig
from lawm_lerobot.pretraining.latent_action import POLICY
from lawm_lerobot.pretraining.policy import LawmPolicy


@dataclass
class Clips:
    """A batch of clips with the latents that belong to them."""

    frames: Tensor
    """(B,T,C,h,w) in [0, 1]"""
    valid: Tensor
    """(B,H) bool"""
    inferred: Tensor
    """(B,H,Z) what drove the world model in pretraining: the inverse dynamics', or the policy's"""
    planned: Tensor
    """(B,H,Z) the policy's own, from x_0 alone"""


def load_pretraining_checkpoint(path: str | Path) -> tuple[LawmPolicy, Any]:
    """The policy, in evaluation mode, and its preprocessor.

    Raises:
        ValueError: If the checkpoint is not one of pretraining.
    """
    config = PreTrainedConfig.from_pretrained(path)
    if not isinstance(config, LawmConfig) or not config.pretraining:
        stage = getattr(config, "stage", "none")
        raise ValueError(
            f"{path} holds a {config.type} policy of stage {stage}, expected a lawm_* pretraining checkpoint: "
            "change --policy.path."
        )
    config.pretrained_path = Path(path)
    policy_class = get_policy_class(config.type)
    policy = policy_class.from_pretrained(path, config=config, allow_pretraining=True)
    preprocessor, _ = make_pre_post_processors(
        config, str(path), preprocessor_overrides={"device_processor": {"device": config.device}}
    )
    return policy, preprocessor


def pretraining_batches(
    policy: LawmPolicy, preprocessor: Any, repo_id: str, root: Path | None, clips: int, batch_size: int = 32
) -> Iterator[dict[str, Any]]:
    """Preprocessed pretraining batches of clips spread evenly over a dataset."""
    meta = LeRobotDataset(repo_id, root=root, return_uint8=True).meta
    dataset = LeRobotDataset(
        repo_id, root=root, delta_timestamps=resolve_delta_timestamps(policy.config, meta), return_uint8=True
    )
    # Half a step in from either end: the very first and last frames of a recording are the least typical.
    picks = ((np.arange(clips) + 0.5) * len(dataset) / clips).astype(int)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.Subset(dataset, picks.tolist()), batch_size=min(batch_size, clips)
    )
    for batch in loader:
        for key in meta.camera_keys:
            batch[key] = batch[key].float() / 255
        yield preprocessor(batch)


@torch.no_grad()
def encode_clips(policy: LawmPolicy, batch: dict[str, Any]) -> Clips:
    """Frames and latents of a preprocessed pretraining batch."""
    frames, valid = policy.clip(batch)
    planned = policy.predict_latents(policy.policy_batch(batch))  # (B,H,Z)
    if policy.config.latent_action.source == POLICY:
        planned = policy.pretraining.latent_norm(planned, valid)
        return Clips(frames, valid, planned, planned)
    return Clips(frames, valid, policy.pretraining.infer_latents(frames, valid), planned)


@torch.no_grad()
def latent_health(policy: LawmPolicy, batches: Iterator[dict[str, Any]]) -> dict[str, float]:
    """`LatentActionPretraining.health` and the world model's error against copying x_0, over batches."""
    rows = []
    for batch in batches:
        clips = encode_clips(policy, batch)
        health = policy.pretraining.health(clips.frames, clips.inferred, clips.valid)
        output = policy.pretraining.world_model(clips.frames, clips.inferred, clips.valid)
        rows.append(
            {k: float(v) for k, v in {**health, "mse_over_copy": output.metrics["mse_over_copy"]}.items()}
        )
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def _telling_clips(clips: Clips, count: int) -> tuple[Tensor, Tensor]:
    """Indices of clips to show (count,), and of each one's least similar companion among them.

    The first moves most; each further one is, among the half that moves more, the least like those before.
    """
    # Whole clips only: past the episode's end there is nothing real to compare with.
    motion = (clips.frames[:, 1:] - clips.frames[:, :1]).square().mean((1, 2, 3, 4)) * clips.valid.all(
        1
    )  # (B)
    movers = motion.argsort(descending=True)[: max(len(motion) // 2, min(count, len(motion)))]
    latents = clips.inferred[movers].flatten(1)  # (movers,H*Z)
    distance = torch.cdist(latents, latents)  # (movers,movers)
    picked = [0]
    while len(picked) < min(count, len(movers)):
        picked.append(int(distance[picked].min(0).values.argmax()))
    companions = distance[picked][:, picked].argmax(1)
    return movers[picked], movers[picked][companions]


@torch.no_grad()
def save_imagination_strip(policy: LawmPolicy, batch: dict[str, Any], file: Path, rows: int = 4) -> Path:
    """Real frames above those imagined from x_0, for clips of a batch that move, and each in its own way.

    Per clip: the real x_0..x_H; imagined from the inferred latents; from the policy's own plan, which has
    seen x_0 only; and from the latents of the shown clip that is least like it, which must look wrong if the
    latents mean anything.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    clips = encode_clips(policy, batch)
    world_model = policy.pretraining.world_model
    chosen, other = _telling_clips(clips, rows)
    strips: list[tuple[str, Tensor]] = []
    for title, latents in (
        ("imagined, inferred latents", clips.inferred[chosen]),
        ("imagined, policy's plan", clips.planned[chosen]),
        ("imagined, another clip's latents", clips.inferred[other]),
    ):
        if title == "imagined, policy's plan" and policy.config.latent_action.source == POLICY:
            continue
        imagined = world_model.imagine(clips.frames[chosen, 0], latents)  # (rows,H,C,h,w)
        strips.append((title, torch.cat([clips.frames[chosen, :1], imagined], 1)))
    strips.insert(0, ("real", clips.frames[chosen]))

    horizon = clips.frames.shape[1] - 1
    step = policy.config.latent_action.stride / (policy.config.dataset_fps or 1)
    lines = len(chosen) * len(strips)
    figure, axes = plt.subplots(
        lines,
        horizon + 1,
        figsize=(1.1 * (horizon + 1) + 2, 1.1 * lines),
        squeeze=False,
        layout="constrained",
    )
    for clip in range(len(chosen)):
        for strip, (title, frames) in enumerate(strips):
            for k in range(horizon + 1):
                axis = axes[clip * len(strips) + strip][k]
                axis.imshow(frames[clip, k].clamp(0, 1).permute(1, 2, 0).cpu().numpy())
                axis.set_xticks([])
                axis.set_yticks([])
                if clip == strip == 0:
                    axis.set_title(f"{k * step:.2f} s" if policy.config.dataset_fps else f"x_{k}", fontsize=8)
            axes[clip * len(strips) + strip][0].set_ylabel(
                title, rotation=0, ha="right", va="center", fontsize=8
            )
    figure.savefig(file, dpi=100)
    plt.close(figure)
    return file
