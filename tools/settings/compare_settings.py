"""Compare settings of latent learning: the knowledge in the latents, their cost, and their worth to an imitator.

    python examples/make_metaworld_dataset.py --tasks=reach-v3,push-v3,drawer-open-v3,door-open-v3,window-open-v3 \\
        --episodes=12 --noise=0.2 --record_executed=true --size=64 --seed=20000 --repo_id=local/probe --root=data/probe
    python -m tools.settings.compare_settings --root=data/probe --output=docs/results/settings.json
    python -m tools.settings.compare_settings --root=data/probe --output=docs/results/world_models.json \\
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
seeds side by side, and one of the imitation error with and without pretraining, with Student's 95% intervals over seeds, or
over new tasks. `--against=<setting>` adds one of the differences to that setting.
"""

import json
import platform
import time
from collections.abc import Iterable
from dataclasses import dataclass

import draccus
import numpy as np
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from torch import Tensor, nn
from tqdm import tqdm, trange

from lawm_lerobot.files import write_json
from lawm_lerobot.method.clip import Clip
from lawm_lerobot.method.frames import resize_frames
from lawm_lerobot.method.latent_action import INVERSE_DYNAMICS, LATENT_MODELS, POLICY
from lawm_lerobot.method.networks import ConvEncoder, NormedLinear, as_images, masked_mean
from lawm_lerobot.method.objective import LatentActionPretraining
from lawm_lerobot.statistics.ridge import fit_ridge, r2_per_dimension
from tools.settings.configuration import CompareConfig, Setting
from tools.settings.tables import against_table, imitation_table, settings_table

POLICY_SIZE = 64  # pixels that the imitating policy sees, whatever the world model does
CHUNK = 8  # actions that it is finetuned to predict


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
        deviation = self.actions.std(0).clamp_min(1e-6)  # (A)
        self.standardised = (self.actions - self.actions.mean(0)) / deviation  # (N,A)
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


def linear_r2(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> np.ndarray:
    """R2 per column of y of a linear read-out with a fixed, small penalty; a column that does not vary gives 0."""
    x, x_test = (np.column_stack([part, np.ones(len(part))]) for part in (x, x_test))
    weights = np.linalg.solve(x.T @ x + 1e-2 * np.eye(x.shape[1]), x.T @ y)
    return np.nan_to_num(r2_per_dimension(y_test, x_test @ weights))


def adamw(cfg: CompareConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=cfg.lr, weight_decay=1e-4, fused=True)


def take_step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 10.0)
    optimizer.step()


