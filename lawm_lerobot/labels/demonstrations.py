"""The true actions that pretraining may use: some of the corpus's own, and a second dataset of demonstrations.

Both are held in memory and looked up by frame; nothing of them passes through LeRobot's preprocessor, which would
take `action` for latent actions. Only training loads them: a checkpoint has all that looking into it needs.

Letters: B clips of the corpus, L labelled clips, H latent actions, T = H + 1, A robot action dimension, N frames.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import torch
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE
from torch import Tensor
from tqdm import tqdm

from lawm_lerobot.labels.configuration import EMBODIMENT, LABELS_PATH
from lawm_lerobot.method.latent_action import INVERSE_DYNAMICS
from lawm_lerobot.method.readout import ActionReadout, ActionTargets, LabelBatch

if TYPE_CHECKING:
    from lawm_lerobot.labels.episodes import EpisodeReader
    from lawm_lerobot.policies.common.configuration import LawmConfig

logger = logging.getLogger(__name__)

#: The demonstrations' pictures are held in memory; more than this is no longer "a few".
MEMORY_LIMIT_GIB = 4.0


@dataclass
class CorpusLabels:
    """Actions of the corpus's chosen episodes, by the dataset's frame index."""

    actions: Tensor
    """(N,A) float32, the widest embodiment's A; zero where nothing is known."""
    embodiment: Tensor
    """(N,) int64, -1 for a frame whose action is not used."""
    action_dims: list[int]

    @classmethod
    def load(cls, config: LawmConfig, dataset_meta: Any) -> CorpusLabels:
        """Read the corpus's actions: numbers only, no pictures.

        Raises:
            ValueError: If the corpus has no actions.
        """
        features, root = dataset_meta.features, Path(dataset_meta.root)
        if ACTION not in features:
            raise ValueError(
                f"labels.fraction is {config.labels.fraction}, but the dataset has no 'action': leave out "
                "--policy.labels.fraction, or give labelled demonstrations by --policy.labels.repo_id."
            )
        pooled = EMBODIMENT in features
        dims = [int(features[ACTION]["shape"][0])]
        if pooled:
            if not (root / LABELS_PATH).is_file():
                raise ValueError(
                    f"{root} pools actions of several embodiments, but {LABELS_PATH}, which tells their dimensions, "
                    "is missing: import the dataset again, or leave out --policy.labels.fraction."
                )
            sidecar = json.loads((root / LABELS_PATH).read_text())
            dims = [int(embodiment["dim"]) for embodiment in sidecar["embodiments"]]
        columns = [ACTION, "episode_index", "index"] + ([EMBODIMENT] if pooled else [])
        total = int(dataset_meta.total_frames)
        actions = torch.zeros(total, int(features[ACTION]["shape"][0]))
        embodiment = torch.full((total,), -1)
        episodes = torch.full((total,), -1)
        for file in sorted((root / "data").glob("*/*.parquet")):
            table = pq.read_table(file, columns=columns)
            index = torch.from_numpy(np.array(table["index"]))
            rows = np.stack([np.atleast_1d(row) for row in table[ACTION].to_numpy()])
            actions[index] = torch.from_numpy(rows.astype(np.float32))
            episodes[index] = torch.from_numpy(np.array(table["episode_index"]))
            ids = np.array(table[EMBODIMENT]) if pooled else np.zeros(len(index), np.int64)
            embodiment[index] = torch.from_numpy(ids.astype(np.int64))
        embodiment[~torch.isin(episodes, _chosen_episodes(episodes, embodiment, config))] = -1
        return cls(actions, embodiment, dims)

    def known(self, head: int) -> Tensor:
        """(n,A) all actions in use of one embodiment."""
        return self.actions[self.embodiment == head, : self.action_dims[head]]

    def targets(self, index: Tensor, horizon: int, stride: int) -> list[ActionTargets]:
        """The actions from x_0 on of the clips whose x_0 has this dataset `index` (B,), where they are known."""
        index = index.reshape(-1).cpu()
        steps = index[:, None] + torch.arange(horizon * stride)  # (B,H*stride)
        steps = steps.clamp_max(len(self.actions) - 1)  # beyond the episode's end nothing counts anyway
        targets = []
        for head, dim in enumerate(self.action_dims):
            rows = (self.embodiment[index] == head).nonzero()[:, 0]  # (n)
            if len(rows):
                actions = self.actions[steps[rows], :dim].unflatten(1, (horizon, stride))  # (n,H,stride,A)
                targets.append(ActionTargets(head, rows, actions))
        return targets


