"""The work of ``lawm-inspect``: from its flags to the report."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import lerobot
from draccus.utils import ParsingError
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.video_utils import FrameTimestampError
from lerobot.utils.import_utils import register_third_party_plugins

import lawm_lerobot
from lawm_lerobot.files import written_aside
from lawm_lerobot.inspection import looking
from lawm_lerobot.inspection.configuration import RERUN, InspectConfig, InspectedDataset
from lawm_lerobot.inspection.dataset import verdict as dataset_verdict
from lawm_lerobot.inspection.dataset.report import inspect_data
from lawm_lerobot.inspection.metrics import Metrics, measure
from lawm_lerobot.inspection.planning import measure_planning
from lawm_lerobot.inspection.policy_report import inspect_policy, load_policy
from lawm_lerobot.inspection.report import REPORT, write_report
from lawm_lerobot.inspection.sample import check_fit, take_sample
from lawm_lerobot.inspection.shown import choose_shown, require_rerun, show_in_rerun
from lawm_lerobot.inspection.verdict import (
    HEALTHY,
    NOT_FINITE,
    VERDICTS,
    Findings,
    judge,
    known_verdict,
    require_verdict,
)
from lawm_lerobot.policies.common.configuration import LawmConfig
from lawm_lerobot.policies.common.exporting import read_config
from lawm_lerobot.policies.common.pretraining_checkpoint import load_pretraining_checkpoint, open_clips

logger = logging.getLogger(__name__)

CLIPS = 256


def inspect_checkpoint(config: InspectConfig) -> None:
    """Inspect the checkpoint of ``--policy.path``, its config changed by flags, and write the report.

    What it says on disk decides which report: on latent actions if it is one of pretraining, else on how much it looks.

    Raises:
        ImportError: If Rerun is asked for and not there.
        OSError: If there is no such checkpoint or dataset, or ``output_dir`` holds something.
        ParsingError: If a flag is of the other kind of checkpoint.
        ValueError: If checkpoint and dataset do not fit, or the verdict is worse than the required one.
    """
    _require_new(config.output_dir)
    register_third_party_plugins()
    path, overrides = config.policy.path, config.policy.overrides
    assert path is not None
    saved = read_config(_existing(path), [flag for flag in overrides if "pretrained_revision" in flag])
    pretraining = isinstance(saved, LawmConfig) and saved.pretraining
    kind = "a pretraining checkpoint" if pretraining else "a policy with actions"
    _refuse_flags(config, f"{path} is {kind}", ["frames"] if pretraining else ["clips", "display"])
    order = VERDICTS if pretraining else looking.VERDICTS
    required = known_verdict(config.require, order)
    if config.display == RERUN:
        require_rerun()
    try:
        verdict = (_inspect_pretraining if pretraining else _inspect_policy)(config, path, overrides)
    except FrameTimestampError as error:
        raise ValueError(
            f"Pictures of {config.dataset.repo_id} are not within {config.tolerance_s} s of their frames' times, as they "
            "are expected to be: raise --tolerance_s."
        ) from error
    require_verdict(verdict, required, order)


def inspect_dataset(config: InspectConfig) -> None:
    """Look at a dataset without any policy, and write the report.

    Raises:
        OSError: If there is no such dataset, or ``output_dir`` holds something.
        ParsingError: If a flag is of a policy.
        ValueError: If the dataset cannot be read, or the verdict is worse than the required one.
    """
    _require_new(config.output_dir)
    if config.policy.overrides:
        raise ParsingError(
            "--policy flags were given without a checkpoint, expected --policy.path=<directory or Hub id>: give it, or leave "
            "all of them out to look at the dataset itself."
        )
    _refuse_flags(config, "Without --policy.path it is a look at the dataset", ["clips", "display"])
    order = dataset_verdict.VERDICTS
    required = known_verdict(config.require, order)
    repo_id, root = _metadata(config.dataset).repo_id, config.dataset.root
    found = inspect_data(repo_id, root, config.output_dir, config.frames, config.tolerance_s)
    require_verdict(found.verdict, required, order)


def _require_new(output_dir: Path) -> None:
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise FileExistsError(
            f"{output_dir} exists and is not empty, expected a new directory: change --output_dir."
        )


def _refuse_flags(config: InspectConfig, why: str, names: Sequence[str]) -> None:
    for name in names:
        if getattr(config, name) is not None:
            raise ParsingError(f"{why}, for which --{name} means nothing: leave it out.")


def _inspect_policy(config: InspectConfig, path: str, overrides: list[str]) -> str:
    """Report on how much a policy with actions looks; returns the verdict."""
    asked = load_policy(path, overrides)
    meta = _metadata(config.dataset)
    return inspect_policy(
        asked,
        meta,
        config.dataset.root,
        config.output_dir,
        config.frames,
        config.seed,
        config.tolerance_s,
    ).verdict


def _inspect_pretraining(config: InspectConfig, path: str, overrides: list[str]) -> str:
    """Report on what a pretraining checkpoint has learned; returns the verdict."""
    # The report says what comes of weights that are not finite.
    policy, preprocessor = load_pretraining_checkpoint(path, overrides, finite=False)
    repo_id, root = config.dataset.repo_id, config.dataset.root
    warnings = check_fit(policy, _metadata(config.dataset), repo_id)
    dataset = open_clips(policy.config, repo_id, root, config.tolerance_s)
    clips = CLIPS if config.clips is None else config.clips
    sample = take_sample(policy, preprocessor, dataset, clips, config.seed)
    if len(sample.frames) < clips:
        warnings.append(
            f"The dataset has {len(sample.frames)} whole clips, fewer than the {clips} asked for."
        )
    findings = judge(measure(policy, sample, config.seed))
    planning = None
    if findings.verdict != NOT_FINITE:
        planning = measure_planning(policy, preprocessor, dataset, config.seed)
        findings = replace(findings, remarks=[*findings.remarks, str(planning)])
    shown = choose_shown(policy, sample)
    with written_aside(config.output_dir) as folder:
        folder.mkdir()
        about = _about(policy.config, config, findings.metrics)
        write_report(sample, findings, shown, planning, warnings, about, folder)
    _log(findings, warnings, config.output_dir / REPORT)
    if config.display == RERUN:
        show_in_rerun(sample, shown)
    return findings.verdict


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
