"""Loading a checkpoint: what it may be loaded for, and whether its weights are taken as they are or transferred.

The decisions are made once, on the ``config.json`` that lies on disk.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.error import URLError

import draccus
from draccus.utils import DecodingError, ParsingError
from huggingface_hub.constants import SAFETENSORS_SINGLE_FILE
from lerobot.configs import PreTrainedConfig
from lerobot.policies import get_policy_class
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import ACTION
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from lawm_lerobot.checkpoints.reading import checkpoint_file, load_weights, read_policy_config
from lawm_lerobot.checkpoints.transfer import KEPT, Rule, TransferReport, transfer_tensors
from lawm_lerobot.policies.common.configuration import FINETUNE, PRETRAIN, LawmConfig

logger = logging.getLogger(__name__)

#: Options of LeRobot's `from_pretrained` that go on to `hf_hub_download`.
HUB_OPTIONS = ("token", "cache_dir", "local_files_only", "force_download", "proxies", "resume_download")


class PretrainingCheckpointError(ValueError):
    """A pretraining checkpoint was asked to control something."""

    def __init__(self, checkpoint: str) -> None:
        super().__init__(
            f"{checkpoint} is a LAWM pretraining checkpoint: it predicts latent actions, which no robot "
            "understands. Finetune it first: lerobot-train --policy.path="
            f"{checkpoint} --policy.stage={FINETUNE} --dataset.repo_id=<labelled demonstrations>."
        )


@dataclass(frozen=True)
class Source:
    """A checkpoint in a directory or on the Hub.

    Args:
        path: The directory or the Hub id.
        revision: The revision of the Hub repository; None takes the newest.
        hub_options: The options of `hf_hub_download`, a token for example.
    """

    path: str
    revision: str | None = None
    hub_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name by which a finetuned policy remembers the checkpoint."""
        return self.path if self.revision is None else f"{self.path}@{self.revision}"

    def read_config(self) -> dict[str, Any]:
        """Read ``config.json`` as plain data."""
        return read_policy_config(self.path, self.revision, **self.hub_options) or {}

    def weights_file(self) -> Path:
        """Find or download the weights."""
        return checkpoint_file(SAFETENSORS_SINGLE_FILE, self.path, self.revision, **self.hub_options)


def decide(
    source: Source,
    policy_class: type[PreTrainedPolicy],
    wanted: PreTrainedConfig | None,
    *,
    training: bool,
    allow_pretraining: bool,
) -> tuple[LawmConfig, PreTrainedConfig | None]:
    """Decide what a checkpoint is loaded as.

    Args:
        source: The checkpoint.
        policy_class: The policy that is to be built.
        wanted: The config that the caller brings; None takes the checkpoint's. It is changed in place, because
            LeRobot's training goes on with this very object: it saves it in ``train_config.json`` and reads from it
            at the end whether adapters were trained.
        training: A dataset says that the policy will be trained.
        allow_pretraining: A pretraining checkpoint may be loaded without training it.

    Returns:
        The config to build the policy from, and the config of the pretraining network whose weights are transferred,
        None if they belong to the stage that is wanted and are loaded as they are.

    Raises:
        PretrainingCheckpointError: If a pretraining checkpoint is loaded for control.
        ValueError: If the checkpoint is of another type, or does not go with the wanted config.
    """
    saved = source.read_config()
    if saved.get("type") != policy_class.name:
        raise ValueError(
            f"{source.path} holds a policy of type {saved.get('type')!r}, expected {policy_class.name!r}: change "
            "--policy.path, or start anew with --policy.type."
        )
    # Adapters that are to follow make it a finetuned policy.
    adapters = wanted is not None and wanted.use_peft and wanted.stage == FINETUNE
    if saved.get("stage") == PRETRAIN and not (training or adapters or allow_pretraining):
        raise PretrainingCheckpointError(source.path)
    config = wanted
    if config is None:
        config = PreTrainedConfig.from_pretrained(source.path, revision=source.revision, **source.hub_options)
    _require_fit(source.path, saved, config)
    # The weights are in the checkpoint: without this LeRobot would first download ImageNet's, only to overwrite
    # them, and fail on a robot without internet. Saved, so that an exported policy does not download them either.
    drop_backbone_weights(config)
    if not config.transfers_from(saved):
        return config, None
    # Saved: LeRobot's own ``pretrained_path`` changes when a run is resumed.
    config.transferred_from = source.name
    values = {key: value for key, value in saved.items() if key != draccus.CHOICE_TYPE_KEY}
    pretrained: LawmConfig = draccus.decode(policy_class.config_class, values)
    return config, pretrained.wrapped_config()


