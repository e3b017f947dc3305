"""The decoder `inverse_model`: a small network trained on the demonstrations alone.

`finetuned_inverse_dynamics` is the same, but its convolutions begin as those of a checkpoint's inverse dynamics, which have
learned on video without actions to compare two frames.

Letters: B clips, H transitions in a clip, T = H + 1 frames, C h w, n frames of an episode, A action dimension.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from tqdm import tqdm

from lawm_lerobot.labelling.configuration import FINETUNED, INVERSE_MODEL, InverseModelConfig
from lawm_lerobot.labelling.decoders import (
    Decoded,
    Demonstration,
    FittedDecoder,
    HeldOut,
    action_scale,
    held_out_parts,
)
from lawm_lerobot.method.inverse_dynamics import InverseDynamics
from lawm_lerobot.method.transitions import over_transitions
from lawm_lerobot.statistics.ridge import splits


def fit_inverse_model(
    demonstrations: Sequence[Demonstration],
    config: InverseModelConfig,
    folds: int,
    seed: int,
    device: str,
    pretrained: InverseDynamics | None = None,
) -> FittedDecoder:
    """Train the inverse model: once per fold for the held-out metrics, then on all demonstrations.

    The number of training steps is chosen by early stopping on held-out demonstrations. So that the metrics stay
    honest, a fold's is chosen by the error curves of the *other* folds.

    Args:
        demonstrations: The demonstrations to learn from.
        config: The network and its training; with `pretrained` the network must be as large as that.
        folds: Groups of demonstrations that are held out in turn.
        seed: Seed of folds, weights and batches.
        device: The device of the network.
        pretrained: A checkpoint's inverse dynamics, whose convolutions the network begins with; None begins from
            random weights.
    """
    name = INVERSE_MODEL if pretrained is None else FINETUNED
    title = name.replace("_", " ").capitalize()
    targets = np.concatenate([demo.actions for demo in demonstrations])  # (N,A)
    scale = action_scale(targets)
    parts, folds = held_out_parts(demonstrations, config.stride, folds)
    fold_splits = splits(np.arange(len(parts)), folds, seed)
    evaluations = max(config.steps // config.eval_freq, 1)
    curves = np.full((len(fold_splits), evaluations), np.inf)  # held-out error per fold and evaluation
    decoded: list[list[dict[int, Decoded]]] = []  # per fold and evaluation, by demonstration
    total = len(fold_splits) * evaluations * config.eval_freq
    with tqdm(total=total, desc=title, unit="step") as bar:
        for fold, (train, test) in enumerate(fold_splits):
            shown = [parts[i] for i in np.flatnonzero(train)]
            trainer = Trainer(config, shown, device, seed + fold, pretrained)
            held_out = {int(i): parts[i] for i in np.flatnonzero(test)}
            decoded.append(_train_fold(trainer, held_out, scale, curves[fold], bar))
        chosen: dict[int, Decoded] = {}
        for fold in range(len(fold_splits)):
            others = _mean_curve(np.delete(curves, fold, 0))
            chosen.update(decoded[fold][min(int(others.argmin()), len(decoded[fold]) - 1)])
        steps = (int(_mean_curve(curves).argmin()) + 1) * config.eval_freq
        bar.reset(total=steps)
        bar.set_description(f"{title}, all demonstrations")
        final = Trainer(config, demonstrations, device, seed, pretrained)
        final.train(steps, bar)
    in_order = Decoded.concatenate([chosen[i] for i in range(len(parts))])
    return FittedDecoder(name, final.decode, HeldOut.of(parts, in_order))


class Trainer:
    """The network of one split, and its way through training."""

    def __init__(
        self,
        config: InverseModelConfig,
        demonstrations: Sequence[Demonstration],
        device: str,
        seed: int,
        pretrained: InverseDynamics | None = None,
    ) -> None:
        self.config, self.device = config, device
        # Episodes too short for one transition can still be decoded, but teach nothing.
        self.demos = [demo for demo in demonstrations if len(demo.frames) > config.stride]
        if not self.demos:
            change = (
                "lower --inverse_model.stride" if pretrained is None else "choose --decoder=inverse_model"
            )
            raise ValueError(
                f"Without those held out, no demonstration has more than {config.stride} frames, one transition of the "
                f"decoder: {change}, or give more demonstrations (--labels.repo_id)."
            )
        actions = np.concatenate([demo.actions for demo in demonstrations])
        self.mean, self.scale = actions.mean(0), action_scale(actions)
        self.generator = np.random.default_rng(seed)
        size = demonstrations[0].frames.shape[-1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = InverseDynamics(
                config.stride * actions.shape[1], size, config.size, config.random_shift, config.context
            ).to(device)
        if pretrained is not None:
            # The rest is about latents: what it pools, and how, is learned anew.
            self.network.frame_stages.load_state_dict(pretrained.frame_stages.state_dict())
            self.network.pair_stages.load_state_dict(pretrained.pair_stages.state_dict())
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
                predicted = self.network(frames, valid)  # (B,H,stride*A)
            mask = valid.unsqueeze(-1).float()
            loss = ((predicted - actions).square() * mask).mean(-1).sum() / mask.sum().clamp_min(1.0)
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
        """Decode every frame of an episode (n,C,h,w) uint8.

        A frame's action is predicted by all transitions that contain it, and from the picture as it is and shifted by
        half the training's random shift; the mean of these is the answer and their standard deviation the deviation.
        """
        self.network.eval()
        stride = self.config.stride
        pixels = frames.to(self.device).float() / 255
        height, width = pixels.shape[-2:]
        shift = self.config.random_shift // 2
        padded = F.pad(pixels, (shift,) * 4, mode="replicate") if shift else pixels
        predicted: list[list[np.ndarray]] = [[] for _ in range(max(len(frames), stride + 1))]
        for move in {0, shift, -shift}:
            top = shift + move
            shifted = padded[:, :, top : top + height, top : top + width]
            actions = over_transitions(shifted, stride, self.network).numpy()  # (transitions,stride*A)
            # By phases, since the order of a sum decides its last digit.
            for first in range(min(stride, len(actions))):
                for start in range(first, len(actions), stride):
                    for part, action in enumerate(actions[start].reshape(stride, -1)):
                        predicted[start + part].append(action)
        # Nothing follows the last frame: its action is taken to go on as the one before.
        predicted[-1] = predicted[-2]
        means = np.stack([np.mean(values, 0) for values in predicted[: len(frames)]])
        deviation = np.stack([np.sqrt(np.var(values, 0).mean()) for values in predicted[: len(frames)]])
        return Decoded(means * self.scale + self.mean, deviation)


def _train_fold(
    trainer: Trainer, held_out: dict[int, Demonstration], scale: np.ndarray, errors: np.ndarray, bar: tqdm
) -> list[dict[int, Decoded]]:
    """Train on one fold until the error on its held-out demonstrations stops falling.

    Fills `errors` (evaluations,) in standard deviations `scale` (A,); returns the demonstrations as decoded in each.
    """
    config, decoded = trainer.config, []
    for evaluation in range(len(errors)):
        trainer.train(config.eval_freq, bar)
        decoded.append({i: trainer.decode(demo.frames) for i, demo in held_out.items()})
        error = [
            (((decoded[-1][i].actions - demo.actions) / scale) ** 2).mean(1) for i, demo in held_out.items()
        ]
        errors[evaluation] = np.concatenate(error).mean()
        if evaluation - int(errors.argmin()) >= config.patience:
            bar.update((len(errors) - evaluation - 1) * config.eval_freq)
            break
    return decoded


def _mean_curve(curves: np.ndarray) -> np.ndarray:
    """(folds,evaluations) -> (evaluations,); a fold that was left early counts with its last error from there on."""
    filled = curves.copy()
    for row in filled:
        last = int(np.isfinite(row).sum())
        row[last:] = row[last - 1]
    return filled.mean(0)
