"""The measure of how much a policy looks: how far its actions move when a camera's picture, or the state, is another frame's.

Of two frames i and j with observations o_i and o_j, the policy predicts a(o_i), a(o_j), and a(o_i with camera c of j).
The *use* of the camera is mean |a(o_i with c of j) - a(o_i)| / mean |a(o_j) - a(o_i)| over the pairs: 0 if the picture
changes nothing, 1 if it alone decides. Chunks are compared in the policy's normalised units, in which every
dimension of the action counts alike, by the length of their difference.

Letters: N pairs of frames, B pairs of a batch, H actions in a chunk, A action dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import OBS_IMAGES
from scipy.stats import bootstrap
from torch import Tensor
from tqdm import tqdm

from lawm_lerobot.policies.common.asking import (
    TASK,
    AskedPolicy,
    Observation,
    batched,
    chunk_distance,
    episodes_of,
    exchanged,
)
from lawm_lerobot.policies.common.pretraining_checkpoint import Preprocessor, evenly_spaced
from lawm_lerobot.policies.common.uses import UNUSED

FRAMES = 64
BATCH = 16
RESAMPLES = 2000

#: Use below which the pictures are beside the point where the state has more: between 0.27 of a small ACT that looked
#: at its own arm alone, and 0.83 of the same after training with the state dropped in half of the samples (docs/inspect.md).
LEADING = 0.4
#: Root mean square difference of two frames' chunks below which the policy is constant: a hundredth of the standard
#: deviation that actions have after normalisation.
CONSTANT_RMS = 0.01

LOOKS = "looks"
CAMERA_UNUSED = "camera_unused"
STATE_ONLY = "state_only"
BLIND = "blind"
CONSTANT = "constant"
#: From best to worst.
VERDICTS = (LOOKS, CAMERA_UNUSED, STATE_ONLY, BLIND, CONSTANT)


@dataclass(frozen=True)
class Use:
    """The share of the way to another frame's chunk that the chunk goes when some inputs are that frame's.

    Args:
        use: The ratio of the two mean distances.
        low: The lower end of its 95% interval, by bootstrap over the pairs.
        high: The upper end.
    """

    use: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.use:.2f} (95% {self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True)
class Looking:
    """The uses of a policy's inputs, and what they mean.

    Args:
        verdict: One of `VERDICTS`.
        sentence: The verdict in words, with the numbers behind it and the flags that mend it.
        cameras: The use of each camera, by the dataset's key.
        pictures: The use of all cameras together.
        state: The use of the numbers, which are the state and, where there is one, the environment's state; None for a
            policy without any.
        task: The use of the task's text; None where all frames have the same one.
        distance: The root mean square difference between the chunks of two frames, in normalised units.
        frames: The number of pairs of frames.
        episodes: The number of episodes that they are from.
        seed: The seed of the pairs, the noise and the bootstrap.
    """

    verdict: str
    sentence: str
    cameras: dict[str, Use]
    pictures: Use
    state: Use | None
    task: Use | None
    distance: float
    frames: int
    episodes: int
    seed: int

    def to_json(self) -> dict[str, Any]:
        """The same as plain data, with the thresholds of the verdict."""
        return {
            **asdict(self),
            "thresholds": {"unused": UNUSED, "leading": LEADING, "constant_rms": CONSTANT_RMS},
        }


@dataclass(frozen=True)
class Pairs:
    """Frames of a dataset, each with the frame whose inputs it is lent.

    Args:
        own: The observations of the N frames.
        partner: The index among them of each one's partner, of another episode where there is one.
        episodes: The episode of each frame.
    """

    own: list[Observation]
    partner: np.ndarray  # (N,)
    episodes: np.ndarray  # (N,)


def measure(
    policy: PreTrainedPolicy,
    preprocessor: Preprocessor,
    dataset: LeRobotDataset,
    frames: int = FRAMES,
    seed: int = 0,
) -> Looking:
    """Measure how much a policy looks, and judge it.

    The policy is left in the mode it was in, without memory of an episode; the state of random numbers stays.

    Args:
        policy: Any LeRobot policy with an action head.
        preprocessor: The preprocessor that was saved, or is trained, with it.
        dataset: A dataset with the policy's inputs. Its history is used where it is opened with one.
        frames: The number of frames, spread evenly over the dataset; all of a dataset that has fewer.
        seed: The seed of the pairs, the noise and the bootstrap.

    Raises:
        ValueError: If the policy has no camera, the dataset fewer than two frames, or an action is not finite.
    """
    training = policy.training
    policy.eval()
    try:
        asked = AskedPolicy(policy, preprocessor)
        return measure_pairs(asked, take_pairs(asked, dataset, frames, seed), seed)
    finally:
        policy.train(training)


def take_pairs(asked: AskedPolicy, dataset: LeRobotDataset, frames: int, seed: int) -> Pairs:
    """Read frames that are spread evenly over a dataset, once each, and pair them; errors as for `measure`."""
    if not asked.cameras:
        inputs = ", ".join(asked.features) or "none"
        raise ValueError(
            f"This {asked.policy.config.type} policy has no camera among its inputs ({inputs}), expected at least one "
            f"'{OBS_IMAGES}.<camera>': there is nothing that it could look at; choose another --policy.path."
        )
    owners = episodes_of(dataset)
    if len(owners) < 2:
        found = f"{len(owners)} frame{'s' * (len(owners) != 1)}"
        raise ValueError(
            f"The dataset {dataset.repo_id} has {found}, expected at least two, of which one is given "
            "the other's picture: change --dataset.repo_id."
        )
    chosen = np.asarray(evenly_spaced(len(owners), min(frames, len(owners))))
    own = [asked.take(dataset, int(index)) for index in chosen]
    return Pairs(own, partners(owners[chosen], seed), owners[chosen])


def partners(episodes: np.ndarray, seed: int) -> np.ndarray:
    """Choose for each of N frames, by their episodes (N,), one (N,) of another episode; else one far away."""
    rng = np.random.default_rng(seed)
    total = len(episodes)
    far = (np.arange(total) + total // 2) % total
    chosen = []
    for index, episode in enumerate(episodes):
        others = np.flatnonzero(episodes != episode)
        chosen.append(rng.choice(others) if len(others) else far[index])
    return np.asarray(chosen)


def measure_pairs(asked: AskedPolicy, pairs: Pairs, seed: int, progress: bool = False) -> Looking:
    """Measure the uses on pairs of frames, and judge them."""
    everything = [*asked.features, TASK]
    lent: dict[str, Sequence[str]] = {camera: [camera] for camera in asked.cameras}
    if len(asked.cameras) > 1:
        lent["pictures"] = asked.cameras
    if asked.numbers:
        lent["state"] = asked.numbers
    if len({observation.get(TASK) for observation in pairs.own}) > 1:
        lent[TASK] = [TASK]

    def keys(name: str) -> Sequence[str]:
        return lent.get(name, everything)

    moved = distances(asked, pairs, ["everything", *lent], keys, seed, progress)
    whole = moved["everything"]  # (N,)
    uses = {name: use_of(moved[name], whole, seed) for name in lent}
    cameras = {camera: uses[camera] for camera in asked.cameras}
    pictures = uses.get("pictures", cameras[asked.cameras[0]])
    rms = float(np.sqrt(np.mean(whole**2)))
    verdict, sentence = judge(cameras, pictures, uses.get("state"), rms)
    return Looking(
        verdict,
        sentence,
        cameras,
        pictures,
        uses.get("state"),
        uses.get(TASK),
        rms,
        len(pairs.own),
        len(np.unique(pairs.episodes)),
        seed,
    )


def distances(
    asked: AskedPolicy,
    pairs: Pairs,
    names: Sequence[str],
    keys: Callable[[str], Sequence[str]],
    seed: int,
    progress: bool,
) -> dict[str, np.ndarray]:
    """Measure how far (N,) each chunk moves, root mean square, when the keys of a name are its partner's."""
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    total = len(pairs.own)
    with tqdm(total=total, desc="frames", unit="frame", disable=not progress) as bar:
        for start in range(0, total, BATCH):
            indices = range(start, min(start + BATCH, total))
            own = batched([pairs.own[i] for i in indices])
            other = batched([pairs.own[pairs.partner[i]] for i in indices])
            first = asked.chunk(own, seed + start)  # (B,H,A)
            for name in names:
                # The same seed: a policy that samples starts all chunks of a pair from the same noise.
                chunk = asked.chunk(exchanged(own, other, keys(name)), seed + start)
                found[name].append(chunk_distance(chunk, first))
            bar.update(len(indices))
    return {name: torch.cat(parts).double().numpy() for name, parts in found.items()}


