"""The work of ``lawm-inspect``: from its flags to the report."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import lerobot
from draccus.utils import ParsingError
from lerobot.configs import PreTrainedConfig
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.video_utils import FrameTimestampError

import lawm_lerobot
from lawm_lerobot.files import written_aside
from lawm_lerobot.inspection.metrics import Metrics, measure
from lawm_lerobot.inspection.report import REPORT, write_report
from lawm_lerobot.inspection.sample import check_fit, take_sample
from lawm_lerobot.inspection.shown import choose_shown, require_rerun, show_in_rerun
from lawm_lerobot.inspection.verdict import HEALTHY, Findings, judge
from lawm_lerobot.policies.common.configuration import LawmConfig
from lawm_lerobot.policies.common.pretraining_checkpoint import load_pretraining_checkpoint, open_clips

logger = logging.getLogger(__name__)

RERUN = "rerun"


@dataclass
class InspectedDataset:
    """The dataset to look at.

    Args:
        repo_id: A LeRobotDataset with the cameras, and the state if any, of pretraining. Actions are compared, if any.
        root: The dataset's directory, if it is not in LeRobot's own cache.
    """

    repo_id: str
    root: Path | None = None


@dataclass
class InspectConfig:
    """Flags of ``lawm-inspect``.

    Args:
        dataset: The dataset to look at; best one that was not pretrained on.
        output_dir: The directory of the report; it must not exist yet, or be empty.
        policy: Give ``--policy.path=<directory or Hub id>``, a ``lawm_*`` pretraining checkpoint.
        clips: The number of clips, spaced evenly over the dataset.
        seed: The seed of the shuffles, of the baselines with random weights, and of the probes' splits.
        display: ``rerun`` opens the Rerun viewer besides.
        tolerance_s: Seconds by which a picture's time may differ from its frame's, as LeRobot's ``--tolerance_s``.
    """

    dataset: InspectedDataset
    output_dir: Path
    policy: PreTrainedConfig | None = None
    clips: int = 256
    seed: int = 0
    display: str | None = None
    tolerance_s: float = 1e-4

    def __post_init__(self) -> None:
        if self.clips < 2:
            raise ParsingError(f"clips is {self.clips}, expected at least 2: change --clips.")
        if self.display not in (None, RERUN):
            raise ParsingError(f"display is {self.display!r}, expected {RERUN!r}: change --display.")

    @classmethod
    def __get_path_fields__(cls) -> list[str]:
        """LeRobot's parser then takes ``--policy.path``."""
        return ["policy"]


def inspect_checkpoint(config: InspectConfig, path: str, overrides: list[str]) -> None:
    """Inspect the checkpoint at a directory or Hub id, its config changed by flags, and write the report.

    Raises:
        ImportError: If Rerun is asked for and not there.
        OSError: If there is no such checkpoint or dataset, or ``output_dir`` holds something.
        ValueError: If checkpoint and dataset do not fit, or the checkpoint is not one of pretraining.
    """
    output_dir = config.output_dir
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise FileExistsError(
            f"{output_dir} exists and is not empty, expected a new directory: change --output_dir."
        )
    if config.display == RERUN:
        require_rerun()
    # The report says what comes of weights that are not finite.
    policy, preprocessor = load_pretraining_checkpoint(_existing(path), overrides, finite=False)
    repo_id, root = config.dataset.repo_id, config.dataset.root
    warnings = check_fit(policy, _metadata(config.dataset), repo_id)
    dataset = open_clips(policy.config, repo_id, root, config.tolerance_s)
    try:
        sample = take_sample(policy, preprocessor, dataset, config.clips, config.seed)
    except FrameTimestampError as error:
        raise ValueError(
            f"Pictures of {repo_id} are not within {config.tolerance_s} s of their frames' times, as they are expected "
            "to be: raise --tolerance_s."
        ) from error
    if len(sample.frames) < config.clips:
        warnings.append(
            f"The dataset has {len(sample.frames)} whole clips, fewer than the {config.clips} asked for."
        )
    findings = judge(measure(policy, sample, config.seed))
    shown = choose_shown(policy, sample)
    with written_aside(output_dir) as folder:
        folder.mkdir()
        about = _about(policy.config, config, findings.metrics)
        write_report(sample, findings, shown, warnings, about, folder)
    _log(findings, warnings, output_dir / REPORT)
    if config.display == RERUN:
        show_in_rerun(sample, shown)


def _about(policy: LawmConfig, config: InspectConfig, metrics: Metrics) -> dict[str, str]:
    latent_action, world_model = policy.latent_action, policy.world_model
    return {
        "policy": f"{policy.type}, world model {world_model.type} {world_model.size}, latents from "
        f"{latent_action.source.replace('_', ' ')}",
        "latents": f"{latent_action.dim}-dimensional, {latent_action.horizon} per clip, "
        f"{latent_action.stride} frames apart",
        "dataset": config.dataset.repo_id,
        "clips": f"{metrics.clips} of {metrics.episodes} episodes",
        "seed": str(config.seed),
        "versions": f"lawm_lerobot {lawm_lerobot.__version__}, lerobot {lerobot.__version__}",
    }


def _log(findings: Findings, warnings: Sequence[str], page: Path) -> None:
    for warning in warnings:
        logger.warning(warning)
    for line in [*(check.sentence for check in findings.checks.values()), *findings.remarks]:
        logger.info(line)
    logger.log(
        logging.INFO if findings.verdict == HEALTHY else logging.WARNING,
        f"Latent actions: {findings.verdict}. The report is {page}",
    )


def _existing(path: str) -> str:
    if not Path(path).is_dir() and (path.count("/") != 1 or path.startswith((".", "/", "~"))):
        raise FileNotFoundError(
            f"There is no directory {path}, expected a checkpoint's 'pretrained_model' directory or a Hub id "
            "(<user>/<name>): change --policy.path."
        )
    return path


def _metadata(dataset: InspectedDataset) -> LeRobotDatasetMetadata:
    try:
        return LeRobotDatasetMetadata(dataset.repo_id, root=dataset.root)
    except OSError as error:  # not there, not on the Hub, or no connection to it
        reason = str(error).strip().splitlines()[0]
        raise FileNotFoundError(
            f"The dataset {dataset.repo_id} could be opened neither here nor from the Hub ({reason}): change "
            "--dataset.repo_id or --dataset.root."
        ) from error