def _require_fit(path: str, saved: Mapping[str, Any], config: LawmConfig) -> None:
    if saved.get("stage") == FINETUNE and config.stage == PRETRAIN:
        raise ValueError(
            f"{path} is a finetuned checkpoint, which has no world model to go on pretraining with: "
            f"leave out --policy.stage={PRETRAIN}, or choose a pretraining checkpoint as --policy.path."
        )
    if config.base_path != saved.get("base_path"):
        raise ValueError(
            f"{path} is a checkpoint already, and --policy.base_path={config.base_path} would begin another "
            "one: leave out one of --policy.path and --policy.base_path."
        )
    published = config.push_to_hub and config.repo_id
    if config.transfers_from(saved) and published and config.repo_id == saved.get("repo_id"):
        raise ValueError(
            f"--policy.repo_id is {config.repo_id}, as in the pretraining checkpoint, which the finetuned policy "
            "would replace there: give another --policy.repo_id, or --policy.push_to_hub=false."
        )


def warn_of_going_on(source: Source, config: LawmConfig, dataset_meta: Any) -> None:
    """Say what a user may have forgotten who goes on pretraining from a checkpoint, and what the new dataset changes."""
    saved = source.read_config()
    if ACTION in dataset_meta.features:
        logger.warning(
            f"{source.path} is a pretraining checkpoint and its pretraining goes on, although the dataset has actions: "
            f"to finetune a policy that controls a robot, add --policy.stage={FINETUNE}."
        )
    before, now = saved.get("dataset_fps"), dataset_meta.fps
    if not before:
        return
    stride_before, stride = saved["latent_action"]["stride"], config.latent_action.stride
    seconds_before, seconds = stride_before / before, stride / now
    if not math.isclose(seconds_before, seconds, rel_tol=0.01):
        logger.warning(
            f"{source.path} was pretrained at {before:g} frames per second, where a latent action spans "
            f"{seconds_before:.2f} s ({stride_before} frames). At {now:g} frames per second and with a stride of "
            f"{stride} it spans {seconds:.2f} s: --policy.latent_action.stride={max(1, round(seconds_before * now))} "
            "comes closest to the time before."
        )


def require_readable_config(config: LawmConfig) -> None:
    """Raise ValueError unless what is saved of a config can be read again: dataset and flags have written into it."""
    with TemporaryDirectory() as folder:
        config._save_pretrained(Path(folder))
        _read_again(Path(folder), f"The config of this {config.type}")