def use_of(moved: np.ndarray, whole: np.ndarray, seed: int) -> Use:
    """Divide two mean distances (N,) of the same pairs; 0 where nothing moves at all."""
    if not whole.sum() > 0:
        return Use(0.0, 0.0, 0.0)

    def ratio(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
        total = b.sum(axis)
        return np.where(total > 0, a.sum(axis) / np.where(total > 0, total, 1), 0.0)

    interval = bootstrap(
        (moved, whole), ratio, paired=True, n_resamples=RESAMPLES, method="percentile", rng=seed
    ).confidence_interval
    return Use(float(ratio(moved, whole)), float(interval.low), float(interval.high))


def judge(cameras: dict[str, Use], pictures: Use, state: Use | None, distance: float) -> tuple[str, str]:
    """Give the verdict, and a sentence that says why and which flag mends it."""
    numbers = ", ".join(f"{key} {use}" for key, use in cameras.items())
    if len(cameras) > 1:
        numbers += f", all pictures {pictures}"
    if state is not None:
        numbers += f", state {state}"
    found = f"use of {numbers}; unused below {UNUSED}"
    by_state = state is not None and state.use >= (UNUSED if pictures.use < UNUSED else LEADING)
    unused = [key for key, use in cameras.items() if use.use < UNUSED]
    if distance < CONSTANT_RMS:
        return CONSTANT, (
            f"The policy predicts (nearly) the same for every frame: two frames' chunks differ by {distance:.4f} of the "
            f"actions' standard deviation (constant below {CONSTANT_RMS}). Train for longer (--steps) or with a "
            "lower learning rate (--policy.optimizer_lr), and check that the dataset's actions vary."
        )
    if by_state and pictures.use < LEADING:
        return STATE_ONLY, (
            f"The policy goes by the state, and pictures move its actions little ({found}, state only where it has more "
            f"and the pictures less than {LEADING}). Finetune a lawm_* policy with --policy.state_dropout=0.5 or without "
            "the state, --policy.use_state=false; video beside the demonstrations helps too, --policy.video.repo_id."
        )
    if pictures.use >= UNUSED and (not unused or len(unused) == len(cameras)):
        return LOOKS, f"The policy looks: another frame's picture moves its actions ({found})."
    if pictures.use >= UNUSED:
        names = ", ".join(unused)
        return CAMERA_UNUSED, (
            f"The policy does not use {names}: another frame's picture there hardly moves its actions ({found}). Train "
            "without that camera (name the others in --policy.input_features), or turn it to where the task happens."
        )
    return BLIND, (
        f"The policy is blind: no picture moves its actions ({found}). Train for longer (--steps), on demonstrations in "
        "which the picture decides what to do, or finetune a lawm_* policy with video beside the demonstrations, "
        "--policy.video.repo_id."
    )
