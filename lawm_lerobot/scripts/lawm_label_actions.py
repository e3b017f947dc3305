"""``lawm-label-actions``: a copy of an unlabelled dataset with actions decoded from its video.

lawm-label-actions --policy.path=outputs/pretrained/checkpoints/last/pretrained_model --dataset.repo_id=me/videos \
    --labels.repo_id=me/demonstrations --output_repo_id=me/videos_labelled --merge=true
"""

import json
import logging
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import draccus
import numpy as np
import torch
from draccus.utils import ParsingError
from lerobot.configs import PreTrainedConfig, parser
from lerobot.utils.constants import ACTION, HF_LEROBOT_HOME
from lerobot.utils.device_utils import auto_select_torch_device
from lerobot.utils.utils import init_logging
from torch import Tensor
from tqdm import tqdm

from lawm_lerobot.labelling.dataset import add_labels, copy_demonstrations, features_to_drop, merge
from lawm_lerobot.labelling.decoders import (
    INVERSE_MODEL,
    READOUT,
    Demonstration,
    FittedDecoder,
    InverseModelConfig,
    fit_inverse_model,
    fit_latent_readout,
)
from lawm_lerobot.labels.demonstrations import check_demonstrations, labelled_camera
from lawm_lerobot.labels.episodes import EpisodeReader
from lawm_lerobot.method.configuration import IMAGE_SIZES
from lawm_lerobot.policies.common.policy import LawmPolicy
from lawm_lerobot.policies.common.pretraining_checkpoint import load_pretraining_checkpoint

logger = logging.getLogger(__name__)

AUTO = "auto"
REPORT, PICTURE = "label_report.json", "label_report.png"


@dataclass
class CorpusConfig:
    """The unlabelled dataset.

    Args:
        repo_id: Its name.
        root: Its folder; None looks it up as LeRobot does.
        revision: On the Hub.
        camera: What the decoder sees; None takes the checkpoint's, or the only one.
    """

    repo_id: str = ""
    root: Path | None = None
    revision: str | None = None
    camera: str | None = None


@dataclass
class DemonstrationsConfig(CorpusConfig):
    """The labelled demonstrations; also `episodes`, to use only some of them."""

    episodes: list[int] | None = None


@dataclass
class LabelActionsConfig:
    """Flags of ``lawm-label-actions``.

    Args:
        dataset: The unlabelled dataset.
        labels: A few labelled demonstrations of the same robot's frame rate and view.
        output_repo_id: Name of the result.
        output_root: Its folder, which must not exist; by default LeRobot's home and the name.
        policy: Give ``--policy.path=<pretraining checkpoint>``; without it only ``inverse_model`` can decode.
        decoder: ``readout``, a ridge on the checkpoint's frozen latents; ``inverse_model``, a small network
            trained on the demonstrations alone; ``auto``, the one with the better R2 on held-out
            demonstrations. Demonstrations whose actions shaped the checkpoint's latents (its
            ``--policy.labels.*``) flatter the read-out, so others decide; without any, it is the inverse model.
        inverse_model: Of the inverse model.
        image_size: Pixels of the square frames the inverse model sees; beside a read-out it sees the checkpoint's.
        min_confidence: Leave out episodes whose mean confidence is below this, from 0 to 1.
        merge: Put the demonstrations in as well, with a confidence of 1.
        folds: Groups of demonstrations that are held out in turn.
        seed: Of folds, bootstraps and the inverse model.
        device: Where the networks run; None takes the best there is.
    """

    dataset: CorpusConfig = field(default_factory=CorpusConfig)
    labels: DemonstrationsConfig = field(default_factory=DemonstrationsConfig)
    output_repo_id: str = ""
    output_root: Path | None = None
    policy: PreTrainedConfig | None = None
    decoder: str = AUTO
    inverse_model: InverseModelConfig = field(default_factory=InverseModelConfig)
    image_size: int = 64
    min_confidence: float = 0.0
    merge: bool = False
    folds: int = 4
    seed: int = 0
    device: str | None = None

    @classmethod
    def __get_path_fields__(cls) -> list[str]:
        """LeRobot's parser then takes ``--policy.path``."""
        return ["policy"]

    def check(self) -> None:
        """Raises ValueError for what cannot work, before anything is read."""
        for flag, value in {
            "--dataset.repo_id": self.dataset.repo_id,
            "--labels.repo_id": self.labels.repo_id,
            "--output_repo_id": self.output_repo_id,
        }.items():
            if not value:
                raise ValueError(f"{flag} is missing: it names a dataset, as user/name.")
        if self.decoder not in (AUTO, READOUT, INVERSE_MODEL):
            raise ValueError(f"--decoder is {self.decoder!r}, expected {AUTO}, {READOUT} or {INVERSE_MODEL}.")
        if not 0 <= self.min_confidence <= 1:
            raise ValueError(f"--min_confidence is {self.min_confidence}, expected from 0 to 1.")
        if self.folds < 2:
            raise ValueError(f"--folds is {self.folds}, expected at least 2.")
        if self.image_size not in IMAGE_SIZES:
            raise ValueError(
                f"--image_size is {self.image_size}, expected one of {', '.join(map(str, IMAGE_SIZES))}."
            )


