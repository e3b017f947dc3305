"""What a pretraining checkpoint imagines: figures and pictures from its world model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from lerobot.configs import PreTrainedConfig
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.factory import resolve_delta_timestamps
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies import get_policy_class, make_pre_post_processors
from torch import Tensor

import lawm_lerobot.policies  # noqa: F401  registers the types that a checkpoint may be of
from lawm_lerobot.method.latent_action import POLICY
from lawm_lerobot.policies.common.configuration import LawmConfig
from lawm_lerobot.policies.common.policy import LawmPolicy

Preprocessor = Callable[[dict[str, Any]], dict[str, Any]]


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


def load_pretraining_checkpoint(
    path: str | Path, overrides: Sequence[str] = ()
) -> tuple[LawmPolicy, Preprocessor]:
    """The policy, in evaluation mode, and its preprocessor.

    Args:
        path: Directory or Hub id.
        overrides: Flags of the policy's config, without ``--policy.`` (``--device=cpu``).

    Raises:
        ValueError: If the checkpoint is not one of pretraining.
    """
    config = PreTrainedConfig.from_pretrained(path, cli_overrides=list(overrides))
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


def open_clips(config: LawmConfig, repo_id: str, root: Path | None) -> LeRobotDataset:
    """The dataset, each of whose items is a pretraining clip that starts there."""
    meta = LeRobotDatasetMetadata(repo_id, root=root)
    deltas = resolve_delta_timestamps(config, meta)
    return LeRobotDataset(repo_id, root=root, delta_timestamps=deltas, return_uint8=True)


def preprocessed_batches(
    dataset: LeRobotDataset, picks: Sequence[int], preprocessor: Preprocessor, batch_size: int = 32
) -> Iterator[dict[str, Any]]:
    """Preprocessed pretraining batches of the clips that start at given frames of `open_clips`."""
    loader = torch.utils.data.DataLoader(torch.utils.data.Subset(dataset, picks), batch_size=batch_size)
    for batch in loader:
        for key in dataset.meta.camera_keys:
            if batch[key].dtype == torch.uint8:  # from video; pictures come as floats already
                batch[key] = batch[key].float() / 255
        yield preprocessor(batch)


def pretraining_batches(
    policy: LawmPolicy,
    preprocessor: Preprocessor,
    repo_id: str,
    root: Path | None,
    clips: int,
    batch_size: int = 32,
) -> Iterator[dict[str, Any]]:
    """Preprocessed pretraining batches of clips spread evenly over a dataset."""
    dataset = open_clips(policy.config, repo_id, root)
    return preprocessed_batches(dataset, spread(len(dataset), clips), preprocessor, min(batch_size, clips))


def spread(total: int, count: int) -> list[int]:
    """``count`` indices spread evenly over ``range(total)``."""
    # Half a step in from either end: the very first and last frames of a recording are the least typical.
    return ((np.arange(count) + 0.5) * total / count).astype(int).tolist()


@torch.no_grad()
def plan_latents(policy: LawmPolicy, batch: dict[str, Any]) -> Tensor:
    """(B,H,Z): the policy's own latents for x_0 of a preprocessed pretraining batch."""
    seen = policy.policy_batch(batch)
    if policy.differentiable_latents():
        return policy.predict_latents(seen).float()
    # The wrapped policy's own way to act; `LawmPolicy` refuses that to whoever controls something.
    return policy.latents_in(super(LawmPolicy, policy).predict_action_chunk(seen)).float()


@torch.no_grad()
def encode_clips(policy: LawmPolicy, batch: dict[str, Any]) -> Clips:
    """Frames and latents of a preprocessed pretraining batch."""
    clip = policy.clip(batch)
    frames, valid = clip.frames, clip.valid
    planned = plan_latents(policy, batch)
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


def telling_clips(clips: Clips, count: int) -> tuple[Tensor, Tensor]:
    """Indices of clips to show (count,), and of each one's least similar companion among them.

    The first moves most; each further one is, among the half that moves more, the least like those before.
    """
    # Whole clips only: past the episode's end there is nothing real to compare with.
    motion = (clips.frames[:, 1:] - clips.frames[:, :1]).square().mean((1, 2, 3, 4))  # (B)
    motion = motion * clips.valid.all(1)
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
    clips = encode_clips(policy, batch)
    world_model = policy.pretraining.world_model
    chosen, other = telling_clips(clips, rows)
    strips = {"real": clips.frames[chosen]}
    for title, latents in (
        ("imagined, inferred latents", clips.inferred[chosen]),
        ("imagined, policy's plan", clips.planned[chosen]),
        ("imagined, another clip's latents", clips.inferred[other]),
    ):
        if title == "imagined, policy's plan" and policy.config.latent_action.source == POLICY:
            continue
        imagined = world_model.imagine(clips.frames[chosen, 0], latents)  # (rows,H,C,h,w)
        strips[title] = torch.cat([clips.frames[chosen, :1], imagined], 1)
    return draw_strips(strips, frame_titles(policy.config), file)


def frame_titles(config: LawmConfig) -> list[str]:
    """Names of a clip's T frames: seconds where the checkpoint knows its frame rate."""
    step, fps = config.latent_action.stride, config.dataset_fps
    return [f"{k * step / fps:.2f} s" if fps else f"x_{k}" for k in range(config.latent_action.horizon + 1)]


def draw_strips(strips: dict[str, Tensor], columns: Sequence[str], file: Path) -> Path:
    """A picture of clips, one below the other, each as one line of frames per strip.

    Args:
        strips: Title -> frames (rows,T,C,h,w) in [0, 1], the same clips in each.
        columns: Names of the T frames.
        file: PNG to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    stacked = torch.stack(list(strips.values()), 1).float().clamp(0, 1).cpu()  # (rows,strips,T,C,h,w)
    rows, lines, time, _, height, width = stacked.shape
    gap = max(1, height // 16)
    tiles = F.pad(stacked, (0, gap, 0, gap), value=1.0)  # (...,h+gap,w+gap), white
    per_clip = tiles.permute(0, 1, 4, 2, 5, 3).reshape(rows, lines * (height + gap), time * (width + gap), 3)
    per_clip = F.pad(per_clip, (0, 0, 0, 0, 0, 3 * gap), value=1.0)  # more room between clips than within one
    mosaic = per_clip.flatten(0, 1)[: -4 * gap, :-gap].numpy()

    figure, axis = plt.subplots(
        figsize=(1.1 * time + 2.2, 1.1 * time * mosaic.shape[0] / mosaic.shape[1] + 0.3), layout="constrained"
    )
    axis.imshow(mosaic, interpolation="nearest")
    axis.set_xticks((np.arange(time) + 0.5) * (width + gap), columns, fontsize=8)
    tops = np.arange(rows)[:, None] * per_clip.shape[1] + np.arange(lines) * (height + gap)
    axis.set_yticks(tops.flatten() + height / 2, list(strips) * rows, fontsize=8)
    axis.tick_params(length=0, labeltop=True, labelbottom=False)
    axis.spines[:].set_visible(False)
    figure.savefig(file, dpi=100, bbox_inches="tight")
    plt.close(figure)
    return file