def _chosen_episodes(episodes: Tensor, embodiment: Tensor, config: LawmConfig) -> Tensor:
    """The episodes whose actions are used: per embodiment `labels.fraction` of those that have some."""
    chosen = []
    for head in embodiment.unique().tolist():
        labelled = episodes[(embodiment == head) & (episodes >= 0)].unique()
        if head < 0 or not len(labelled):
            continue
        count = max(1, math.floor(config.labels.fraction * len(labelled) + 1e-9))
        order = torch.randperm(
            len(labelled), generator=torch.Generator().manual_seed(config.labels.seed + head)
        )
        chosen.append(labelled[order[:count]])
    return torch.cat(chosen) if chosen else episodes.new_zeros(0)


class Demonstrations:
    """Clips of the second dataset, decoded once and held as bytes.

    Args:
        config: Of the policy.
        camera: The corpus's camera that the world model predicts.
        cameras: All of them that the policy sees.
        fps: Of the corpus.
        dataset_stats: Of the corpus; the policy sees the demonstrations' pictures normalised by them.

    Raises:
        ValueError: If the dataset does not fit the corpus or the memory.
    """

    def __init__(
        self,
        config: LawmConfig,
        camera: str,
        cameras: Sequence[str],
        fps: int,
        dataset_stats: dict[str, dict[str, Any]] | None,
    ) -> None:
        from lawm_lerobot.labels.episodes import EpisodeReader

        labels = config.labels
        assert labels.repo_id is not None
        reader = EpisodeReader(
            labels.repo_id, labels.root, labels.revision, labels.episodes, flag="--policy.labels"
        )
        check_demonstrations(reader, fps, config.latent_action.stride)
        self.config = config
        seen_by_q = labelled_camera(reader, labels.camera, camera, "--policy.labels.camera")
        size = config.world_model.image_size
        pictures = {seen_by_q: (size, size)}
        # With the policy's own latents in use, it has to look at the demonstrations too.
        views = {}
        if config.latent_action.source != INVERSE_DYNAMICS:
            views = self._policy_views(reader, cameras)
        _check_memory(reader, [*pictures.values(), *views.values()])

        frames: list[Tensor] = []
        policy_frames: dict[str, list[Tensor]] = {key: [] for key in views}
        starts, ends, self.tasks = [], [], []
        total = 0
        for episode in tqdm(reader.episodes, desc="Reading the demonstrations", unit="episode"):
            frames.append(reader.frames(episode, seen_by_q, (size, size)))
            for key, view in views.items():
                policy_frames[key].append(reader.frames(episode, key, view))
            length = reader.length(episode)
            starts += [total] * length
            ends += [total + length] * length
            self.tasks += [reader.task(episode)] * length
            total += length
        self.frames = torch.cat(frames)  # (N,C,h,w) uint8
        self.views: dict[str, Tensor] = {key: torch.cat(parts) for key, parts in policy_frames.items()}
        self.actions = torch.from_numpy(reader.column(ACTION))  # (N,A)
        self.starts, self.ends = torch.tensor(starts), torch.tensor(ends)  # (N,) each
        # A clip without a second frame teaches nothing.
        stride = config.latent_action.stride
        self.first_frames = (torch.arange(total) + stride < self.ends).nonzero()[:, 0]
        self.preprocess = None
        if views:
            if config.robot_state_feature is not None:
                self.views[OBS_STATE] = torch.from_numpy(reader.column(OBS_STATE))  # (N,S)
            self.preprocess = _preprocessor(config, dataset_stats, reader.meta.stats)

    @property
    def action_dim(self) -> int:
        return self.actions.shape[1]

    def draw(self, count: int, seed: list[int]) -> Tensor:
        """(L,) first frames of `count` clips, the same ones for the same seed."""
        picks = np.random.default_rng(seed).integers(len(self.first_frames), size=count)
        return self.first_frames[torch.from_numpy(picks)]

    def clips(self, first: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Clips that start at frames `first` (L,).

        Returns:
            frames (L,T,C,h,w) uint8, valid (L,H) bool, and actions (L,H,stride,A).
        """
        horizon, stride = self.config.latent_action.horizon, self.config.latent_action.stride
        last = self.ends[first, None] - 1  # (L,1)
        steps = first[:, None] + stride * torch.arange(horizon + 1)  # (L,T)
        frames = self.frames[torch.minimum(steps, last)]  # (L,T,C,h,w)
        actions = self.actions[torch.minimum(first[:, None] + torch.arange(horizon * stride), last)]
        return frames, (steps <= last)[:, 1:], actions.unflatten(1, (horizon, stride))

    def policy_batch(self, first: Tensor) -> dict[str, Any]:
        """What the wrapped policy sees at frames `first` (L,), preprocessed: its history up to x_0."""
        assert self.preprocess is not None
        deltas = torch.tensor(self.config.history_deltas)  # (n)
        steps = torch.maximum(first[:, None] + deltas, self.starts[first, None])  # (L,n)
        if self.config.wrapped_history is None:
            steps = steps[:, -1]  # (L)
        batch: dict[str, Any] = {key: values[steps] for key, values in self.views.items()}
        for key, value in batch.items():
            if key.startswith(OBS_IMAGES):
                batch[key] = value.float() / 255
        batch["task"] = [self.tasks[frame] for frame in first.tolist()]
        return self.preprocess(batch)

    def _policy_views(self, reader: EpisodeReader, cameras: Sequence[str]) -> dict[str, tuple[int, int]]:
        """The policy's cameras and their sizes (h,w), if the demonstrations have all that it sees."""
        source = self.config.latent_action.source
        advice = f"with --policy.latent_action.source={source} the policy must see the demonstrations too; "
        missing = [key for key in cameras if key not in reader.meta.camera_keys]
        if missing:
            raise ValueError(
                f"{reader.dataset.repo_id} has no {', '.join(missing)}, and {advice}choose "
                "--policy.latent_action.source=inverse_dynamics, or rename its cameras."
            )
        state = self.config.robot_state_feature
        found = reader.features.get(OBS_STATE, {}).get("shape")
        if state is not None and (found is None or tuple(found) != tuple(state.shape)):
            raise ValueError(
                f"{reader.dataset.repo_id} has {'no ' if found is None else ''}{OBS_STATE}"
                f"{'' if found is None else f' of shape {tuple(found)}'}, expected shape {tuple(state.shape)}: "
                f"{advice}choose --policy.latent_action.source=inverse_dynamics."
            )
        shapes = {key: self.config.image_features[key].shape for key in cameras}
        return {key: (shape[1], shape[2]) for key, shape in shapes.items()}


class TrainingLabels:
    """All labels of a pretraining run."""

    def __init__(self, config: LawmConfig, corpus: CorpusLabels | None, demos: Demonstrations | None) -> None:
        self.config, self.corpus, self.demos = config, corpus, demos

    @classmethod
    def load(
        cls,
        config: LawmConfig,
        camera: str,
        cameras: Sequence[str],
        dataset_meta: Any,
        dataset_stats: dict[str, dict[str, Any]] | None,
    ) -> TrainingLabels | None:
        """What `config.labels` asks for, None if nothing.

        Raises:
            ValueError: If the labels do not fit the corpus.
        """
        labels = config.labels
        corpus = CorpusLabels.load(config, dataset_meta) if labels.fraction > 0 else None
        demos = None
        if labels.repo_id is not None:
            demos = Demonstrations(config, camera, cameras, dataset_meta.fps, dataset_stats)
        return cls(config, corpus, demos) if corpus is not None or demos is not None else None

    @property
    def action_dims(self) -> list[int]:
        corpus = self.corpus.action_dims if self.corpus is not None else []
        return corpus + ([self.demos.action_dim] if self.demos is not None else [])

    def set_statistics(self, readout: ActionReadout) -> None:
        """Give the read-out what standardises the actions."""
        known = (
            [self.corpus.known(head) for head in range(len(self.corpus.action_dims))] if self.corpus else []
        )
        known += [self.demos.actions] if self.demos is not None else []
        for head, actions in enumerate(known):
            if len(actions):
                readout.set_statistics(head, actions.mean(0), actions.std(0, correction=0))

    def batch(self, index: Tensor, like: Tensor, seed: list[int]) -> tuple[LabelBatch, dict[str, Any] | None]:
        """The labels of a training step.

        Args:
            index: (B,) dataset index of the corpus's clips.
            like: (B,T,C,h,w) the corpus's frames; the result is on their device.
            seed: Of the labelled clips to draw.

        Returns:
            The labels, and for a policy whose own latents are in use what it sees of the labelled clips.
        """
        action, device = self.config.latent_action, like.device
        targets: list[ActionTargets] = []
        if self.corpus is not None:
            targets += self.corpus.targets(index, action.horizon, action.stride)
        frames = like.new_zeros(0, *like.shape[1:])
        valid = torch.zeros(0, action.horizon, dtype=torch.bool)
        seen = None
        if self.demos is not None:
            first = self.demos.draw(self.config.labels.batch_size, seed)
            pictures, valid, actions = self.demos.clips(first)
            frames = pictures.to(device).to(like.dtype) / 255
            rows = len(like) + torch.arange(len(first))
            targets.append(ActionTargets(len(self.action_dims) - 1, rows, actions))
            if self.demos.preprocess is not None:
                seen = self.demos.policy_batch(first)
        targets = [ActionTargets(t.head, t.rows.to(device), t.actions.to(device)) for t in targets]
        return LabelBatch(targets, frames, valid.to(device)), seen


def check_demonstrations(reader: EpisodeReader, fps: int, stride: int) -> None:
    """Raises ValueError unless a dataset can serve as labelled demonstrations for a corpus of this frame rate."""
    name, flag = reader.dataset.repo_id, reader.flag
    if ACTION not in reader.features:
        raise ValueError(f"{name} has no 'action', expected labelled demonstrations: change {flag}.repo_id.")
    if EMBODIMENT in reader.features:
        raise ValueError(
            f"{name} pools the actions of several embodiments, expected the demonstrations of one: "
            f"change {flag}.repo_id."
        )
    if reader.fps != fps:
        raise ValueError(
            f"{name} has {reader.fps} frames per second and the corpus {fps}, so its actions would belong to "
            f"other motions: resample one of them with lawm-import-videos --fps, or change {flag}.repo_id."
        )
    longest = max(reader.length(episode) for episode in reader.episodes)
    if longest <= stride:
        raise ValueError(
            f"The longest episode of {name} has {longest} frames, too few for one latent action of {stride}: "
            f"lower --policy.latent_action.stride, or change {flag}.repo_id."
        )


def labelled_camera(reader: EpisodeReader, wanted: str | None, same_as: str | None, flag: str) -> str:
    """The demonstrations' camera: the one asked for, the one of the same name, or the only one.

    Raises:
        ValueError: If none of these exists.
    """
    cameras = [key for key in reader.meta.camera_keys if reader.features[key]["shape"][-1] == 3]
    for key in cameras:
        if wanted in (key, key.removeprefix(f"{OBS_IMAGES}.")) or (wanted is None and key == same_as):
            return key
    if wanted is None and len(cameras) == 1:
        return cameras[0]
    raise ValueError(
        f"{reader.dataset.repo_id} has the colour cameras {', '.join(cameras) or 'none'}, expected "
        f"{wanted or same_as or 'only one'} among them: change {flag}."
    )


def _check_memory(reader: EpisodeReader, sizes: list[tuple[int, int]]) -> None:
    frames = sum(reader.length(episode) for episode in reader.episodes)
    gibibytes = frames * sum(3 * height * width for height, width in sizes) / 2**30
    logger.info(
        f"Demonstrations: {len(reader.episodes)} episodes, {frames} frames, {gibibytes:.2f} GiB of memory in "
        "every process."
    )
    if gibibytes > MEMORY_LIMIT_GIB:
        raise ValueError(
            f"The {len(reader.episodes)} demonstrations need {gibibytes:.1f} GiB of memory in every process, "
            f"expected at most {MEMORY_LIMIT_GIB:.0f}: take fewer with --policy.labels.episodes, or a smaller "
            "--policy.world_model.image_size."
        )


def _preprocessor(
    config: LawmConfig, corpus_stats: dict[str, dict[str, Any]] | None, own_stats: dict[str, dict[str, Any]]
) -> Any:
    """The policy's own preprocessor: pictures by the corpus's statistics, the state by the demonstrations' own."""
    from lerobot.policies.factory import make_pre_post_processors

    stats = {key: value for key, value in (corpus_stats or {}).items() if key in config.image_features}
    return make_pre_post_processors(config, dataset_stats={**stats, OBS_STATE: own_stats.get(OBS_STATE, {})})[
        0
    ]