def label_actions(config: LabelActionsConfig, checkpoint: Path | str | None = None) -> Path:
    """Write the labelled dataset, its ``label_report.json`` and ``label_report.png``.

    Args:
        config: The command's flags.
        checkpoint: A pretraining checkpoint, or None for the inverse model alone.

    Returns:
        The dataset's folder, which appears when it is complete.

    Raises:
        FileExistsError: If the output exists.
        ValueError: If datasets, checkpoint and flags do not fit, or no decoder beats the mean action.
    """
    config.check()
    root = Path(config.output_root) if config.output_root else HF_LEROBOT_HOME / config.output_repo_id
    if root.exists():
        raise FileExistsError(f"{root} exists, expected a new folder: change --output_root.")
    if checkpoint is None and config.decoder == READOUT:
        raise ValueError(
            "--decoder=readout reads actions from a checkpoint's latents: add --policy.path=<pretraining "
            "checkpoint>, or choose --decoder=inverse_model."
        )
    device = config.device or auto_select_torch_device().type
    policy = None
    if checkpoint is not None and config.decoder != INVERSE_MODEL:
        policy, _ = load_pretraining_checkpoint(checkpoint, [f"--device={device}"])
    corpus, demos = _open_datasets(config, policy)
    size = config.image_size if policy is None else policy.config.world_model.image_size
    chosen, decoders = _fit(config, policy, corpus, demos, size, device)

    camera = _corpus_camera(config, corpus, policy)
    actions, confidence, episode_confidence = [], [], []
    for episode in tqdm(corpus.episodes, desc="Labelling", unit="episode"):
        told, trust = chosen(corpus.frames(episode, camera, (size, size)))
        actions.append(told)
        confidence.append(trust)
        episode_confidence.append(float(trust.mean()))
    keep = [
        e
        for e, trust in zip(corpus.episodes, episode_confidence, strict=True)
        if trust >= config.min_confidence
    ]
    if not keep:
        raise ValueError(
            f"No episode has a mean confidence of {config.min_confidence} (the best has "
            f"{max(episode_confidence):.2f}): lower --min_confidence."
        )
    report = {
        "decoder": chosen.name,
        "decoders": {name: _figures(fitted, demos) for name, fitted in decoders.items()},
        "demonstrations": len(_labelled_episodes(config, demos)),
        "judged_on": len(np.unique(chosen.held_out.episode)),
        "episodes": len(keep),
        "episodes_left_out": len(corpus.episodes) - len(keep),
        "frames": sum(corpus.length(episode) for episode in keep),
        "mean_confidence": round(float(np.concatenate(confidence).mean()), 4),
        "episode_confidence": [round(trust, 4) for trust in episode_confidence],
        "merged": config.merge,
        "settings": draccus.encode(config) | {"policy": str(checkpoint) if checkpoint else None},
    }
    _write(
        config, corpus, demos, np.concatenate(actions), np.concatenate(confidence), keep, chosen, report, root
    )
    logger.info(
        f"Labelled {len(keep)} episodes by {chosen.name} (R2 {chosen.held_out.r2:.2f} on held-out "
        f"demonstrations, mean confidence {report['mean_confidence']:.2f}); {report['episodes_left_out']} left "
        f"out below --min_confidence={config.min_confidence}. Wrote {root}"
    )
    return root


def _open_datasets(
    config: LabelActionsConfig, policy: LawmPolicy | None
) -> tuple[EpisodeReader, EpisodeReader]:
    data, labels = config.dataset, config.labels
    corpus = EpisodeReader(data.repo_id, data.root, data.revision, flag="--dataset")
    if ACTION in corpus.features:
        raise ValueError(
            f"{data.repo_id} has an 'action' already, expected an unlabelled dataset: change "
            "--dataset.repo_id, or remove it with LeRobot's lerobot-edit-dataset."
        )
    demos = EpisodeReader(labels.repo_id, labels.root, labels.revision, flag="--labels")
    episodes = _labelled_episodes(config, demos)
    if len(episodes) < 2 or not set(episodes) <= set(demos.episodes):
        raise ValueError(
            f"Demonstrations {episodes} were asked for, expected at least two of 0 to "
            f"{len(demos.episodes) - 1}, one of them to hold out: change --labels.episodes."
        )
    strides = [policy.config.latent_action.stride] if policy is not None else []
    strides += [config.inverse_model.stride] if config.decoder != READOUT else []
    check_demonstrations(demos, corpus.fps, max(strides))
    if policy is not None and policy.config.dataset_fps not in (None, corpus.fps):
        raise ValueError(
            f"The checkpoint was pretrained at {policy.config.dataset_fps} frames per second and "
            f"{data.repo_id} has {corpus.fps}: resample it with lawm-import-videos --fps, or change --policy.path."
        )
    if config.merge:
        features_to_drop(corpus.features, demos.features)  # raises now rather than after the work
    return corpus, demos


