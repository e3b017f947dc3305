"""LeRobot's own commands, run in this process on tiny networks."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState
from lerobot.configs import parser
from lerobot.configs.train import TrainPipelineConfig
from safetensors.torch import load_file
from torch import Tensor

import lerobot_policy_lawm  # noqa: F401  registers the policies, as LeRobot's discovery does

torch.set_num_threads(1)

#: ACT as small as it gets; what a finetuning checkpoint remembers, so it is given once.
TINY_ACT = (
    "--policy.dim_model=32",
    "--policy.n_heads=2",
    "--policy.dim_feedforward=64",
    "--policy.n_encoder_layers=1",
    "--policy.n_vae_encoder_layers=1",
    "--policy.pretrained_backbone_weights=null",
    "--policy.device=cpu",
    "--policy.push_to_hub=false",
)
TINY_LAWM = (
    "--policy.type=lawm_act",
    *TINY_ACT,
    "--policy.latent_action.horizon=4",
    "--policy.latent_action.stride=2",
    "--policy.world_model.size=test",
    "--policy.world_model.image_size=32",
    "--policy.idm.size=test",
)
#: Everything whose result depends on the random numbers of a step switched off.
DETERMINISTIC = (
    "--policy.dropout=0",
    "--policy.use_vae=false",
    "--policy.latent_action.noise=0",
    "--policy.idm.random_shift=0",
    "--policy.world_model.type=recurrent",
)


@dataclass(frozen=True)
class Run:
    """A finished `lerobot-train`."""

    directory: Path
    log: str

    def checkpoint(self, step: int | None = None) -> Path:
        name = "last" if step is None else f"{step:06d}"
        return self.directory / "checkpoints" / name / "pretrained_model"

    def config(self, step: int | None = None) -> dict[str, Any]:
        return json.loads((self.checkpoint(step) / "config.json").read_text())

    def tensors(self, step: int | None = None) -> dict[str, Tensor]:
        return load_file(self.checkpoint(step) / "model.safetensors")

    def optimizer(self, step: int | None = None) -> dict[str, Tensor]:
        return load_file(self.checkpoint(step).parent / "training_state" / "optimizer_state.safetensors")

    def metrics(self) -> list[dict[str, str]]:
        """The figures of LeRobot's own log lines, in order of the steps: {"step": "1", "loss": "2.345", ...}."""
        lines = [line[line.index("step:") :] for line in self.log.splitlines() if " step:" in line]
        return [dict(figure.split(":", 1) for figure in line.split() if ":" in figure) for line in lines]


@contextlib.contextmanager
def _command(argv: Sequence[str]) -> Iterator[io.StringIO]:
    """`argv` in place of ours, a fresh process' worth of LeRobot's and accelerate's global state, the log caught."""
    root, log, own_argv = logging.getLogger(), io.StringIO(), sys.argv
    handlers, level = root.handlers[:], root.level
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    # What a configuration file of an earlier command said of --policy.path.
    parser._config_path_args.clear()
    parser._config_yaml_overrides.clear()
    sys.argv = [str(argument) for argument in argv]
    try:
        # LeRobot's logging takes the standard error it finds when the command starts.
        with contextlib.redirect_stderr(log):
            yield log
    finally:
        sys.argv = own_argv
        root.handlers[:], root.level = handlers, level


def entry_point(name: str) -> Callable[[], int | None]:
    """The function behind a command of LeRobot or of this package."""
    package = "lawm_lerobot" if name.startswith("lawm-") else "lerobot"
    return importlib.import_module(f"{package}.scripts.{name.replace('-', '_')}").main


def run_command(main: Callable[[], int | None], *flags: str | Path) -> str:
    """Run a command's ``main`` with flags; returns its log.

    A command that fails stops the test as it would stop its process, with its log on standard output.
    """
    log = io.StringIO()
    try:
        with _command(["command", *map(str, flags)]) as log:
            code = main()
        if code:
            raise SystemExit(code)
    except BaseException:
        print(log.getvalue())
        raise
    return log.getvalue()


def parsed(kind: type, flags: Sequence[str]) -> Any:
    """The configuration that a LeRobot command would start from."""
    found = []

    def command(cfg: Any) -> None:
        if isinstance(cfg, TrainPipelineConfig):
            cfg.validate()
        found.append(cfg)

    command.__annotations__["cfg"] = kind
    run_command(parser.wrap()(command), *flags)
    return found[0]


def leave_checkpoint(cfg: TrainPipelineConfig) -> None:
    """What a later command reads of a run: its configurations where LeRobot puts them."""
    assert cfg.policy is not None and cfg.output_dir is not None
    checkpoint = Path(cfg.output_dir) / "checkpoints" / "last" / "pretrained_model"
    checkpoint.mkdir(parents=True)
    cfg.policy._save_pretrained(checkpoint)
    cfg._save_pretrained(checkpoint)


def lerobot_train(dataset: Path, output_dir: Path, *flags: str | Path, steps: int = 2) -> Run:
    """`lerobot-train`, on a dataset of `make_dataset`, with a few tiny steps, all of them logged."""
    from lerobot.scripts.lerobot_train import main

    log = run_command(
        main,
        f"--dataset.repo_id=test/{dataset.name}",
        f"--dataset.root={dataset}",
        f"--output_dir={output_dir}",
        "--batch_size=4",
        "--num_workers=0",
        f"--steps={steps}",
        "--log_freq=1",
        "--policy.push_to_hub=false",
        *flags,
    )
    return Run(output_dir, log)


def pretrain(dataset: Path, output_dir: Path, *flags: str | Path, steps: int = 2) -> Run:
    return lerobot_train(dataset, output_dir, *TINY_LAWM, *flags, steps=steps)


def finetune(checkpoint: Path, dataset: Path, output_dir: Path, *flags: str | Path, steps: int = 2) -> Run:
    path = f"--policy.path={checkpoint}"
    return lerobot_train(dataset, output_dir, path, "--policy.stage=finetune", *flags, steps=steps)


def resume(run: Run, step: int, *flags: str | Path) -> Run:
    """Go on from a checkpoint of ``run``, as LeRobot's documentation says to."""
    from lerobot.scripts.lerobot_train import main

    config = run.checkpoint(step) / "train_config.json"
    return Run(run.directory, run_command(main, f"--config_path={config}", "--resume=true", *flags))


def assert_same_tensors(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert not different