def require_saved(folder: Path, expected: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless a saved checkpoint can be read: its config, and the names and shapes of its tensors."""
    _read_again(folder, f"The checkpoint just saved in {folder}")
    with safe_open(folder / SAFETENSORS_SINGLE_FILE, "pt") as file:
        saved = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    # Of tied weights the file keeps one name.
    kept = {tensor.data_ptr() for name, tensor in expected.items() if name in saved}
    lacking = [
        name
        for name, tensor in expected.items()
        if saved.get(name, tuple(tensor.shape)) != tuple(tensor.shape)
        or (name not in saved and tensor.data_ptr() not in kept)
    ]
    if lacking:
        raise ValueError(
            f"The checkpoint just saved in {folder} lacks {', '.join(lacking[:3])}{', ...' if lacking[3:] else ''}, "
            "expected every tensor of the policy: it cannot be loaded; change --output_dir to a sound disk."
        )


def _read_again(folder: Path, subject: str) -> None:
    try:
        PreTrainedConfig.from_pretrained(folder)
    except (DecodingError, ParsingError, TypeError, ValueError) as error:
        raise ValueError(
            f"{subject} cannot be read again ({' '.join(str(error).split())}), expected a value of the field's own "
            "type: change the --policy flag of that name, or what meta/info.json of --dataset.root says."
        ) from error


def drop_backbone_weights(config: PreTrainedConfig) -> None:
    """Let a network be built without the published weights of its image backbone."""
    if getattr(config, "pretrained_backbone_weights", None):
        config.pretrained_backbone_weights = None


@contextlib.contextmanager
def backbone_errors(config: PreTrainedConfig) -> Iterator[None]:
    """Turn the errors of a download of backbone weights into one that says what to do."""
    try:
        yield
    except (URLError, TimeoutError, ConnectionError) as error:
        weights = getattr(config, "pretrained_backbone_weights", None)
        raise ConnectionError(
            f"The backbone weights {weights} could not be downloaded ({error}): connect this "
            "machine to the internet once, or start from random weights with "
            "--policy.pretrained_backbone_weights=null."
        ) from error


def load_strictly(policy: PreTrainedPolicy, file: Path) -> None:
    """Load a checkpoint's weights as they are; ValueError if the file is damaged or does not fit the policy."""
    try:
        # Always strict: a tensor that silently kept its random start is worse than no policy.
        policy._load_as_safetensor(policy, str(file), policy.config.device, strict=True)
    except SafetensorError:
        load_weights(file)  # It says what is wrong.
        raise
    except RuntimeError as error:
        raise ValueError(
            f"{file} does not fit the policy that its config describes ({error}): pass the "
            "architecture flags (--policy.*) that it was trained with."
        ) from error


def start_from(
    policy: nn.Module, weights: Mapping[str, Tensor], rules: Sequence[Rule], name: str
) -> TransferReport:
    """Start a fresh policy from the weights of another stage's network, and log what becomes of them.

    Arguments, errors and the report on every tensor are those of `transfer_tensors`.
    """
    every_name = _with_tied_names(policy, weights)
    state, report = transfer_tensors(every_name, policy.state_dict(), rules, name)
    policy.load_state_dict(state, strict=True)
    for line in report.lines():
        logger.info(line)
    return report


def fresh_modules(policy: nn.Module, report: TransferReport) -> frozenset[str]:
    """Names of the modules with a parameter that a transfer did not keep as it was."""
    kept = {tensor.name for tensor in report.tensors if tensor.status == KEPT}
    return frozenset(name.rpartition(".")[0] for name, _ in policy.named_parameters() if name not in kept)


def _with_tied_names(policy: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A file's tensors under every name of the policy: safetensors keeps one name of tied weights."""
    names: dict[int, list[str]] = {}
    for name, tensor in policy.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), []).append(name)
    tied = {
        name: weights[saved]
        for group in names.values()
        for saved in group
        if saved in weights
        for name in group
    }
    return {**tied, **weights}


def load_whole_policy(config: LawmConfig) -> PreTrainedPolicy:
    """Load the policy at ``config.pretrained_path``, adapters merged into the weights that they were trained on.

    The config stays as it is.

    Raises:
        FileNotFoundError: If the adapters' base is not on this machine.
    """
    config = copy.deepcopy(config)
    path, revision = str(config.pretrained_path), config.pretrained_revision
    policy_class = get_policy_class(config.type)
    if not config.use_peft:
        return policy_class.from_pretrained(path, config=config, revision=revision)

    from peft import PeftConfig, PeftModel

    adapters = PeftConfig.from_pretrained(path, revision=revision)
    base = str(adapters.base_model_name_or_path)
    if Path(base).is_absolute() and not Path(base).is_dir():
        raise FileNotFoundError(
            f"{path} holds adapters to {base}, which is not there: put that checkpoint back, or change "
            "base_model_name_or_path in adapter_config.json."
        )
    policy = policy_class.from_pretrained(base, config=config, revision=adapters.revision)
    adapted = PeftModel.from_pretrained(policy, path, config=adapters, revision=revision)
    config.use_peft = False
    return adapted.merge_and_unload()