def _labelled_episodes(config: LabelActionsConfig, demos: EpisodeReader) -> list[int]:
    return demos.episodes if config.labels.episodes is None else sorted(set(config.labels.episodes))


def _corpus_camera(config: LabelActionsConfig, corpus: EpisodeReader, policy: LawmPolicy | None) -> str:
    same_as = policy.camera if policy is not None else None
    return labelled_camera(corpus, config.dataset.camera, same_as, "--dataset.camera")


def _fit(
    config: LabelActionsConfig,
    policy: LawmPolicy | None,
    corpus: EpisodeReader,
    demos: EpisodeReader,
    size: int,
    device: str,
) -> tuple[FittedDecoder, dict[str, FittedDecoder]]:
    """The chosen decoder, and all that were fitted."""
    camera = labelled_camera(
        demos, config.labels.camera, _corpus_camera(config, corpus, policy), "--labels.camera"
    )
    bar = tqdm(_labelled_episodes(config, demos), desc="Reading the demonstrations", unit="episode")
    demonstrations = [
        Demonstration(demos.frames(episode, camera, (size, size)), demos.numbers(episode, ACTION))
        for episode in bar
    ]
    decoders: dict[str, FittedDecoder] = {}
    if policy is not None:
        if policy.pretraining.inverse_dynamics is None:
            raise ValueError(
                "The checkpoint was pretrained with latent_action.source=policy, so it has no inverse dynamics to "
                "read latents from video: choose --decoder=inverse_model, or another --policy.path."
            )
        stride = policy.config.latent_action.stride
        decoders[READOUT] = fit_latent_readout(
            demonstrations, latents_of_episodes(policy, device), stride, config.folds, config.seed
        )
    if config.decoder != READOUT:
        decoders[INVERSE_MODEL] = fit_inverse_model(
            demonstrations, config.inverse_model, config.folds, config.seed, device
        )
    fresh = list(range(len(demonstrations)))
    if policy is not None:
        seen = _shaped_the_latents(config, policy, demos)
        fresh = [i for i, e in enumerate(_labelled_episodes(config, demos)) if e not in seen]
    if fresh:
        decoders = {name: fitted.judged_on(fresh) for name, fitted in decoders.items()}
    else:
        logger.warning(
            "The checkpoint's latents were shaped by these very demonstrations, so its read-out looks better on "
            "them than it is. To judge it, leave some out of pretraining with --policy.labels.episodes."
        )
    for fitted in decoders.values():
        logger.info(f"{fitted.name}: R2 {fitted.held_out.r2:.3f} on held-out demonstrations")
    if fresh or len(decoders) == 1:
        best = max(decoders.values(), key=lambda fitted: fitted.held_out.r2)
    else:
        best = decoders[INVERSE_MODEL]
    if not best.held_out.r2 > 0:
        raise ValueError(
            f"The best decoder ({best.name}) tells the actions of held-out demonstrations no better than their "
            f"mean does (R2 {best.held_out.r2:.2f}), so nothing was written: give more demonstrations "
            "(--labels.repo_id) or another view (--labels.camera)."
        )
    return best, decoders


def _shaped_the_latents(config: LabelActionsConfig, policy: LawmPolicy, demos: EpisodeReader) -> set[int]:
    """Those of the demonstrations whose actions the checkpoint was pretrained with."""
    used = policy.config.labels
    same_place = used.root is None or Path(used.root).resolve() == Path(demos.meta.root).resolve()
    if used.repo_id is None or used.repo_id != config.labels.repo_id or not same_place:
        return set()
    return set(demos.episodes if used.episodes is None else used.episodes)


def latents_of_episodes(policy: LawmPolicy, device: str) -> Callable[[Tensor], np.ndarray]:
    """A function from an episode's frames (n,C,h,w) uint8 to z_t (n-stride,Z) of x_t -> x_{t+stride}."""
    stride = policy.config.latent_action.stride

    @torch.no_grad()
    def infer(frames: Tensor) -> np.ndarray:
        pixels = frames.to(device).float() / 255
        if len(frames) <= stride:
            # Too short for a transition: as if nothing happened after its last frame.
            pixels = torch.cat([pixels, pixels[-1:].expand(stride + 1 - len(frames), -1, -1, -1)])
        latents = torch.empty(len(pixels) - stride, policy.config.latent_action.dim)
        for phase in range(min(stride, len(latents))):
            clip = pixels[phase::stride][None]  # (1,T,C,h,w)
            valid = torch.ones(1, clip.shape[1] - 1, dtype=torch.bool, device=device)
            latents[phase::stride] = policy.pretraining.infer_latents(clip, valid)[0].cpu()
        return latents.numpy()

    return infer


