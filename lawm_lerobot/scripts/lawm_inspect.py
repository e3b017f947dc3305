"""``lawm-inspect``: what a pretraining checkpoint has learned, as a report with pictures and a verdict.

lawm-inspect --policy.path=outputs/pretrained/checkpoints/last/pretrained_model --dataset.repo_id=me/video \
    --output_dir=outputs/inspection
"""

import logging
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import lerobot
from draccus.utils import ParsingError
from lerobot.configs import PreTrainedConfig, parser
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.utils.utils import init_logging

import lawm_lerobot
from lawm_lerobot.inspection.display import require_rerun, show_in_rerun
from lawm_lerobot.inspection.inspection import HEALTHY, Findings, check_fit, inspect_sample, take_sample
from lawm_lerobot.inspection.report import REPORT, choose_shown, write_report
from lawm_lerobot.policies.common.imagination import load_pretraining_checkpoint, open_clips

logger = logging.getLogger(__name__)

RERUN = "rerun"


@dataclass
class InspectedDataset:
    """Args:
    repo_id: Of a LeRobotDataset with the cameras, and the state if any, that the checkpoint was pretrained with.
        It may have actions; they are compared with the latents.
    root: Where it is, if not in LeRobot's own cache.
    """

    repo_id: str
    root: Path | None = None


@dataclass
class InspectConfig:
    """Flags of ``lawm-inspect``.

    Args:
        dataset: What to look at; best one that was not pretrained on.
        output_dir: Where the report goes; must not exist yet, or be empty.
        policy: Give ``--policy.path=<directory or Hub id>``, a ``lawm_*`` pretraining checkpoint.
        clips: Number of clips, spread evenly over the dataset.
        seed: Of the shuffles, of the baselines with random weights, and of the probes' splits.
        display: ``rerun`` opens the Rerun viewer besides.
    """

    dataset: InspectedDataset
    output_dir: Path
    policy: PreTrainedConfig | None = None
    clips: int = 256
    seed: int = 0
    display: str | None = None

    def __post_init__(self) -> None:
        if self.clips < 2:
            raise ParsingError(f"clips is {self.clips}, expected at least 2: change --clips.")
        if self.display not in (None, RERUN):
            raise ParsingError(f"display is {self.display!r}, expected {RERUN!r}: change --display.")

    @classmethod
    def __get_path_fields__(cls) -> list[str]:
        """LeRobot's parser then takes ``--policy.path``."""
        return ["policy"]


def inspect_checkpoint(cfg: InspectConfig, path: str, overrides: list[str]) -> Findings:
    """Write the report.

    Args:
        cfg: The command's.
        path: Of the checkpoint: a directory or a Hub id.
        overrides: Flags of the policy's config, without ``--policy.``.

    Raises:
        FileExistsError: If ``output_dir`` holds something.
        FileNotFoundError: If there is no such checkpoint or dataset.
        ImportError: If Rerun is asked for and not there.
        ValueError: If checkpoint and dataset do not fit, or the checkpoint is not one of pretraining.
    """
    output_dir = cfg.output_dir
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise FileExistsError(
            f"{output_dir} exists and is not empty, expected a new directory: change --output_dir."
        )
    if cfg.display == RERUN:
        require_rerun()
    policy, preprocessor = load_pretraining_checkpoint(_existing(path), overrides)
    meta = _metadata(cfg.dataset)
    warnings = check_fit(policy, meta, cfg.dataset.repo_id)
    dataset = open_clips(policy.config, cfg.dataset.repo_id, cfg.dataset.root)
    sample = take_sample(policy, preprocessor, dataset, cfg.clips, cfg.seed)
    if len(sample.frames) < cfg.clips:
        warnings.append(
            f"The dataset has {len(sample.frames)} whole clips, fewer than the {cfg.clips} asked for."
        )
    findings = inspect_sample(policy, sample, cfg.seed)
    shown = choose_shown(policy, sample)

    latent_action = policy.config.latent_action
    about = {
        "policy": f"{policy.config.type}, world model {policy.config.world_model.type} "
        f"{policy.config.world_model.size}, latents from {latent_action.source.replace('_', ' ')}",
        "latents": f"{latent_action.dim}-dimensional, {latent_action.horizon} per clip, "
        f"{latent_action.stride} frames apart",
        "dataset": cfg.dataset.repo_id,
        "clips": f"{len(sample.frames)} of {findings.figures['episodes']} episodes",
        "seed": str(cfg.seed),
        "versions": f"lawm_lerobot {lawm_lerobot.__version__}, lerobot {lerobot.__version__}",
    }
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{output_dir.name}-", dir=output_dir.parent))
    try:
        write_report(policy, sample, findings, shown, warnings, about, unfinished)
        if output_dir.exists():
            output_dir.rmdir()  # It is empty; replace() would refuse it on some systems.
        unfinished.chmod(0o755)  # mkdtemp's is for its owner only
        unfinished.replace(output_dir)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)

    for warning in warnings:
        logger.warning(warning)
    for line in [*(check.sentence for check in findings.checks.values()), *findings.remarks]:
        logger.info(line)
    logger.log(
        logging.INFO if findings.verdict == HEALTHY else logging.WARNING,
        f"Latent actions: {findings.verdict}. The report is {output_dir / REPORT}",
    )
    if cfg.display == RERUN:
        show_in_rerun(sample, shown)
    return findings


def _existing(path: str) -> str:
    """The path, if it is a directory or can be a Hub id."""
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


@parser.wrap()
def inspect(cfg: InspectConfig) -> Findings:
    path = parser.get_path_arg("policy")
    if path is None:
        raise ValueError("No checkpoint was given: pass --policy.path=<lawm_* pretraining checkpoint>.")
    overrides = parser.get_yaml_overrides("policy") + (parser.get_cli_overrides("policy") or [])
    return inspect_checkpoint(cfg, path, overrides)


def main() -> None:
    """Entry point: what the user did wrong in one sentence and a non-zero exit code, not a traceback."""
    init_logging()
    # LeRobot decodes with PyAV where torchcodec finds no FFmpeg, and says so in two hundred lines.
    logging.getLogger("lerobot.utils.import_utils").setLevel(logging.ERROR)
    try:
        inspect()
    except (ValueError, OSError, ImportError, RuntimeError, ParsingError) as error:
        sys.exit(f"lawm-inspect: {error}")
    except KeyboardInterrupt:
        sys.exit("lawm-inspect: interrupted, no report was written")


if __name__ == "__main__":
    main()
