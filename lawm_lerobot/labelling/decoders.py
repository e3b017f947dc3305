"""Decoders from video to robot actions, fitted on a few demonstrations and judged on held-out ones.

Two of them, with one interface: `LatentReadout`, a ridge on the frozen latents of a pretraining checkpoint, and
`InverseModel`, a small network trained on the demonstrations alone.

Letters: n frames of an episode, C h w, Z latent dimension, A action dimension, N frames of all demonstrations.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

# Raised for a value out of range: draccus loses the text of a ValueError.
from draccus.utils import ParsingError
from scipy.optimize import isotonic_regression
from torch import Tensor
from tqdm import tqdm

from lawm_lerobot.method.configuration import InverseDynamicsConfig
from lawm_lerobot.method.inverse_dynamics import InverseDynamics
from lawm_lerobot.statistics.ridge import Ridge, fit_ridge, group_folds, overall_r2, r2_per_dimension

READOUT = "readout"
INVERSE_MODEL = "inverse_model"
BOOTSTRAPS = 8
CONFIDENCE_BINS = 10


@dataclass
class Demonstration:
    """One labelled episode."""

    frames: Tensor
    """(n,C,h,w) uint8"""
    actions: np.ndarray
    """(n,A) float32"""


@dataclass
class Decoded:
    """Actions of some frames, and how far the members of the decoder's ensemble are apart."""

    actions: np.ndarray
    """(n,A)"""
    spread: np.ndarray
    """(n,) root mean square over A of the members' standard deviation, in standard deviations of the action"""


@dataclass
class HeldOut:
    """Demonstrations decoded by models that have seen nothing of them, and what that says."""

    true: np.ndarray
    """(N,A)"""
    decoded: Decoded
    """of (N,A)"""
    episode: np.ndarray
    """(N,) number of the demonstration"""
    r2: float = field(init=False)
    r2_per_dimension: np.ndarray = field(init=False)

    def only(self, episodes: Collection[int]) -> HeldOut:
        """The same for some of the demonstrations."""
        rows = np.isin(self.episode, list(episodes))
        decoded = Decoded(self.decoded.actions[rows], self.decoded.spread[rows])
        return HeldOut(self.true[rows], decoded, self.episode[rows])

    def __post_init__(self) -> None:
        self.r2 = overall_r2(self.true, self.decoded.actions)
        self.r2_per_dimension = r2_per_dimension(self.true, self.decoded.actions)


