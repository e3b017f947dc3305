"""The interface of all decoders from video to robot actions, and what their held-out predictions say about them.

They are in `latent_readout` and `inverse_model`, and are fitted on a few demonstrations.

Letters: n frames of an episode, C h w, A action dimension, N frames of several episodes, T = H + 1 frames of a clip.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from scipy.optimize import isotonic_regression
from torch import Tensor

from lawm_lerobot.statistics.ridge import overall_r2, r2_interval, r2_per_dimension, varies

CONFIDENCE_BINS = 10
# With fewer demonstrations blocks of time are held out, so that three quarters are left to learn from.
FEW = 4
SHORTEST_BLOCK = 8


@dataclass
class Demonstration:
    """One labelled episode, or a block of time of one.

    Args:
        frames: (n,C,h,w) uint8 frames.
        actions: (n,A) float32 true actions, without the dimensions that are the same in all demonstrations.
        number: The number of the demonstration, from 0.
    """

    frames: Tensor
    actions: np.ndarray
    number: int


@dataclass
class Decoded:
    """Decoded actions of some frames, and the disagreement of the decoder's ensemble.

    Args:
        actions: (n,A) actions in the robot's units.
        deviation: (n,) root mean square over A of the members' standard deviation, in standard deviations of the
            action.
    """

    actions: np.ndarray
    deviation: np.ndarray

    @classmethod
    def concatenate(cls, parts: Sequence[Decoded]) -> Decoded:
        return cls(np.concatenate([p.actions for p in parts]), np.concatenate([p.deviation for p in parts]))


@dataclass
class HeldOut:
    """Demonstrations decoded by models that have seen nothing of them.

    Args:
        true: (N,A) true actions.
        decoded: The decoded actions (N,A).
        episode: (N,) number of the demonstration that a frame belongs to.
        part: (N,) number of what was held out with the frame: of the demonstration, or of a block of time of it.
    """

    true: np.ndarray
    decoded: Decoded
    episode: np.ndarray
    part: np.ndarray

    @classmethod
    def of(cls, parts: Sequence[Demonstration], decoded: Decoded) -> HeldOut:
        """The held-out parts, decoded in order."""
        return cls(
            np.concatenate([part.actions for part in parts]),
            decoded,
            np.repeat([part.number for part in parts], [len(part.frames) for part in parts]),
            number_of_each_frame(parts),
        )

    @cached_property
    def r2(self) -> float:
        return overall_r2(self.true, self.decoded.actions)

    @cached_property
    def r2_interval(self) -> tuple[float, float]:
        """95% interval of `r2`. Of few parts quarters are drawn: too few draws differ by too little."""
        pieces = self.part
        if len(np.unique(self.part)) < 2 * FEW:
            place = np.concatenate(
                [np.arange(n) * 4 // n for n in np.unique(self.part, return_counts=True)[1]]
            )
            pieces = 4 * self.part + place
        return r2_interval(self.true, self.decoded.actions, pieces)

    @property
    def unit(self) -> str:
        """The name of what is held out in turn."""
        in_blocks = len(np.unique(self.part)) > len(np.unique(self.episode))
        return "blocks of time" if in_blocks else "demonstrations"

    def __str__(self) -> str:
        low, high = self.r2_interval
        return f"R2 {self.r2:.2f} (95% {low:.2f} to {high:.2f}) on held-out {self.unit}"

    @cached_property
    def r2_per_dimension(self) -> np.ndarray:
        return r2_per_dimension(self.true, self.decoded.actions)

    def only(self, episodes: Collection[int]) -> HeldOut:
        """The same for some of the demonstrations."""
        rows = np.isin(self.episode, list(episodes))
        decoded = Decoded(self.decoded.actions[rows], self.decoded.deviation[rows])
        return HeldOut(self.true[rows], decoded, self.episode[rows], self.part[rows])


@dataclass
class FittedDecoder:
    """A decoder fitted on all demonstrations, judged on held-out ones.

    Args:
        name: The value of ``--decoder`` that asks for it.
        decode: A function from the frames (n,C,h,w) uint8 of one episode to its actions.
        held_out: The demonstrations, each decoded by a model of this kind that was fitted on others.
    """

    name: str
    decode: Callable[[Tensor], Decoded]
    held_out: HeldOut

    @cached_property
    def confidence(self) -> Confidence:
        return Confidence(self.held_out)

    def judged_on(self, episodes: Collection[int]) -> FittedDecoder:
        """The same decoder, its metrics and confidence from some of the demonstrations only."""
        return FittedDecoder(self.name, self.decode, self.held_out.only(episodes))

    def __call__(self, frames: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """frames (n,C,h,w) uint8 of one episode -> actions (n,A) float32, confidence (n,) float32 in [0, 1]."""
        decoded = self.decode(frames)
        return decoded.actions.astype(np.float32), self.confidence(decoded.deviation).astype(np.float32)


@dataclass
class DecodedCorpus:
    """The decoded actions of an unlabelled dataset.

    Args:
        decoder: The name of the decoder.
        actions: (N,A) float32 actions of all its frames.
        confidence: (N,) float32 confidence of each.
        episode_confidence: The mean confidence of each episode.
        kept: The episodes whose mean confidence suffices.
    """

    decoder: str
    actions: np.ndarray
    confidence: np.ndarray
    episode_confidence: list[float]
    kept: list[int]

    @property
    def mean_confidence(self) -> float:
        return round(float(self.confidence.mean()), 4)


class Confidence:
    """The share of the action's variance that a frame's decoded action is expected to explain.

    1 is exact and 0 no better than the mean action. A decoder is an ensemble; where its members deviate more from each
    other it errs more. How much more is measured on held-out demonstrations: their frames are sorted into ten bins by
    the members' deviation, the mean squared error of each bin (in variances of the action) is made monotone in the
    deviation, and the confidence of a new frame is one minus the error expected at its deviation. Beyond the largest
    deviation in the demonstrations the error is taken to grow with its square.
    """

    def __init__(self, held_out: HeldOut) -> None:
        moving = varies(held_out.true)  # the dimensions that count in R2, and so here
        error = (held_out.true - held_out.decoded.actions)[:, moving] / held_out.true[:, moving].std(0)
        error = (error**2).mean(1)  # (N,)
        order = np.argsort(held_out.decoded.deviation, kind="stable")
        bins = np.array_split(order, min(CONFIDENCE_BINS, len(order)))
        self.deviation = np.array([held_out.decoded.deviation[rows].mean() for rows in bins])
        self.error = isotonic_regression(np.array([error[rows].mean() for rows in bins])).x

    def __call__(self, deviation: np.ndarray) -> np.ndarray:
        """(n,) -> (n,)"""
        error = np.interp(deviation, self.deviation, self.error)
        beyond = np.maximum(deviation / max(self.deviation[-1], 1e-12), 1.0)
        return np.clip(1.0 - error * beyond**2, 0.0, 1.0)


def action_scale(actions: np.ndarray) -> np.ndarray:
    """(N,A) -> (A,) standard deviation, 1 where an action does not vary."""
    std = actions.std(0)
    return np.where(std > 1e-6, std, 1.0)


def held_out_parts(
    demonstrations: Sequence[Demonstration], stride: int, folds: int
) -> tuple[list[Demonstration], int]:
    """The parts that are held out in turn, and the number of folds that they make.

    These are the demonstrations, or if they are few blocks of time of each, long enough for transitions of `stride`
    frames: one of two demonstrations would be too little to learn from, and the decoder that both give would look worse
    than it is.
    """
    if len(demonstrations) >= FEW:
        return list(demonstrations), folds
    parts = []
    for demo in demonstrations:
        count = min(FEW, max(len(demo.frames) // max(SHORTEST_BLOCK, 3 * stride), 1))
        edges = np.linspace(0, len(demo.frames), count + 1).astype(int)
        parts += [Demonstration(demo.frames[a:b], demo.actions[a:b], demo.number) for a, b in pairwise(edges)]
    return parts, max(folds, FEW)


def number_of_each_frame(parts: Sequence[Demonstration]) -> np.ndarray:
    """(N,) number of the part that a frame belongs to, by its position in the sequence."""
    return np.repeat(np.arange(len(parts)), [len(part.frames) for part in parts])
