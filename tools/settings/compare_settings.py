"""Compare settings of latent learning: what latents know, what they cost, and what they are worth to an imitator.

    python examples/make_metaworld_dataset.py --tasks=reach-v3,push-v3,drawer-open-v3,door-open-v3,window-open-v3 \\
        --episodes=12 --noise=0.2 --record_executed=true --size=64 --seed=20000 --repo_id=local/probe --root=data/probe
    python tools/settings/compare_settings.py --root=data/probe --output=docs/results/settings.json
    python tools/settings/compare_settings.py --root=data/probe --output=docs/results/world_models.json \\
        --settings='["default", "world_model.type=rssm world_model.size=3m"]'

A setting is what differs from the defaults. Each trains world model and inverse dynamics, and a small policy that imitates
the latents, on nine tenths of the episodes; with `latent_action.source=policy` the latents are the policy's, and there is no
inverse dynamics. It measures on the rest:

- open-loop error over that of copying x_0, and over that with another clip's latents;
- R2 of a ridge regression from z_k to the mean true action over its stride, fitted on the training episodes: the
  latents have never seen an action. Once for the action itself; once for what of it changes within an episode,
  since an effort that is the same throughout a task can be read off what the task looks like; and once for the action
  with two labelled episodes of each task only, the penalty cross-validated over them;
- R2 of the policy's latents, from x_0 alone, mean over the dimensions;
- imitation error: the policy's trunk and a new head learn the coming actions from those labelled episodes. Mean absolute
  error over the actions' standard deviation; and that from random weights, trained for as many steps as both trainings
  have together;
- milliseconds of CPU time a training step.

With `new_tasks=[3]` there is no video of that task to pretrain on; imitation is of it alone, and all is measured on the
episodes of it that are not labelled.

An interrupted comparison goes on with the settings that are not in the output yet. At the end a table is printed, the
seeds' figures side by side.
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
from torch import Tensor, nn
from tqdm import tqdm, trange

from lawm_lerobot.method.clip import Clip
from lawm_lerobot.method.configuration import InverseDynamicsConfig, WorldModelConfig
from lawm_lerobot.method.frames import resize_frames
from lawm_lerobot.method.latent_action import INVERSE_DYNAMICS, LATENT_MODELS, POLICY, LatentActionConfig
from lawm_lerobot.method.networks import ConvEncoder, NormedLinear, as_images, masked_mean
from lawm_lerobot.method.objective import LatentActionPretraining
from lawm_lerobot.statistics.ridge import fit_ridge, r2_per_dimension

POLICY_SIZE = 64  # pixels that the imitating policy sees, whatever the world model does
CHUNK = 8  # actions that it is finetuned to predict

DEFAULT = "default"
SETTINGS = (
    DEFAULT,
    "latent_action.dim=4",
    "latent_action.dim=16",
    "latent_action.horizon=4",
    "latent_action.stride=2",
    "latent_action.stride=8",
    "latent_action.noise=0",
    "latent_action.noise=0.3",
    "idm.random_shift=0",
    "latent_action.unshifted_targets=false",
    "idm.context=0",
    "world_model.image_size=32",
    "world_model.motion_weight=0",
    "world_model.type=rssm world_model.size=3m",
)


@dataclass
class CompareConfig:
    root: Path  # of a LeRobotDataset with actions
    output: Path
    repo_id: str = "local/probe"
    settings: list[str] = field(default_factory=lambda: list(SETTINGS))
    seeds: list[int] = field(default_factory=lambda: [0, 1])
    steps: int = 400
    finetuning_steps: int = 300
    batch_size: int = 8
    lr: float = 3e-4
    threads: int = 1


@dataclass
class Setting:
    """The part of a policy's configuration that latent learning depends on, and tasks that are new after it."""

    latent_action: LatentActionConfig = field(default_factory=LatentActionConfig)
    world_model: WorldModelConfig = field(default_factory=WorldModelConfig.default)
    idm: InverseDynamicsConfig = field(default_factory=InverseDynamicsConfig)
    new_tasks: list[int] = field(default_factory=list)

    @classmethod
    def parse(cls, text: str) -> "Setting":
        """``latent_action.dim=4 idm.context=0``, or ``default``."""
        flags = [] if text == DEFAULT else [f"--{flag}" for flag in text.split()]
        return draccus.parse(cls, args=flags)