@dataclass
class FittedDecoder:
    """A decoder fitted on all demonstrations, and its figures on held-out ones."""

    name: str
    decode: Callable[[Tensor], Decoded]
    """frames (n,C,h,w) uint8 of one episode -> its actions"""
    held_out: HeldOut
    confidence: Confidence = field(init=False)

    def __post_init__(self) -> None:
        self.confidence = Confidence(self.held_out)

    def judged_on(self, episodes: Collection[int]) -> FittedDecoder:
        """The same decoder, its figures and confidence from some of the demonstrations only."""
        return FittedDecoder(self.name, self.decode, self.held_out.only(episodes))

    def __call__(self, frames: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """frames (n,C,h,w) uint8 of one episode -> actions (n,A) float32, confidence (n,) float32 in [0, 1]."""
        decoded = self.decode(frames)
        return decoded.actions.astype(np.float32), self.confidence(decoded.spread).astype(np.float32)


class Confidence:
    """How much of the action's variance a frame's decoded action is expected to explain.

    1 is exact and 0 no better than the mean action. A decoder is an ensemble; where its members are far apart it
    errs more. How much more is measured on held-out demonstrations: their frames are sorted into ten bins by the
    spread of the members, the mean squared error of each bin (in variances of the action) is made monotone in the
    spread, and the confidence of a new frame is one minus the error expected at its spread. Beyond the largest
    spread of the demonstrations the error is taken to grow with its square.
    """

    def __init__(self, held_out: HeldOut) -> None:
        scale = np.where(held_out.true.std(0) > 1e-6, held_out.true.std(0), 1.0)
        error = (((held_out.true - held_out.decoded.actions) / scale) ** 2).mean(1)  # (N,)
        order = np.argsort(held_out.decoded.spread, kind="stable")
        bins = np.array_split(order, min(CONFIDENCE_BINS, len(order)))
        self.spread = np.array([held_out.decoded.spread[rows].mean() for rows in bins])
        self.error = isotonic_regression(np.array([error[rows].mean() for rows in bins])).x

    def __call__(self, spread: np.ndarray) -> np.ndarray:
        """(n,) -> (n,)"""
        error = np.interp(spread, self.spread, self.error)
        beyond = np.maximum(spread / max(self.spread[-1], 1e-12), 1.0)
        return np.clip(1.0 - error * beyond**2, 0.0, 1.0)


def _action_scale(actions: np.ndarray) -> np.ndarray:
    std = actions.std(0)
    return np.where(std > 1e-6, std, 1.0)


# ── ridge on frozen latents ───────────────────────────────────────────────────


def latent_features(latents: np.ndarray, frames: int, stride: int) -> np.ndarray:
    """For every frame of an episode the latents of the transitions around it.

    Args:
        latents: (n-stride,Z), z_t of the transition x_t -> x_{t+stride}, from every frame on.
        frames: n.
        stride: Dataset frames of a transition.

    Returns:
        (n,(2*stride+1)*Z): z_{t-stride} .. z_{t+stride}, the transitions that contain the action of frame t and
        their neighbours. Near the ends of the episode the nearest latent stands for those that do not exist.
    """
    around = np.arange(frames)[:, None] + np.arange(-stride, stride + 1)  # (n,2*stride+1)
    return latents[around.clip(0, len(latents) - 1)].reshape(frames, -1)


def fit_latent_readout(
    demonstrations: Sequence[Demonstration],
    infer: Callable[[Tensor], np.ndarray],
    stride: int,
    folds: int,
    seed: int,
) -> FittedDecoder:
    """A ridge from frozen latents to actions; its penalty is cross-validated over episodes.

    The ensemble are ridges on bootstrapped episodes.

    Args:
        demonstrations: At least two.
        infer: frames (n,C,h,w) uint8 of an episode -> z_t (n-stride,Z) of x_t -> x_{t+stride}, from every frame.
        stride: Dataset frames of a transition.
        folds: Of the cross-validation that gives the held-out figures.
        seed: Of the folds and bootstraps.
    """

    def features(frames: Tensor) -> np.ndarray:
        return latent_features(infer(frames), len(frames), stride)

    bar = tqdm(demonstrations, desc="Latents of the demonstrations", unit="episode")
    inputs = np.concatenate([features(demo.frames) for demo in bar])  # (N,D)
    targets = np.concatenate([demo.actions for demo in demonstrations])  # (N,A)
    groups = _episode_numbers(demonstrations)
    fold = group_folds(groups, folds, seed)
    scale = _action_scale(targets)
    actions, spread = np.empty(targets.shape), np.empty(len(targets))
    for held in range(fold.max() + 1):
        train, test = fold != held, fold == held
        decoded = _decode_ridges(
            _ridge_ensemble(inputs[train], targets[train], groups[train], seed), inputs[test], scale
        )
        actions[test], spread[test] = decoded.actions, decoded.spread
    held_out = HeldOut(targets, Decoded(actions, spread), groups)
    ridges = _ridge_ensemble(inputs, targets, groups, seed)
    return FittedDecoder(READOUT, lambda frames: _decode_ridges(ridges, features(frames), scale), held_out)


def _ridge_ensemble(inputs: np.ndarray, targets: np.ndarray, groups: np.ndarray, seed: int) -> list[Ridge]:
    """The ridge on all rows, then ridges with its penalty on episodes drawn with replacement."""
    best = fit_ridge(inputs, targets, groups, seed=seed)
    rng, names, ridges = np.random.default_rng(seed), np.unique(groups), [best]
    members = {name: np.flatnonzero(groups == name) for name in names}
    for _ in range(BOOTSTRAPS):
        rows = np.concatenate([members[name] for name in rng.choice(names, len(names))])
        ridges.append(fit_ridge(inputs[rows], targets[rows], groups[rows], (best.penalty,)))
    return ridges


def _decode_ridges(ridges: list[Ridge], inputs: np.ndarray, scale: np.ndarray) -> Decoded:
    members = np.stack([ridge.predict(inputs) for ridge in ridges[1:]])  # (M,n,A)
    return Decoded(ridges[0].predict(inputs), np.sqrt(((members.std(0) / scale) ** 2).mean(1)))


# ── a small inverse model ─────────────────────────────────────────────────────


@dataclass
class InverseModelConfig:
    """The inverse model that learns from the demonstrations alone.

    Args:
        size: Of the network, as `--policy.idm.size`.
        stride: Dataset frames between the frames it compares; it tells the actions in between.
        context: Transitions on either side that it also sees.
        random_shift: Largest shift, in pixels, of its input while training.
        transitions: In a training clip.
        batch_size: Clips in a training step.
        steps: At most; the number that decodes held-out demonstrations best is taken.
        eval_freq: Steps between two looks at the held-out demonstrations.
        patience: Looks without an improvement after which a fold is left.
        lr: Learning rate.
    """

    size: str = "1m"
    stride: int = 2
    context: int = 1
    random_shift: int = 4
    transitions: int = 4
    batch_size: int = 16
    steps: int = 400
    eval_freq: int = 40
    patience: int = 4
    lr: float = 1e-3

    def __post_init__(self) -> None:
        for name in ("stride", "transitions", "batch_size", "steps", "eval_freq", "patience"):
            if getattr(self, name) < 1:
                raise ParsingError(
                    f"inverse_model.{name} is {getattr(self, name)}, expected at least 1: "
                    f"change --inverse_model.{name}."
                )
        InverseDynamicsConfig(size=self.size, random_shift=self.random_shift, context=self.context)


class _InverseModelTrainer:
    """The network of one split, and its way through training."""

    def __init__(
        self, config: InverseModelConfig, demonstrations: Sequence[Demonstration], device: str, seed: int
    ) -> None:
        self.config, self.device = config, device
        # Episodes too short for one transition can still be decoded, but teach nothing.
        self.demos = [demo for demo in demonstrations if len(demo.frames) > config.stride]
        actions = np.concatenate([demo.actions for demo in demonstrations])
        self.mean, self.scale = actions.mean(0), _action_scale(actions)
        self.generator = np.random.default_rng(seed)
        size = demonstrations[0].frames.shape[-1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = InverseDynamics(
                config.stride * actions.shape[1], size, config.size, config.random_shift, config.context
            ).to(device)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=config.lr, weight_decay=0.01)
        self.noise = torch.Generator().manual_seed(seed)

    def train(self, steps: int, bar: tqdm) -> None:
        """Take `steps` training steps."""
        self.network.train()
        for _ in range(steps):
            frames, actions, valid = self._batch()
            with torch.random.fork_rng(devices=[]):
                # The random shift inside draws from the global generator.
                torch.manual_seed(int(self.generator.integers(2**31)))
                told = self.network(frames, valid)  # (B,H,stride*A)
            mask = valid.unsqueeze(-1).float()
            loss = ((told - actions).square() * mask).mean(-1).sum() / mask.sum().clamp_min(1.0)
            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            self.optimizer.step()
            bar.update(1)

    def _batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """frames (B,T,C,h,w) in [0, 1], standardised actions (B,H,stride*A), valid (B,H)."""
        stride, horizon = self.config.stride, self.config.transitions
        frames, actions, valid = [], [], []
        for _ in range(self.config.batch_size):
            demo = self.demos[self.generator.integers(len(self.demos))]
            last = len(demo.frames) - 1
            first = int(self.generator.integers(max(last - stride * horizon, last - stride) + 1))
            first = min(first, last - stride)
            steps = first + stride * np.arange(horizon + 1)  # (T)
            frames.append(demo.frames[torch.from_numpy(steps.clip(max=last))])
            rows = (first + np.arange(stride * horizon)).clip(max=last)
            actions.append(((demo.actions[rows] - self.mean) / self.scale).reshape(horizon, -1))
            valid.append(steps[1:] <= last)
        clips = torch.stack(frames).to(self.device).float() / 255
        # Brightness and contrast, one of each per clip: light differs between recordings.
        contrast, brightness = (0.2 * torch.rand(2, len(clips), 1, 1, 1, 1, generator=self.noise) - 0.1).to(
            self.device
        )
        clips = ((clips - 0.5) * (1 + contrast) + 0.5 + brightness).clamp(0, 1)
        targets = torch.from_numpy(np.stack(actions)).float().to(self.device)
        return clips, targets, torch.from_numpy(np.stack(valid)).to(self.device)

    @torch.no_grad()
    def decode(self, frames: Tensor) -> Decoded:
        """Every frame of an episode (n,C,h,w) uint8.

        A frame's action is told by all transitions that contain it, and from the picture as it is and shifted by
        half the training's random shift; the mean of these is the answer and their standard deviation the spread.
        """
        self.network.eval()
        length, stride, dim = len(frames), self.config.stride, len(self.scale)
        if length <= stride:  # too short for a transition: as if nothing happened after its last frame
            rest = frames[-1:].expand(stride + 1 - length, -1, -1, -1)
            longer = self.decode(torch.cat([frames, rest]))
            return Decoded(longer.actions[:length], longer.spread[:length])
        pixels = frames.to(self.device).float() / 255
        told: list[list[np.ndarray]] = [[] for _ in range(length)]
        shift = self.config.random_shift // 2
        for move in {0, shift, -shift}:
            padded = F.pad(pixels, (shift,) * 4, mode="replicate") if shift else pixels
            height, width = pixels.shape[-2:]
            top = shift + move
            seen = padded[:, :, top : top + height, top : top + width]
            for phase in range(min(stride, length - stride)):
                clip = seen[phase::stride][None]  # (1,T,C,h,w)
                valid = torch.ones(1, clip.shape[1] - 1, dtype=torch.bool, device=self.device)
                actions = self.network(clip, valid)[0].unflatten(-1, (stride, dim)).cpu().numpy()
                for k, parts in enumerate(actions):
                    for part, action in enumerate(parts):
                        told[phase + k * stride + part].append(action)
        # Nothing follows the last frame: its action is taken to go on as the one before.
        told[-1] = told[-2]
        means = np.stack([np.mean(values, 0) for values in told])
        spread = np.stack([np.sqrt(np.var(values, 0).mean()) for values in told])
        return Decoded(means * self.scale + self.mean, spread)


def fit_inverse_model(
    demonstrations: Sequence[Demonstration], config: InverseModelConfig, folds: int, seed: int, device: str
) -> FittedDecoder:
    """Train the inverse model: once per fold for the held-out figures, then on all demonstrations.

    The number of training steps is chosen by early stopping on held-out demonstrations. So that the figures stay
    honest, a fold's is chosen by the error curves of the *other* folds.
    """
    groups = _episode_numbers(demonstrations)
    fold_of = group_folds(np.arange(len(demonstrations)), folds, seed)
    targets = np.concatenate([demo.actions for demo in demonstrations])
    scale = _action_scale(targets)
    count = int(fold_of.max()) + 1
    looks = max(config.steps // config.eval_freq, 1)
    curves = np.full((count, looks), np.inf)  # held-out error per fold and look
    decoded: list[list[dict[int, Decoded]]] = []  # per fold and look, by episode
    with tqdm(total=count * looks * config.eval_freq, desc="Inverse model", unit="step") as bar:
        for held in range(count):
            trainer = _InverseModelTrainer(
                config,
                [d for d, f in zip(demonstrations, fold_of, strict=True) if f != held],
                device,
                seed + held,
            )
            test = np.flatnonzero(fold_of == held)
            decoded.append([])
            for look in range(looks):
                trainer.train(config.eval_freq, bar)
                answers = {int(e): trainer.decode(demonstrations[e].frames) for e in test}
                decoded[-1].append(answers)
                error = [
                    (((answers[e].actions - demonstrations[e].actions) / scale) ** 2).mean(1) for e in answers
                ]
                curves[held, look] = np.concatenate(error).mean()
                if look - int(curves[held].argmin()) >= config.patience:
                    bar.update((looks - look - 1) * config.eval_freq)
                    break
        answers = {}
        for held in range(count):
            others = _mean_curve(np.delete(curves, held, 0))
            look = min(int(others.argmin()), len(decoded[held]) - 1)
            answers.update(decoded[held][look])
        in_order = [answers[e] for e in range(len(demonstrations))]
        held_out = HeldOut(
            targets,
            Decoded(
                np.concatenate([d.actions for d in in_order]), np.concatenate([d.spread for d in in_order])
            ),
            groups,
        )
        steps = (int(_mean_curve(curves).argmin()) + 1) * config.eval_freq
        bar.reset(total=steps)
        bar.set_description("Inverse model, all demonstrations")
        final = _InverseModelTrainer(config, demonstrations, device, seed)
        final.train(steps, bar)
    return FittedDecoder(INVERSE_MODEL, final.decode, held_out)


def _mean_curve(curves: np.ndarray) -> np.ndarray:
    """(folds,looks) -> (looks,); a fold that was left early counts with its last error from there on."""
    filled = copy.copy(curves)
    for row in filled:
        last = int(np.isfinite(row).sum())
        row[last:] = row[last - 1]
    return filled.mean(0)


def _episode_numbers(demonstrations: Sequence[Demonstration]) -> np.ndarray:
    return np.repeat(np.arange(len(demonstrations)), [len(demo.frames) for demo in demonstrations])
