"""Co-training: while a policy is finetuned, it goes on predicting the latent actions of video.

    loss = the policy's loss on the demonstrations + weight * its loss on the video's latents

Both losses train one network, see latent_twin.py; the latents are those of a frozen inverse dynamics, see video.py.

Letters: B frames of the video in a batch, n observations of the policy's history, H latent actions of a chunk, Z latent
dimension.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lerobot.policies import make_pre_post_processors
from lerobot.utils.constants import OBS_STATE
from safetensors.torch import save_file
from torch import Tensor, nn

from lawm_lerobot.checkpoints.reading import load_weights
from lawm_lerobot.labels.episodes import training_dataset
from lawm_lerobot.policies.common.checkpointed import COTRAINING_FILE
from lawm_lerobot.policies.common.configuration import PRETRAIN
from lawm_lerobot.policies.common.latent_twin import make_latent_twin, pretraining_view
from lawm_lerobot.policies.common.loading import Source
from lawm_lerobot.policies.common.observation_dropout import drop_samples, normalised_mean
from lawm_lerobot.policies.common.video import FLAG, Video, VideoError, VideoSamples, video_batches

if TYPE_CHECKING:
    from lawm_lerobot.policies.common.policy import LawmPolicy

logger = logging.getLogger(__name__)

_OWN = "own."


class CoTraining:
    """The video's part of a finetuning.

    Args:
        policy: The policy that is finetuned, with its weights in place.
        source: The checkpoint that it comes from; None if it starts from random weights.
        stats: LeRobot's statistics of the demonstrations, by which the video is normalised too.
        meta: LeRobot's metadata of the demonstrations.

    Raises:
        VideoError: If the video or the checkpoint of the latents does not fit.
        ValueError: If one of them cannot be read.
    """

    def __init__(
        self, policy: LawmPolicy, source: Source | None, stats: dict[str, Any] | None, meta: Any
    ) -> None:
        config = policy.config
        if config.use_peft:
            raise VideoError(
                "Adapters (--peft) leave the network frozen that co-training shares with the video: leave out --peft, or "
                f"the video with {FLAG}.repo_id=null."
            )
        self.video = Video.open(config, meta.features.get(OBS_STATE))
        saved = _saved_state(source)
        if saved is not None:
            self.video.require_lengths(saved.pop("lengths"))
        self.latents, weights = (saved.pop("latents"), saved) if saved else self._latents(policy, source)
        self.steps = int(weights.pop("steps", torch.tensor(0)))
        self.twin, self.own = make_latent_twin(policy)
        _start_from(self.own, weights)
        dataset = training_dataset(meta)
        transforms = getattr(dataset, "image_transforms", None)
        self.samples = VideoSamples(self.video, self.twin.config, self.latents, transforms)
        self.preprocess, _ = make_pre_post_processors(pretraining_view(config), dataset_stats=stats)
        self.means = {
            key: normalised_mean(config, key, stats)
            for key in {*self.video.lacks(config), *([OBS_STATE] if self.video.has_state else [])}
        }
        self._batches: Iterator[dict[str, Any]] | None = None
        self._say(policy)

    def _latents(self, policy: LawmPolicy, source: Source | None) -> tuple[Tensor, dict[str, Tensor]]:
        """The latents of a pretraining checkpoint, and its weights if the policy comes from it."""
        # It imports the policies, which import this module.
        from lawm_lerobot.policies.common.pretraining_checkpoint import load_pretraining_policy

        config = policy.config
        chosen = config.video.checkpoint
        if chosen is None and (source is None or source.read_config().get("stage") != PRETRAIN):
            start = "random weights" if source is None else f"the finetuned checkpoint {source.path}"
            raise VideoError(
                f"The latents of the video {config.video.repo_id} need a pretraining checkpoint to infer them, but this "
                f"training starts from {start}: name one with {FLAG}.checkpoint, finetune one with --policy.path, or leave "
                f"out the video with {FLAG}.repo_id=null."
            )
        place = source if chosen is None else Source(chosen)
        assert place is not None
        flag = "--policy.path" if chosen is None else f"{FLAG}.checkpoint"
        teacher = load_pretraining_policy(
            place.path, [f"--device={config.device}"], revision=place.revision, flag=flag
        )
        if teacher.pretraining.inverse_dynamics is None:
            raise VideoError(
                f"{place.path} was pretrained with latent_action.source=policy and has no inverse dynamics to infer "
                f"the video's latents: choose another {flag}, pretrained with "
                "--policy.latent_action.source=inverse_dynamics."
            )
        config.latent_action = teacher.config.latent_action
        latents = self.video.infer_latents(teacher)
        return latents, load_weights(place.weights_file()) if chosen is None else {}

    def loss(self, demonstrated: int) -> Tensor:
        """The policy's own loss () on the latents of the next frames of the video, beside so many demonstrated samples."""
        config = self.twin.config
        if self._batches is None:
            batch_size = config.video.batch_size or max(1, demonstrated // 2)
            self._batches = video_batches(self.samples, config, batch_size, self.steps)
        batch = next(self._batches)
        latents, valid = batch.pop("latents"), batch.pop("valid")  # (B,H,Z), (B,H)
        seen = self._completed(self.preprocess(batch), len(latents))
        self.steps += 1
        self.twin.train()
        device = next(self.twin.parameters()).device
        labelled = self.twin.with_latents(self.twin.prepare_batch(seen), latents.to(device), valid.to(device))
        return self.twin.wrapped_loss(labelled)[0]

    def _completed(self, seen: dict[str, Any], batch_size: int) -> dict[str, Any]:
        """The observation with what the video lacks at its mean, and the state dropped as the demonstrations' is."""
        config = self.twin.config
        features, history = config.input_features or {}, config.wrapped_history
        like = seen[next(iter(self.video.cameras))]
        for key in self.video.lacks(config):
            shape = features[key].shape  # (C,h,w) or (S,)
            mean = self.means[key].to(like).expand(shape)
            seen[key] = mean.expand(batch_size, *([] if history is None else [len(history)]), *shape)
        if self.video.has_state and config.state_dropout:
            seen[OBS_STATE] = drop_samples(seen[OBS_STATE], self.means[OBS_STATE], config.state_dropout)
        return seen

    def save(self, directory: Path) -> None:
        """Write what going on with the training needs beside a checkpoint's weights."""
        state = {f"{_OWN}{name}": parameter.detach().contiguous() for name, parameter in self.own.items()}
        state |= {"latents": self.latents, "lengths": self.video.lengths, "steps": torch.tensor(self.steps)}
        save_file(state, directory / COTRAINING_FILE)

    def _say(self, policy: LawmPolicy) -> None:
        config, reader = policy.config, self.video.reader
        shown = ", ".join(key if key == own else f"{own} as {key}" for key, own in self.video.cameras.items())
        logger.info(
            f"Co-training on {len(reader.episodes)} episodes ({len(self.latents)} frames) of {config.video.repo_id}: "
            f"{shown}; {sum(p.numel() for p in self.own.values()):,} parameters of the latents' own."
        )
        lacking = self.video.lacks(config)
        if OBS_STATE in lacking and not config.state_dropout:
            logger.warning(
                "The video has no state and every demonstration has one, by which the policy can tell them apart: "
                "drop it in some demonstrations with --policy.state_dropout=0.5, or leave it out with "
                "--policy.use_state=false."
            )


def _saved_state(source: Source | None) -> dict[str, Tensor] | None:
    """Read what a co-trained checkpoint keeps for going on; None from another checkpoint."""
    file = Path(source.path) / COTRAINING_FILE if source is not None else None
    return load_weights(file) if file is not None and file.is_file() else None


def _start_from(own: Mapping[str, nn.Parameter], weights: Mapping[str, Tensor]) -> None:
    """Start a twin's own parameters from a co-trained checkpoint's, or from the pretraining checkpoint's."""
    with torch.no_grad():
        for name, parameter in own.items():
            given = weights.get(f"{_OWN}{name}", weights.get(name))
            if given is not None and given.shape == parameter.shape:
                parameter.copy_(given)