def imitation_error(cfg: CompareConfig, video: Video, pretrained: ImitatingPolicy | None, seed: int) -> float:
    """Held-out error of a policy trained on the labelled episodes, in standard deviations of the actions.

    One without pretraining gets the steps that pretraining takes as well.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    policy = ImitatingPolicy(video.actions.shape[1], CHUNK)
    if pretrained is not None:
        policy.trunk.load_state_dict(pretrained.trunk.state_dict())
    optimizer = adamw(cfg, policy.parameters())

    def error(first: np.ndarray) -> Tensor:
        actions, valid = video.next_actions(first)
        return policy.imitation_loss(video.clips(first, POLICY_SIZE)[0][:, 0], actions, valid)

    steps = cfg.finetuning_steps + (cfg.steps if pretrained is None else 0)
    for _ in trange(steps, desc="imitating", leave=False):
        take_step(optimizer, error(rng.choice(video.few, cfg.batch_size)))
    policy.eval()
    with torch.no_grad():
        return float(np.mean([float(error(part)) for part in np.array_split(video.test, 8)]))


@dataclass
class Pretrained:
    """The result of pretraining with a setting.

    Args:
        setting: The setting.
        video: The dataset, split as the setting asks.
        objective: The trained world model and inverse dynamics.
        policy: The policy that was trained beside them.
        cpu_ms_per_step: Milliseconds of CPU time that a training step took.
    """

    setting: Setting
    video: Video
    objective: LatentActionPretraining
    policy: ImitatingPolicy
    cpu_ms_per_step: float

    @torch.no_grad()
    def latents(self, first: np.ndarray) -> Tensor:
        """The latents (B,H,Z) of the clips that start at the given frames, by the source that the setting names."""
        if self.setting.latent_action.source == POLICY:
            seen, valid = self.video.clips(first, POLICY_SIZE)
            return self.objective.latent_norm(self.policy(seen[:, 0]), valid)
        return self.objective.infer_latents(*self.video.clips(first, self.setting.world_model.image_size))

    def first_latents(self, first: np.ndarray) -> np.ndarray:
        """The first latent (N,Z) of each of many clips."""
        parts = np.array_split(first, max(len(first) // 64, 1))
        return np.concatenate([self.latents(part)[:, 0].numpy() for part in parts])


def pretrain(cfg: CompareConfig, video: Video, text: str, seed: int, rng: np.random.Generator) -> Pretrained:
    """Train world model, inverse dynamics and the imitating policy on batches that ``rng`` draws."""
    setting = Setting.parse(text)
    latent, size = setting.latent_action, setting.world_model.image_size
    video.use(setting)
    objective = LatentActionPretraining(
        latent,
        setting.world_model.build(latent.dim, latent.horizon),
        None if latent.source == POLICY else setting.idm.build(latent.dim, size),
    )
    policy = ImitatingPolicy(latent.dim, latent.horizon)
    optimizer = adamw(cfg, [*objective.parameters(), *policy.parameters()])
    begin = time.process_time()
    for _ in trange(cfg.steps, desc=f"{text} seed {seed}"):
        first = rng.choice(video.train, cfg.batch_size)
        seen, _ = video.clips(first, POLICY_SIZE)
        loss = pretraining_loss(objective, policy, Clip(*video.clips(first, size)), seen[:, 0])
        take_step(optimizer, loss)
    milliseconds = 1000 * (time.process_time() - begin) / cfg.steps
    return Pretrained(setting, video, objective.eval(), policy.eval(), milliseconds)


def action_r2(pretrained: Pretrained, rng: np.random.Generator) -> dict[str, list[float]]:
    """R2 of true actions from the latents of held-out clips, by each of three read-outs."""
    video = pretrained.video
    fitted = rng.choice(video.train, min(2000, len(video.train)), replace=False)
    latents_fitted, latents_test = pretrained.first_latents(fitted), pretrained.first_latents(video.test)

    def r2_of(actions: Tensor) -> np.ndarray:
        targets = video.over_transition(actions, fitted), video.over_transition(actions, video.test)
        return linear_r2(latents_fitted, targets[0], latents_test, targets[1])

    few = fit_ridge(
        pretrained.first_latents(video.few),
        video.over_transition(video.actions, video.few),
        video.episode[video.few],
    )
    few_r2 = r2_per_dimension(video.over_transition(video.actions, video.test), few.predict(latents_test))
    found = {
        "action_r2": r2_of(video.actions),
        "action_r2_within_episode": r2_of(video.changes),
        "action_r2_few_labels": few_r2,
    }
    return {name: [round(float(value), 3) for value in r2] for name, r2 in found.items()}


@torch.no_grad()
def health(pretrained: Pretrained, rng: np.random.Generator) -> dict[str, float | None]:
    """Health of the latents, error over copying x_0 and the policy's R2, on up to 512 held-out clips."""
    video, objective, setting = pretrained.video, pretrained.objective, pretrained.setting
    metrics, predicted, inferred = [], [], []
    for chunk in np.array_split(rng.permutation(video.test)[:512], 8):
        frames, valid = video.clips(chunk, setting.world_model.image_size)
        latents = pretrained.latents(chunk)
        output = objective.world_model(frames, latents, valid).metrics
        predicted.append(pretrained.policy(video.clips(chunk, POLICY_SIZE)[0][:, 0])[valid])
        inferred.append(latents[valid])
        metrics.append({**objective.health(frames, latents, valid), "over_copy": output["mse_over_copy"]})
    r2 = np.mean(r2_per_dimension(torch.cat(inferred).numpy(), torch.cat(predicted).numpy()))
    return {
        **{key: round(float(np.mean([float(part[key]) for part in metrics])), 3) for key in metrics[0]},
        "policy_r2": None if setting.latent_action.source == POLICY else round(float(r2), 3),
    }


def run(cfg: CompareConfig, video: Video, text: str, seed: int) -> dict[str, object]:
    """The row of a setting and a seed."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    pretrained = pretrain(cfg, video, text, seed, rng)
    probed = action_r2(pretrained, rng)
    return {
        "setting": text,
        "seed": seed,
        "cpu_ms_per_step": round(pretrained.cpu_ms_per_step),
        **health(pretrained, rng),
        "imitation_error": round(imitation_error(cfg, video, pretrained.policy, seed), 4),
        "imitation_error_from_scratch": round(imitation_error(cfg, video, None, seed), 4),
        **probed,
        "test_transitions": len(video.test),
    }


@draccus.wrap()
def main(cfg: CompareConfig) -> None:
    """Run the settings that the output lacks, write it after each, and print the tables."""
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
            unsaved = ("root", "output", "settings", "against")
            result = {
                "config": {key: value for key, value in draccus.encode(cfg).items() if key not in unsaved},
                "machine": platform.machine(),
                "torch": torch.__version__,
                "rows": rows,
            }
            write_json(cfg.output, result)
    print(settings_table(rows), imitation_table(rows), sep="\n\n")
    if cfg.against is not None:
        print("", against_table(rows, cfg.against), sep="\n")


if __name__ == "__main__":
    main()