class Video:
    """A whole dataset in memory, and clips of it."""

    def __init__(self, cfg: CompareConfig) -> None:
        dataset = LeRobotDataset(cfg.repo_id, root=cfg.root)
        camera = sorted(dataset.meta.camera_keys)[0]
        frames = [dataset[i][camera] for i in trange(len(dataset), desc="reading")]
        self.frames = (torch.stack(frames) * 255).round().to(torch.uint8)  # (N,C,h,w)
        self.actions = torch.tensor(np.array(dataset.hf_dataset["action"]))  # (N,A)
        ends = np.array(dataset.meta.episodes["dataset_to_index"])
        starts = np.array(dataset.meta.episodes["dataset_from_index"])
        episode = np.repeat(np.arange(len(ends)), ends - starts)
        self.episode, self.end = episode, torch.tensor(ends[episode])  # (N), (N)
        of_episode = torch.tensor(episode)[:, None].expand_as(self.actions)
        means = torch.zeros(len(ends), self.actions.shape[1]).scatter_reduce(
            0, of_episode, self.actions, "mean", include_self=False
        )  # (episodes,A)
        self.changes = self.actions - means[torch.tensor(episode)]  # (N,A)
        spread = self.actions.std(0).clamp_min(1e-6)  # (A)
        self.standardised = (self.actions - self.actions.mean(0)) / spread  # (N,A)
        self.task = np.array(dataset.hf_dataset["task_index"])  # (N)
        # The first two episodes of each task.
        self.labelled = np.concatenate(
            [np.unique(episode[self.task == task])[:2] for task in np.unique(self.task)]
        )

    def use(self, setting: Setting) -> None:
        """Split the frames that can start a clip: every tenth episode is for the test, or what is new.

        Raises:
            SystemExit: If a new task is not in the dataset, or no other is.
        """
        unknown = set(setting.new_tasks) - set(self.task.tolist())
        if unknown or set(setting.new_tasks) == set(self.task.tolist()):
            raise SystemExit(
                f"new_tasks={setting.new_tasks}: this dataset has the tasks 0 to {self.task.max()}."
            )
        self.stride, self.horizon = setting.latent_action.stride, setting.latent_action.horizon
        usable = np.arange(len(self.episode)) + self.stride < self.end.numpy()
        labelled = np.isin(self.episode, self.labelled)
        held_out = self.episode % 10 == 9
        seen = ~held_out
        if setting.new_tasks:
            new = np.isin(self.task, setting.new_tasks)
            labelled, held_out, seen = new & labelled, new & ~labelled, ~new
        self.train = np.flatnonzero(usable & seen)
        self.test = np.flatnonzero(usable & held_out)
        self.few = np.flatnonzero(usable & labelled)

    def clips(self, first: np.ndarray, size: int) -> tuple[Tensor, Tensor]:
        """Clips that start at the given frames: frames (B,T,C,size,size) in [0, 1], valid (B,H)."""
        start = torch.from_numpy(first)
        index = start[:, None] + self.stride * torch.arange(self.horizon + 1)  # (B,T)
        valid = index[:, 1:] < self.end[start][:, None]
        frames = self.frames[index.clamp_max(self.end[start][:, None] - 1)] / 255  # (B,T,C,h,w)
        if frames.shape[-1] != size:
            frames = resize_frames(frames.flatten(0, 1), (size, size)).unflatten(0, frames.shape[:2])
        return frames, valid

    def over_transition(self, actions: Tensor, first: np.ndarray) -> np.ndarray:
        """Actions (N,A) averaged over the frames of the transitions that start at ``first``: (B,A)."""
        index = torch.from_numpy(first)[:, None] + torch.arange(self.stride)
        return actions[index].mean(1).numpy()

    def next_actions(self, first: np.ndarray) -> tuple[Tensor, Tensor]:
        """Standardised actions of the frames from ``first`` on: (B,CHUNK,A), and which of them there are: (B,CHUNK)."""
        start = torch.from_numpy(first)
        index = start[:, None] + torch.arange(CHUNK)  # (B,CHUNK)
        end = self.end[start][:, None]  # (B,1)
        return self.standardised[index.clamp_max(end - 1)], index < end


class ImitatingPolicy(nn.Module):
    """A small stand-in for the policy: x_0 -> a chunk of latents or actions, learned by ACT's L1 loss."""

    def __init__(self, dim: int, horizon: int) -> None:
        super().__init__()
        encoder = ConvEncoder(16, POLICY_SIZE)
        self.trunk = nn.Sequential(encoder, NormedLinear(encoder.features, 256))
        self.head = nn.Sequential(nn.Linear(256, horizon * dim), nn.Unflatten(1, (horizon, dim)))

    def forward(self, first: Tensor) -> Tensor:
        """(B,C,h,w) in [0, 1] -> (B,H,Z)."""
        return self.head(self.trunk(as_images(first.unsqueeze(1))))

    def imitation_loss(self, first: Tensor, chunk: Tensor, valid: Tensor) -> Tensor:
        """(B,C,h,w), (B,H,Z), (B,H) -> ()."""
        return masked_mean((self(first) - chunk).abs().mean(-1), valid)


