"""The report on a policy with actions: how much it looks, and where."""

import logging
from pathlib import Path
from typing import Any

import lerobot
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies import make_pre_post_processors
from lerobot.processor.pipeline import ProcessorMigrationError
from safetensors import SafetensorError

import lawm_lerobot
from lawm_lerobot.files import write_json, written_aside
from lawm_lerobot.inspection.inputs import require_inputs
from lawm_lerobot.inspection.looking import FRAMES, LOOKS, Looking, measure_pairs, take_pairs
from lawm_lerobot.inspection.occlusion import Occlusions, occlude
from lawm_lerobot.policies.common.asking import AskedPolicy
from lawm_lerobot.policies.common.exporting import read_config
from lawm_lerobot.policies.common.finite_actions import require_finite_tensors
from lawm_lerobot.policies.common.loading import drop_backbone_weights, load_whole_policy

logger = logging.getLogger(__name__)

LOOKING = "looking.json"
PICTURE = "looking.png"


def load_policy(path: str, overrides: list[str]) -> AskedPolicy:
    """Load a checkpoint with actions and its preprocessor, in evaluation mode.

    Raises:
        OSError: If a file is not there.
        ValueError: If the weights are damaged or not finite, or it is from before LeRobot saved preprocessors.
    """
    config = read_config(path, overrides)
    if not config.use_peft:
        drop_backbone_weights(config)  # The checkpoint has them.
    try:
        policy = load_whole_policy(config).eval()
    except SafetensorError as error:
        raise ValueError(
            f"The weights of {path} cannot be read as safetensors ({error}): the file is damaged or incomplete; copy "
            "or download the checkpoint again, or change --policy.path."
        ) from error
    require_finite_tensors("weights", policy.state_dict())
    lacking = f"{path} has no preprocessor"
    try:
        preprocessor, _ = make_pre_post_processors(
            config,
            path,
            config.pretrained_revision,
            preprocessor_overrides={"device_processor": {"device": config.device}},
        )
    except ProcessorMigrationError as error:
        raise ValueError(
            f"{lacking}, because a LeRobot from before there were any saved it: bring it up to date with "
            f"`{error.migration_command}`, or change --policy.path."
        ) from error
    except FileNotFoundError as error:
        reason = str(error).strip().splitlines()[0]
        raise FileNotFoundError(
            f"{lacking} ({reason}), expected what LeRobot saves beside the weights: copy or download the checkpoint again, "
            "or change --policy.path."
        ) from error
    return AskedPolicy(policy, preprocessor)


def inspect_policy(
    asked: AskedPolicy,
    meta: LeRobotDatasetMetadata,
    root: Path | None,
    output_dir: Path,
    frames: int | None,
    seed: int,
    tolerance_s: float,
) -> Looking:
    """Measure how much a policy looks, draw where, and write both to a new directory.

    Args:
        asked: The policy.
        meta: The metadata of the dataset.
        root: The dataset's directory, if it is not in LeRobot's own cache.
        output_dir: The directory to write.
        frames: The number of frames; None takes `FRAMES`.
        seed: The seed of the pairs of frames and of the policy's noise.
        tolerance_s: Seconds by which a picture's time may differ from its frame's.

    Raises:
        OSError: If ``output_dir`` holds something.
        ValueError: If the dataset lacks an input of the policy, or as for `looking.measure`.
    """
    require_inputs(asked.features, meta, meta.repo_id, "trained")
    wanted = FRAMES if frames is None else frames
    deltas = [delta / meta.fps for delta in asked.policy.config.observation_delta_indices or [] if delta <= 0]
    dataset = LeRobotDataset(
        meta.repo_id,
        root=root,
        delta_timestamps=dict.fromkeys(asked.features, deltas) if deltas else None,
        return_uint8=True,
        tolerance_s=tolerance_s,
    )
    pairs = take_pairs(asked, dataset, wanted, seed)
    if len(pairs.own) < wanted:
        logger.warning(f"The dataset has {len(pairs.own)} frames, fewer than the {wanted} asked for.")
    looking = measure_pairs(asked, pairs, seed, progress=True)
    occlusions = occlude(asked, pairs, looking.distance, seed, progress=True)
    about = {
        "policy": asked.policy.config.type,
        "dataset": meta.repo_id,
        "versions": f"lawm_lerobot {lawm_lerobot.__version__}, lerobot {lerobot.__version__}",
    }
    with written_aside(output_dir) as folder:
        folder.mkdir()
        _write(looking, occlusions, about, folder)
    logger.log(logging.INFO if looking.verdict == LOOKS else logging.WARNING, looking.sentence)
    logger.info(
        f"Looking: {looking.verdict} ({looking.frames} frames of {looking.episodes} episodes). See {output_dir / PICTURE}"
    )
    return looking


def _write(looking: Looking, occlusions: Occlusions, about: dict[str, Any], folder: Path) -> None:
    import matplotlib

    from lawm_lerobot.inspection.plots import draw_looking

    matplotlib.use("Agg")
    write_json(folder / LOOKING, {**looking.to_json(), "about": about})
    draw_looking(looking, occlusions, folder / PICTURE)
