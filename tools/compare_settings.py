"""Compare world models under `latent_action.source=inverse_dynamics`: what their latents know, and what they cost.

    python examples/make_metaworld_dataset.py --tasks=reach-v3,push-v3,drawer-open-v3,door-open-v3,window-open-v3 \\
        --episodes=12 --noise=0.2 --record_executed=true --size=64 --seed=20000 --repo_id=local/probe --root=data/probe
    python tools/compare_world_models.py --root=data/probe --output=docs/results/world_models.json

Trains world model and inverse dynamics without a policy, on nine tenths of the episodes, and measures on the rest:

- open-loop error over that of copying x_0, and over that with another clip's latents;
- R2 of a ridge regression from z_k to the mean true action over its stride, fitted on the training episodes: the
  latents have never seen an action. Once for the action itself, and once for what of it changes within an episode,
  since an effort that is the same throughout a task can be read off what the task looks like;
- milliseconds of CPU time a training step.
"""

import json
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path

import draccus
import numpy as np
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from torch import Tensor
from tqdm import tqdm, trange

from lawm_lerobot.pretraining.latent_action import LatentActionConfig
from lawm_lerobot.pretraining.objective import LatentActionPretraining
from lawm_lerobot.world_models import InverseDynamicsConfig, WorldModelConfig


@dataclass
class CompareConfig:
    root: Path  # of a LeRobotDataset with actions
    output: Path
    repo_id: str = "local/probe"
    models: list[str] = field(default_factory=lambda: ["recurrent/2m", "rssm/3m", "rssm/12m"])  # type/size
    seeds: list[int] = field(default_factory=lambda: [0, 1])
    steps: int = 400
    batch_size: int = 8
    lr: float = 3e-4
    threads: int = 1
    latent_action: LatentActionConfig = field(default_factory=LatentActionConfig)


class Video:
    """A whole dataset in memory, and clips of it."""

    def __init__(self, cfg: CompareConfig) -> None:
        dataset = LeRobotDataset(cfg.repo_id, root=cfg.root, return_uint8=True)
        camera = sorted(dataset.meta.camera_keys)[0]
        frames = [dataset[i][camera] for i in trange(len(dataset), desc="reading")]
        self.frames = torch.stack(frames)  # (N,C,h,w) uint8
        self.actions = torch.tensor(np.array(dataset.hf_dataset["action"]))  # (N,A)
        ends = np.array(dataset.meta.episodes["dataset_to_index"])
        starts = np.array(dataset.meta.episodes["dataset_from_index"])
        episode = np.repeat(np.arange(len(ends)), ends - starts)
        self.end = torch.tensor(ends[episode])  # (N)
        of_episode = torch.tensor(episode)[:, None].expand_as(self.actions)
        means = torch.zeros(len(ends), self.actions.shape[1]).scatter_reduce(
            0, of_episode, self.actions, "mean", include_self=False
        )  # (episodes,A)
        self.changes = self.actions - means[torch.tensor(episode)]  # (N,A)
        self.stride, self.horizon = cfg.latent_action.stride, cfg.latent_action.horizon
        usable = np.arange(len(episode)) + self.stride < ends[episode]
        self.train = np.flatnonzero(usable & (episode % 10 != 9))
        self.test = np.flatnonzero(usable & (episode % 10 == 9))

    def clips(self, first: np.ndarray) -> tuple[Tensor, Tensor]:
        """Clips that start at the given frames: frames (B,T,C,h,w) in [0, 1], valid (B,H)."""
        start = torch.from_numpy(first)
        index = start[:, None] + self.stride * torch.arange(self.horizon + 1)  # (B,T)
        valid = index[:, 1:] < self.end[start][:, None]
        return self.frames[index.clamp_max(self.end[start][:, None] - 1)] / 255, valid

    def over_transition(self, actions: Tensor, first: np.ndarray) -> np.ndarray:
        """Actions (N,A) averaged over the frames of the transitions that start at ``first``: (B,A)."""
        index = torch.from_numpy(first)[:, None] + torch.arange(self.stride)
        return actions[index].mean(1).numpy()