def pretraining_loss(
    objective: LatentActionPretraining, policy: ImitatingPolicy, clip: Clip, first: Tensor
) -> Tensor:
    """The whole loss () of a training step, with x_0 (B,C,h,w) as the policy sees it."""
    loss = clip.frames.new_zeros(())
    for model in LATENT_MODELS[objective.config.source]:
        if model == POLICY:
            latents = objective.policy_latents(policy(first), clip.valid)  # (B,H,Z)
        else:
            latents = objective.infer_latents(clip.frames, clip.valid)  # (B,H,Z)
        loss = loss + objective.world_model_loss(clip, latents).loss
        if model == INVERSE_DYNAMICS:
            targets = objective.imitation_targets(clip.frames, clip.valid, latents)  # (B,H,Z)
            imitation = policy.imitation_loss(first, targets, clip.valid)
            loss = loss + objective.config.imitation_weight * imitation
    return loss


def ridge_r2(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> np.ndarray:
    """R2 per column of y of a linear read-out; a column that does not vary gives 0."""
    x, x_test = (np.column_stack([part, np.ones(len(part))]) for part in (x, x_test))
    weights = np.linalg.solve(x.T @ x + 1e-2 * np.eye(x.shape[1]), x.T @ y)
    total = ((y_test - y_test.mean(0)) ** 2).sum(0)
    return np.where(total > 0, 1 - ((x_test @ weights - y_test) ** 2).sum(0) / np.maximum(total, 1e-12), 0.0)


def imitation_error(cfg: CompareConfig, video: Video, pretrained: ImitatingPolicy | None, seed: int) -> float:
    """Held-out error of a policy trained on the labelled episodes, in standard deviations of the actions.

    One without pretraining gets the steps that pretraining takes as well.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    policy = ImitatingPolicy(video.actions.shape[1], CHUNK)
    if pretrained is not None:
        policy.trunk.load_state_dict(pretrained.trunk.state_dict())
    optimizer = torch.optim.AdamW(policy.parameters(), lr=cfg.lr, weight_decay=1e-4, fused=True)

    def error(first: np.ndarray) -> Tensor:
        actions, valid = video.next_actions(first)
        return policy.imitation_loss(video.clips(first, POLICY_SIZE)[0][:, 0], actions, valid)

    steps = cfg.finetuning_steps + (cfg.steps if pretrained is None else 0)
    for _ in trange(steps, desc="imitating", leave=False):
        loss = error(rng.choice(video.few, cfg.batch_size))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 10.0)
        optimizer.step()
    policy.eval()
    with torch.no_grad():
        return float(np.mean([float(error(part)) for part in np.array_split(video.test, 8)]))


def run(cfg: CompareConfig, video: Video, text: str, seed: int) -> dict[str, object]:
    setting = Setting.parse(text)
    latent, world_model, size = setting.latent_action, setting.world_model, setting.world_model.image_size
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    video.use(setting)
    objective = LatentActionPretraining(
        latent,
        world_model.build(latent.dim, latent.horizon),
        None if latent.source == POLICY else setting.idm.build(latent.dim, size),
    )
    policy = ImitatingPolicy(latent.dim, latent.horizon)
    trained = [*objective.parameters(), *policy.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=cfg.lr, weight_decay=1e-4, fused=True)

    begin = time.process_time()
    for _ in trange(cfg.steps, desc=f"{text} seed {seed}"):
        first = rng.choice(video.train, cfg.batch_size)
        seen, _ = video.clips(first, POLICY_SIZE)
        loss = pretraining_loss(objective, policy, Clip(*video.clips(first, size)), seen[:, 0])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 10.0)
        optimizer.step()
    milliseconds = 1000 * (time.process_time() - begin) / cfg.steps

    objective.eval()
    policy.eval()

    @torch.no_grad()
    def latents_of(first: np.ndarray) -> Tensor:
        if latent.source == POLICY:
            seen, valid = video.clips(first, POLICY_SIZE)
            return objective.latent_norm(policy(seen[:, 0]), valid)
        return objective.infer_latents(*video.clips(first, size))

    def first_latents(first: np.ndarray) -> np.ndarray:
        parts = np.array_split(first, max(len(first) // 64, 1))
        return np.concatenate([latents_of(part)[:, 0].numpy() for part in parts])

    fitted = rng.choice(video.train, min(2000, len(video.train)), replace=False)
    latents_fitted, latents_test = first_latents(fitted), first_latents(video.test)

    def probe(actions: Tensor) -> list[float]:
        targets = video.over_transition(actions, fitted), video.over_transition(actions, video.test)
        r2 = ridge_r2(latents_fitted, targets[0], latents_test, targets[1])
        return [round(float(value), 3) for value in r2]

    few = fit_ridge(
        first_latents(video.few), video.over_transition(video.actions, video.few), video.episode[video.few]
    )
    few_r2 = r2_per_dimension(video.over_transition(video.actions, video.test), few.predict(latents_test))

    figures, told, wanted = [], [], []
    for chunk in np.array_split(rng.permutation(video.test)[:512], 8):
        frames, valid = video.clips(chunk, size)
        latents = latents_of(chunk)
        with torch.no_grad():
            output = objective.world_model(frames, latents, valid).metrics
            told.append(policy(video.clips(chunk, POLICY_SIZE)[0][:, 0])[valid])
            wanted.append(latents[valid])
            figures.append({**objective.health(frames, latents, valid), "over_copy": output["mse_over_copy"]})
    policy_r2 = np.mean(r2_per_dimension(torch.cat(wanted).numpy(), torch.cat(told).numpy()))
    return {
        "setting": text,
        "seed": seed,
        "cpu_ms_per_step": round(milliseconds),
        **{key: round(float(np.mean([float(row[key]) for row in figures])), 3) for key in figures[0]},
        "policy_r2": None if latent.source == POLICY else round(float(policy_r2), 3),
        "imitation_error": round(imitation_error(cfg, video, policy, seed), 4),
        "imitation_error_from_scratch": round(imitation_error(cfg, video, None, seed), 4),
        "action_r2": probe(video.actions),
        "action_r2_within_episode": probe(video.changes),
        "action_r2_few_labels": [round(float(value), 3) for value in few_r2],
        "test_transitions": len(video.test),
    }


def table(rows: list[dict]) -> str:
    """Markdown: a line per setting, with the figures of its seeds side by side."""
    columns = {
        "error / copying x_0": lambda row: f"{row['over_copy']:.2f}",
        "error with other latents / own": lambda row: f"{row['shuffle_ratio']:.2f}",
        "effective rank": lambda row: f"{row['latent_rank']:.1f}",
        "policy R2": lambda row: "-" if row["policy_r2"] is None else f"{row['policy_r2']:.2f}",
        "action R2": lambda row: f"{np.mean(row['action_r2']):.2f}",
        "within an episode": lambda row: f"{np.mean(row['action_r2_within_episode']):.2f}",
        "from few labels": lambda row: f"{np.mean(row['action_r2_few_labels']):.2f}",
        # Not in figures taken before it was measured.
        "imitation error": lambda row: f"{row['imitation_error']:.3f}" if "imitation_error" in row else "-",
        "from scratch": lambda row: (
            f"{row['imitation_error_from_scratch']:.3f}" if "imitation_error_from_scratch" in row else "-"
        ),
        "CPU ms a step": lambda row: str(row["cpu_ms_per_step"]),
    }
    lines = [f"| setting | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for setting in dict.fromkeys(row["setting"] for row in rows):
        seeds = [row for row in rows if row["setting"] == setting]
        cells = [" / ".join(figure(row) for row in seeds) for figure in columns.values()]
        lines.append(f"| `{setting}` | {' | '.join(cells)} |")
    return "\n".join(lines)


@draccus.wrap()
def main(cfg: CompareConfig) -> None:
    torch.set_num_threads(cfg.threads)
    video = Video(cfg)
    rows = json.loads(cfg.output.read_text())["rows"] if cfg.output.exists() else []
    cfg.output.parent.mkdir(parents=True, exist_ok=True)
    for text in cfg.settings:
        for seed in cfg.seeds:
            if any(row["setting"] == text and row["seed"] == seed for row in rows):
                continue
            rows.append(run(cfg, video, text, seed))
            tqdm.write(json.dumps(rows[-1]))
            config = {k: v for k, v in draccus.encode(cfg).items() if k not in ("root", "output", "settings")}
            result = {
                "config": config,
                "machine": platform.machine(),
                "torch": torch.__version__,
                "rows": rows,
            }
            partial = cfg.output.with_suffix(".partial")
            partial.write_text(json.dumps(result, indent=1) + "\n")
            partial.replace(cfg.output)
    print(table(rows))


if __name__ == "__main__":
    main()
