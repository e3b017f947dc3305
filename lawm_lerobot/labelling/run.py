"""The run of ``lawm-label-actions``, its steps in order."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
from lerobot.utils.constants import ACTION, HF_LEROBOT_HOME
from lerobot.utils.device_utils import auto_select_torch_device
from tqdm import tqdm

from lawm_lerobot.files import written_aside
from lawm_lerobot.labelling.configuration import AUTO, FINETUNED, INVERSE_MODEL, READOUT, LabelActionsConfig
from lawm_lerobot.labelling.dataset import copies_for_share, write_labelled_dataset
from lawm_lerobot.labelling.decoders import DecodedCorpus, Demonstration, FittedDecoder
from lawm_lerobot.labelling.inverse_model import fit_inverse_model
from lawm_lerobot.labelling.latent_readout import fit_latent_readout, frame_features
from lawm_lerobot.labelling.recordings import Recordings, open_recordings, read_demonstrations
from lawm_lerobot.labelling.report import PICTURE, write_report
from lawm_lerobot.labels.configuration import LabelsConfig
from lawm_lerobot.labels.demonstrations import digest
from lawm_lerobot.method.inverse_dynamics import InverseDynamics
from lawm_lerobot.policies.common.policy import LawmPolicy
from lawm_lerobot.policies.common.pretraining_checkpoint import load_pretraining_checkpoint
from lawm_lerobot.policy_flags import PolicyFlags

logger = logging.getLogger(__name__)

# A decoder that surely has a lower R2 is of no use.
USEFUL_R2 = 0.1


def label_actions(config: LabelActionsConfig) -> Path:
    """Write the labelled dataset and its report; returns the dataset's folder, which appears when it is complete.

    Raises:
        FileExistsError: If the output exists.
        ParsingError: If flags do not fit.
        ValueError: If datasets and checkpoint do not fit, or no decoder beats the mean action.
    """
    config.check()
    root = Path(config.output_root) if config.output_root else HF_LEROBOT_HOME / config.output_repo_id
    if root.exists():
        raise FileExistsError(f"{root} exists, expected a new folder: change --output_root.")
    device = config.device or auto_select_torch_device().type
    policy = None
    if config.policy.path is not None and config.decoder != INVERSE_MODEL:
        policy = open_checkpoint(config.policy, device)
    recordings = open_recordings(config, policy)
    demonstrations = read_demonstrations(recordings)
    decoders = fit_decoders(config, policy, demonstrations, device)
    decoders, chosen = judge(decoders, unseen_demonstrations(recordings, policy))
    decoded = decode_corpus(chosen, recordings, config.min_confidence)
    copies = demonstration_copies(config, recordings, decoded)
    with written_aside(root) as unfinished:
        write_labelled_dataset(recordings, decoded, config.output_repo_id, copies, unfinished)
        write_report(config, recordings, decoders, decoded, copies, unfinished)
    logger.info(
        f"Labelled {len(decoded.kept)} episodes by {chosen.name} ({chosen.held_out}, mean confidence "
        f"{decoded.mean_confidence:.2f}); "
        f"{len(recordings.corpus.episodes) - len(decoded.kept)} left out below "
        f"--min_confidence={config.min_confidence}. Wrote {root}"
    )
    return root


def open_checkpoint(given: PolicyFlags, device: str) -> LawmPolicy:
    """Load a pretraining checkpoint; raises ValueError unless it can read latents from video."""
    assert given.path is not None
    policy, _ = load_pretraining_checkpoint(given.path, [*given.overrides, f"--device={device}"])
    if policy.pretraining.inverse_dynamics is None:
        raise ValueError(
            "The checkpoint was pretrained with latent_action.source=policy, so it has no inverse dynamics to "
            "read latents from video: choose --decoder=inverse_model, or another --policy.path."
        )
    return policy


def fit_decoders(
    config: LabelActionsConfig, policy: LawmPolicy | None, demonstrations: list[Demonstration], device: str
) -> dict[str, FittedDecoder]:
    """Fit every decoder that the flags and the checkpoint allow, by name."""
    decoders: dict[str, FittedDecoder] = {}
    folds, seed = config.folds, config.seed
    if policy is not None and config.decoder in (AUTO, READOUT):
        features, stride = frame_features(policy, device), policy.config.latent_action.stride
        decoders[READOUT] = fit_latent_readout(demonstrations, features, stride, folds, seed)
    network = policy.pretraining.inverse_dynamics if policy is not None else None
    if config.decoder == FINETUNED and not isinstance(network, InverseDynamics):
        raise ValueError(
            f"--decoder={FINETUNED} begins with a checkpoint's inverse dynamics, but this one has principal components in "
            "its place (idm.type): choose another --decoder or --policy.path."
        )
    if policy is not None and isinstance(network, InverseDynamics) and config.decoder in (AUTO, FINETUNED):
        idm, stride = policy.config.idm, policy.config.latent_action.stride
        training = replace(config.inverse_model, size=idm.size, context=idm.context, stride=stride)
        decoders[FINETUNED] = fit_inverse_model(demonstrations, training, folds, seed, device, network)
    if config.decoder in (AUTO, INVERSE_MODEL):
        decoders[INVERSE_MODEL] = fit_inverse_model(demonstrations, config.inverse_model, folds, seed, device)
    return decoders


def unseen_demonstrations(recordings: Recordings, policy: LawmPolicy | None) -> list[int]:
    """Numbers of the demonstrations in use whose actions did not shape the checkpoint's latents.

    They are known again by their content: a dataset may be copied, renamed or cut. A checkpoint without digests does not
    say which it has seen.
    """
    digests = [digest(recordings.demos.numbers(episode, ACTION)) for episode in recordings.episodes]
    labels = policy.config.labels if policy is not None else LabelsConfig()
    if labels.action_dims and not labels.digests:
        return []
    return [number for number, name in enumerate(digests) if name not in labels.digests]


def judge(
    decoders: dict[str, FittedDecoder], unseen: list[int]
) -> tuple[dict[str, FittedDecoder], FittedDecoder]:
    """Judge the decoders on the `unseen` demonstrations, and choose one of them.

    Without any, those that use the checkpoint cannot win against the inverse model. Raises ValueError if there is evidence
    that even the chosen one is hardly better than the mean action; little evidence that it is better leads to a warning.
    """
    if unseen:
        decoders = {name: fitted.judged_on(unseen) for name, fitted in decoders.items()}
    else:
        logger.warning(
            "The checkpoint's latents were shaped by these very demonstrations, so decoders that use them look better "
            "here than they are. To judge them, leave some out of pretraining with --policy.labels.episodes."
        )
    for fitted in decoders.values():
        logger.info(f"{fitted.name}: {fitted.held_out}")
    if unseen or len(decoders) == 1:
        # A decoder whose training diverged has an R2 that is no number.
        best = max(decoders.values(), key=lambda fitted: np.nan_to_num(fitted.held_out.r2, nan=-np.inf))
    else:
        best = decoders[INVERSE_MODEL]
    low, high = best.held_out.r2_interval
    if not high >= USEFUL_R2:
        raise ValueError(
            f"The best decoder ({best.name}) tells the actions of held-out demonstrations no better than their mean "
            f"does, or hardly so ({best.held_out}), so nothing was written: give more demonstrations "
            "(--labels.repo_id) or another view (--labels.camera)."
        )
    if low <= 0:
        logger.warning(
            f"The demonstrations are too few to say that {best.name} is any good: {best.held_out}. Look at "
            f"{PICTURE} before training on its actions, or give more demonstrations (--labels.repo_id)."
        )
    return decoders, best


def decode_corpus(decoder: FittedDecoder, recordings: Recordings, min_confidence: float) -> DecodedCorpus:
    """Decode every episode of the corpus, and keep those with the confidence asked for, at least one."""
    corpus, size = recordings.corpus, (recordings.image_size,) * 2
    decoded = []
    for episode in tqdm(corpus.episodes, desc="Labelling", unit="episode"):
        decoded.append(decoder(corpus.frames(episode, recordings.corpus_camera, size)))
        if not all(np.isfinite(values).all() for values in decoded[-1]):
            raise ValueError(
                f"The {decoder.name} decoder gives numbers that are not finite (NaN or infinite) for episode {episode} "
                f"of {corpus.dataset.repo_id}: its training diverged, so change --policy.path or --inverse_model.lr."
            )
    means = [float(confidence.mean()) for _, confidence in decoded]
    kept = [episode for episode, mean in zip(corpus.episodes, means, strict=True) if mean >= min_confidence]
    if not kept:
        raise ValueError(
            f"No episode has a mean confidence of {min_confidence} (the best has "
            f"{max(means):.2f}): lower --min_confidence."
        )
    actions, confidence = (np.concatenate(parts) for parts in zip(*decoded, strict=True))
    return DecodedCorpus(decoder.name, recordings.with_still(actions), confidence, means, kept)


def demonstration_copies(config: LabelActionsConfig, recordings: Recordings, decoded: DecodedCorpus) -> int:
    """Times that each demonstration stands in the result; 0 if it is not merged."""
    if not config.merge:
        return 0
    demonstrations = sum(map(recordings.demos.length, recordings.episodes))
    corpus = sum(map(recordings.corpus.length, decoded.kept))
    copies = copies_for_share(config.demonstration_share, demonstrations, corpus)
    share = copies * demonstrations / (copies * demonstrations + corpus)
    logger.info(
        f"Copies of each demonstration: {copies}; they make up {share:.0%} of all frames, and "
        f"--demonstration_share={config.demonstration_share} was asked for."
    )
    return copies