def ridge_r2(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> np.ndarray:
    """R2 per column of y of a linear read-out; a column that does not vary gives 0."""
    x, x_test = (np.column_stack([part, np.ones(len(part))]) for part in (x, x_test))
    weights = np.linalg.solve(x.T @ x + 1e-2 * np.eye(x.shape[1]), x.T @ y)
    total = ((y_test - y_test.mean(0)) ** 2).sum(0)
    return np.where(total > 0, 1 - ((x_test @ weights - y_test) ** 2).sum(0) / np.maximum(total, 1e-12), 0.0)


def run(cfg: CompareConfig, video: Video, model: str, seed: int) -> dict[str, object]:
    kind, size = model.split("/")
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    latent, image_size = cfg.latent_action, video.frames.shape[-1]
    world_model = WorldModelConfig.get_choice_class(kind)(size=size, image_size=image_size)
    objective = LatentActionPretraining(
        latent,
        world_model.build(latent.dim, latent.horizon),
        InverseDynamicsConfig().build(latent.dim, image_size),
    )
    optimizer = torch.optim.AdamW(objective.parameters(), lr=cfg.lr, weight_decay=1e-4)

    def no_policy(latents: Tensor) -> tuple[Tensor, dict]:
        return latents.new_zeros(()), {}

    def no_latents() -> Tensor:
        raise AssertionError("source=inverse_dynamics asks the policy for none")

    begin = time.process_time()
    for _ in trange(cfg.steps, desc=f"{model} seed {seed}"):
        frames, valid = video.clips(rng.choice(video.train, cfg.batch_size))
        loss, _, _ = objective(frames, valid, no_latents, no_policy)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(objective.parameters(), 10.0)
        optimizer.step()
    milliseconds = 1000 * (time.process_time() - begin) / cfg.steps

    objective.eval()

    def first_latents(first: np.ndarray) -> np.ndarray:
        parts = []
        for chunk in np.array_split(first, max(len(first) // 64, 1)):
            with torch.no_grad():
                parts.append(objective.infer_latents(*video.clips(chunk))[:, 0].numpy())
        return np.concatenate(parts)

    fitted = rng.choice(video.train, min(2000, len(video.train)), replace=False)
    latents_fitted, latents_test = first_latents(fitted), first_latents(video.test)

    def probe(actions: Tensor) -> list[float]:
        targets = video.over_transition(actions, fitted), video.over_transition(actions, video.test)
        r2 = ridge_r2(latents_fitted, targets[0], latents_test, targets[1])
        return [round(float(value), 3) for value in r2]

    figures = []
    for chunk in np.array_split(rng.permutation(video.test)[:512], 8):
        frames, valid = video.clips(chunk)
        with torch.no_grad():
            latents = objective.infer_latents(frames, valid)
            output = objective.world_model(frames, latents, valid).metrics
            figures.append({**objective.health(frames, latents, valid), "over_copy": output["mse_over_copy"]})
    return {
        "model": model,
        "seed": seed,
        "cpu_ms_per_step": round(milliseconds),
        **{key: round(float(np.mean([float(row[key]) for row in figures])), 3) for key in figures[0]},
        "action_r2": probe(video.actions),
        "action_r2_within_episode": probe(video.changes),
    }


@draccus.wrap()
def main(cfg: CompareConfig) -> None:
    torch.set_num_threads(cfg.threads)
    video = Video(cfg)
    rows = [run(cfg, video, model, seed) for model in cfg.models for seed in cfg.seeds]
    result = {
        "config": {k: v for k, v in draccus.encode(cfg).items() if k not in ("root", "output")},
        "test_transitions": len(video.test),
        "machine": platform.machine(),
        "torch": torch.__version__,
        "rows": rows,
    }
    cfg.output.parent.mkdir(parents=True, exist_ok=True)
    cfg.output.write_text(json.dumps(result, indent=2) + "\n")
    for row in rows:
        tqdm.write(json.dumps(row))


if __name__ == "__main__":
    main()