def _figures(fitted: FittedDecoder, demos: EpisodeReader) -> dict[str, Any]:
    names = action_names(demos)
    r2 = {
        name: None if np.isnan(value) else round(float(value), 4)
        for name, value in zip(names, fitted.held_out.r2_per_dimension, strict=True)
    }
    return {"held_out_r2": round(fitted.held_out.r2, 4), "held_out_r2_per_dimension": r2}


def action_names(demos: EpisodeReader) -> list[str]:
    """Names of the action's dimensions, however the dataset writes them."""
    feature = demos.features[ACTION]
    names = feature.get("names")
    if isinstance(names, dict):
        names = next((value for value in names.values() if isinstance(value, list)), list(names))
    dimension = int(feature["shape"][0])
    if not isinstance(names, list) or len(names) != dimension:
        return [f"action_{i}" for i in range(dimension)]
    return [str(name) for name in names]


def _write(
    config: LabelActionsConfig,
    corpus: EpisodeReader,
    demos: EpisodeReader,
    actions: np.ndarray,
    confidence: np.ndarray,
    keep: list[int],
    chosen: FittedDecoder,
    report: dict[str, Any],
    root: Path,
) -> None:
    """Everything into a sibling folder, which gets its name at the end."""
    root.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        drop, drop_demos = features_to_drop(corpus.features, demos.features) if config.merge else ([], [])
        feature = {key: demos.features[ACTION].get(key) for key in ("dtype", "shape", "names")}
        labelled = unfinished / "labelled"
        add_labels(
            corpus.dataset,
            actions,
            confidence,
            {**feature, "dtype": "float32"},
            demos.meta.robot_type,
            keep,
            drop,
            labelled,
        )
        if config.merge:
            for key in (*drop, *drop_demos):
                logger.warning(
                    f"{key} is in one of the two datasets only, so the merged one does without it."
                )
            part = unfinished / "demonstrations"
            copy_demonstrations(demos.dataset, _labelled_episodes(config, demos), drop_demos, part)
            merge(config.output_repo_id, [labelled, part], unfinished / "merged")
            labelled = unfinished / "merged"
        (labelled / REPORT).write_text(json.dumps(report, indent=2, ensure_ascii=False, default=str) + "\n")
        save_picture(chosen, action_names(demos), demos.fps, labelled / PICTURE)
        labelled.replace(root)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def save_picture(fitted: FittedDecoder, names: list[str], fps: int, file: Path, episodes: int = 3) -> None:
    """True and decoded actions of the first held-out demonstrations, one row per dimension."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    held_out = fitted.held_out
    shown = np.unique(held_out.episode)[:episodes]
    figure, axes = plt.subplots(
        len(names),
        len(shown),
        figsize=(4 * len(shown), 1.6 * len(names) + 0.6),
        squeeze=False,
        sharey="row",
        layout="constrained",
    )
    for dimension, name in enumerate(names):
        for episode in range(len(shown)):
            rows, axis = held_out.episode == shown[episode], axes[dimension][episode]
            time = np.arange(rows.sum()) / fps
            axis.plot(time, held_out.true[rows, dimension], color="0.55", label="true")
            axis.plot(time, held_out.decoded.actions[rows, dimension], color="tab:blue", label="decoded")
            if dimension == 0:
                axis.set_title(f"held-out demonstration {shown[episode]}", fontsize=9)
            if dimension == len(names) - 1:
                axis.set_xlabel("s")
        axes[dimension][0].set_ylabel(f"{name}\nR2 {held_out.r2_per_dimension[dimension]:.2f}", fontsize=8)
    axes[0][0].legend(fontsize=8)
    figure.suptitle(f"Actions told by the {fitted.name} decoder, R2 {held_out.r2:.2f}", fontsize=10)
    figure.savefig(file, dpi=90)
    plt.close(figure)


@parser.wrap()
def run(cfg: LabelActionsConfig) -> Path:
    return label_actions(cfg, parser.get_path_arg("policy"))


def main() -> None:
    """Entry point: what the user did wrong in one sentence and a non-zero exit code, not a traceback."""
    init_logging()
    try:
        run()
    except (ValueError, OSError, RuntimeError, ParsingError) as error:
        sys.exit(f"lawm-label-actions: {error}")


if __name__ == "__main__":
    main()
