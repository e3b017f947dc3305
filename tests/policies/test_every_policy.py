"""Tests of what every registered ``lawm_*`` type does, on tiny networks through LeRobot's own commands.

Each type goes one way: LeRobot trains the plain policy, LAWM pretraining begins from it on video without state and
action, is interrupted and resumed; finetuning is for another robot; the export runs as the plain type again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.datasets_on_the_spot import make_dataset
from helpers.pages import table
from helpers.tiny_policies import TINY, Tiny
from helpers.training import Run, finetune, lerobot_train, resume, run_command
from lerobot.configs import PreTrainedConfig
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.factory import resolve_delta_timestamps
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies import get_policy_class, make_pre_post_processors
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.random_utils import seeded_context
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader

from lawm_lerobot.policies.common.configuration import LawmConfig
from lawm_lerobot.policies.common.loading import PretrainingCheckpointError
from lawm_lerobot.policies.common.policy import LawmPolicy
from lawm_lerobot.scripts import lawm_export

SOURCES = ("inverse_dynamics", "policy", "both")
HORIZON, LATENT_DIM = 4, 6
LAWM = (
    "--policy.device=cpu",
    f"--policy.latent_action.horizon={HORIZON}",
    f"--policy.latent_action.dim={LATENT_DIM}",
    "--policy.latent_action.stride=2",
    "--policy.world_model.size=test",
    "--policy.world_model.image_size=32",
    "--policy.idm.size=test",
    "--policy.picture_freq=2",
)
#: Another robot than the base's: also its images are of another size.
STATE_DIM, ACTION_DIM, SIZE = 5, 3, 40
TASKS = ("push the square", "leave it alone")


def registered() -> list[str]:
    """The types of this package, without ``lawm_``."""
    choices = PreTrainedConfig.get_known_choices()
    return sorted(
        name.removeprefix("lawm_")
        for name, config in choices.items()
        if issubclass(config, LawmConfig) and config.__module__.startswith("lawm_lerobot.")
    )


@dataclass(frozen=True)
class Kind:
    """A type under test; ``name`` is the plain type's."""

    name: str
    tiny: Tiny
    flags: list[str]
    root: Path

    @property
    def config_class(self) -> type[LawmConfig]:
        return PreTrainedConfig.get_choice_class(f"lawm_{self.name}")

    @property
    def policy_class(self) -> type[LawmPolicy]:
        return get_policy_class(f"lawm_{self.name}")

    @property
    def plain_class(self) -> type[PreTrainedPolicy]:
        return get_policy_class(self.name)


@contextmanager
def make_kind(name: str, tiny: Tiny, root: Path) -> Iterator[Kind]:
    assets = root / "assets"
    assets.mkdir()
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield Kind(name, tiny, tiny.make(assets, monkeypatch), root)


@pytest.fixture(scope="module", params=registered())
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kind]:
    name = request.param
    assert name in TINY, (
        f"lawm_{name} is registered but not tested: add how to make it tiny to tiny_policies.TINY"
    )
    with make_kind(name, TINY[name], tmp_path_factory.mktemp(name)) as made:
        yield made


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus") / "video"
    return make_dataset(root, lengths=(14, 14), state_dim=None, action_dim=None, tasks=TASKS)


@pytest.fixture(scope="module")
def base(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain checkpoint of stock LeRobot."""
    dataset = make_dataset(kind.root / "labelled", lengths=(14, 14))
    flags = (f"--policy.type={kind.name}", "--policy.device=cpu", *kind.flags)
    return lerobot_train(dataset, kind.root / "base", *flags, steps=1).checkpoint()


@pytest.fixture(scope="module")
def pretrained(kind: Kind, base: Path, corpus: Path) -> Run:
    """Begun from the base, interrupted after two steps and resumed to four."""
    flags = (f"--policy.type=lawm_{kind.name}", f"--policy.base_path={base}", *kind.flags, *LAWM)
    run = lerobot_train(corpus, kind.root / "pretrained", *flags, steps=2)
    return Run(run.directory, run.log + resume(run, 2, "--steps=4").log)


@pytest.fixture(scope="module")
def demonstrations(kind: Kind) -> Path:
    return make_dataset(
        kind.root / "demonstrations",
        cameras=kind.tiny.cameras,
        size=SIZE,
        lengths=(14, 14),
        state_dim=STATE_DIM,
        action_dim=ACTION_DIM,
        tasks=TASKS,
    )


@pytest.fixture(scope="module")
def finetuned(kind: Kind, pretrained: Run, demonstrations: Path) -> Run:
    flags = (*kind.tiny.chunk, "--policy.picture_freq=1")
    return finetune(pretrained.checkpoint(), demonstrations, kind.root / "finetuned", *flags)


@pytest.fixture(scope="module")
def exported(kind: Kind, finetuned: Run) -> Path:
    output_dir = kind.root / "exported"
    run_command(lawm_export.main, f"--policy.path={finetuned.checkpoint()}", f"--output_dir={output_dir}")
    return output_dir


@pytest.fixture(scope="module")
def cotrained(
    kind: Kind, pretrained: Run, demonstrations: Path, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """Finetuned with video of other pictures in the batch, interrupted after one step and resumed to two."""
    video = make_dataset(
        kind.root / "video", size=SIZE, lengths=(14, 14), state_dim=None, action_dim=None, tasks=TASKS
    )
    flags = (
        "--policy.video.repo_id=test/video",
        f"--policy.video.root={video}",
        "--policy.video.batch_size=2",
    )
    run = finetune(
        pretrained.checkpoint(),
        demonstrations,
        kind.root / "cotrained",
        *kind.tiny.chunk,
        *flags,
        "--policy.video.num_workers=0",
        steps=1,
    )
    return Run(run.directory, run.log + resume(run, 1, "--steps=2").log)


# --- helpers -------------------------------------------------------------------------------------------------


def read_json(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text())


def finite_losses(run: Run) -> list[float]:
    losses = [float(figures["loss"]) for figures in run.metrics()]
    assert all(math.isfinite(loss) for loss in losses)
    return losses


def raw_batch(config: PreTrainedConfig, dataset: Path) -> dict[str, Any]:
    meta = LeRobotDatasetMetadata("test/x", root=dataset)
    frames = LeRobotDataset(
        "test/x", root=dataset, delta_timestamps=resolve_delta_timestamps(config, meta), video_backend="pyav"
    )
    return next(iter(DataLoader(frames, batch_size=4)))


def training_batch(
    config: PreTrainedConfig, checkpoint: Path, dataset: Path, task: str | None = None
) -> dict[str, Any]:
    """A batch as lerobot-train gives it to the policy; ``task`` in the place of the dataset's."""
    batch = raw_batch(config, dataset)
    before, _ = make_pre_post_processors(config, str(checkpoint))
    return before(batch if task is None else {**batch, "task": [task] * 4})


def actions(policy: PreTrainedPolicy, checkpoint: Path, task: str = TASKS[0]) -> Tensor:
    """As on a robot, one observation after the other, through the checkpoint's own processors: (steps,1,A)."""
    before, after = make_pre_post_processors(policy.config, str(checkpoint))
    generator = torch.Generator().manual_seed(0)
    policy.reset()
    with seeded_context(0):
        return torch.stack(
            [after(policy.select_action(before(o))) for o in observations(policy, generator, task)]
        )


def observations(policy: PreTrainedPolicy, generator: torch.Generator, task: str) -> Iterator[dict[str, Any]]:
    for _ in range(3):
        seen = {
            k: torch.rand(ft.shape, generator=generator) for k, ft in policy.config.input_features.items()
        }
        yield {**seen, "task": task}


def one_step(policy: LawmPolicy, batch: dict[str, Any]) -> dict[str, Tensor]:
    """Gradients of one training step, zero where there is none."""
    policy.train()
    with seeded_context(1):
        policy.forward(batch)[0].backward()
    return {
        n: torch.zeros(()) if p.grad is None else p.grad
        for n, p in policy.named_parameters()
        if p.requires_grad and p.numel()  # a state of width 0 has weights of none
    }


# --- stages --------------------------------------------------------------------------------------------------


def test_lerobot_finds_the_trio(kind: Kind) -> None:
    assert issubclass(kind.config_class, LawmConfig)
    assert issubclass(kind.config_class, kind.config_class.plain_class)
    assert issubclass(kind.policy_class, (LawmPolicy, kind.plain_class))
    assert kind.policy_class.config_class is kind.config_class
    assert kind.policy_class.name == f"lawm_{kind.name}"
    assert PreTrainedConfig.get_choice_name(kind.config_class.plain_class) == kind.name


def test_pretraining_trains_and_resumes(pretrained: Run, kind: Kind) -> None:
    assert [figures["step"] for figures in pretrained.metrics()] == ["1", "2", "3", "4"]
    assert len(finite_losses(pretrained)) == 4
    before, after = pretrained.tensors(2), pretrained.tensors(4)
    assert before.keys() == after.keys()
    assert all(tensor.isfinite().all() for tensor in after.values())
    policy = kind.policy_class.from_pretrained(pretrained.checkpoint(4), allow_pretraining=True)
    (head,) = [name for name, p in policy.named_parameters() if p is policy.latent_head]
    assert not torch.equal(before[head], after[head])


def test_a_training_is_watched(pretrained: Run, finetuned: Run, kind: Kind) -> None:
    log = (pretrained.log + finetuned.log).splitlines()
    assert not [line for line in log if "goes on without pictures" in line]
    pictures = {file.name for file in (pretrained.directory / "pictures").iterdir()}
    assert pictures >= {"step_000002.png", "step_000004.png"}
    for figures in finetuned.metrics():
        uses = [float(figures[f"use_{camera}"]) for camera in kind.tiny.cameras]
        assert all(0 < use < math.inf for use in uses)
        assert ("use_state" in figures) != kind.config_class.state_in_prompt


def test_the_wrapped_policy_outputs_latents_in_pretraining(pretrained: Run) -> None:
    config = read_json(pretrained.checkpoint() / "config.json")
    assert config["output_features"]["action"]["shape"] == [LATENT_DIM]
    assert config["input_features"].keys() == {"observation.images.top"}


def test_pretraining_checkpoint_is_refused_for_control(kind: Kind, pretrained: Run) -> None:
    with pytest.raises(PretrainingCheckpointError, match="--policy.stage=finetune"):
        kind.policy_class.from_pretrained(pretrained.checkpoint())
    policy = kind.policy_class.from_pretrained(pretrained.checkpoint(), allow_pretraining=True)
    for ask in (policy.select_action, policy.predict_action_chunk):
        with pytest.raises(PretrainingCheckpointError):
            ask({})


def test_finetuning_takes_the_other_robot(kind: Kind, finetuned: Run) -> None:
    assert len(finite_losses(finetuned)) == 2
    config = read_json(finetuned.checkpoint() / "config.json")
    cameras = {f"observation.images.{camera}": [3, SIZE, SIZE] for camera in kind.tiny.cameras}
    assert {key: ft["shape"] for key, ft in config["input_features"].items()} == {
        "observation.state": [STATE_DIM],
        **cameras,
    }
    assert config["output_features"]["action"]["shape"] == [ACTION_DIM]


def test_finetuned_policy_is_as_large_as_the_plain_one(kind: Kind, finetuned: Run) -> None:
    config = PreTrainedConfig.from_pretrained(finetuned.checkpoint())
    ours = kind.policy_class.from_pretrained(finetuned.checkpoint()).state_dict()
    plain = kind.plain_class(config.plain_config()).state_dict()
    assert {n: t.shape for n, t in ours.items()} == {n: t.shape for n, t in plain.items()}


def test_saved_and_loaded_again_it_acts_the_same(kind: Kind, finetuned: Run, tmp_path: Path) -> None:
    policy = kind.policy_class.from_pretrained(finetuned.checkpoint())
    policy.save_pretrained(tmp_path)
    again = kind.policy_class.from_pretrained(tmp_path)
    expected = actions(policy, finetuned.checkpoint())
    assert expected.shape == (3, 1, ACTION_DIM)
    assert torch.equal(actions(again, finetuned.checkpoint()), expected)


def test_export_acts_the_same_in_stock_lerobot(kind: Kind, finetuned: Run, exported: Path) -> None:
    config = PreTrainedConfig.from_pretrained(exported)
    assert (type(config), config.type) == (kind.config_class.plain_class, kind.name)
    plain = kind.plain_class.from_pretrained(exported, strict=True)
    assert type(plain) is kind.plain_class
    expected = actions(kind.policy_class.from_pretrained(finetuned.checkpoint()), finetuned.checkpoint())
    assert torch.equal(actions(plain, exported), expected)


def test_cotrained_it_exports_as_the_plain_type(kind: Kind, cotrained: Run, tmp_path: Path) -> None:
    assert all(float(metrics["video_loss"]) > 0 for metrics in cotrained.metrics())
    assert len(finite_losses(cotrained)) == 2
    output_dir = tmp_path / "exported"
    run_command(lawm_export.main, f"--policy.path={cotrained.checkpoint()}", f"--output_dir={output_dir}")
    plain = kind.plain_class.from_pretrained(output_dir, strict=True)
    assert type(plain) is kind.plain_class
    expected = actions(kind.policy_class.from_pretrained(cotrained.checkpoint()), cotrained.checkpoint())
    assert torch.equal(actions(plain, output_dir), expected)
    kept = {path.name for path in output_dir.iterdir()}
    assert "cotraining.safetensors" not in kept
    assert "video" not in read_json(output_dir / "config.json")


def test_cotraining_shares_all_that_does_not_depend_on_actions(
    kind: Kind, cotrained: Run, demonstrations: Path
) -> None:
    config = PreTrainedConfig.from_pretrained(cotrained.checkpoint())
    meta = LeRobotDatasetMetadata("test/x", root=demonstrations)
    policy = kind.policy_class.from_pretrained(
        cotrained.checkpoint(), config=config, dataset_meta=meta, dataset_stats=meta.stats
    )
    with torch.no_grad():  # What starts at zero silences the weights behind it.
        for parameter in policy.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    own = {id(parameter) for parameter in policy.latents_own}
    sizes = {id(p): p.numel() for p in policy.parameters() if p.requires_grad}
    assert own < sizes.keys()
    assert sum(sizes[i] for i in own) < 0.35 * sum(sizes.values())
    shared = {id(p) for p in policy.cotraining.twin.parameters()} - own
    assert shared < {id(p) for p in policy.parameters()}
    optimized = {id(p) for group in policy.get_optim_params() for p in group["params"]}
    assert own <= optimized
    samples = policy.cotraining.samples
    assert all(samples[start]["valid"].all() for start in samples.starts.tolist()) == kind.tiny.whole_chunks
    policy.train()
    policy.cotraining.loss(4)  # VQ-BeT first trains its codes.
    with seeded_context(1):
        policy.cotraining.loss(4).backward()
    moved = {id(p) for p in policy.parameters() if p.grad is not None and p.grad.norm() > 0}
    assert id(policy.latent_head) not in moved  # of the robot's own actions
    assert own & moved
    assert len(moved - own) > 0.5 * len(sizes)
    policy.zero_grad()
    policy.config.video.weight = 0.0
    batch = training_batch(config, cotrained.checkpoint(), demonstrations)
    with seeded_context(1):
        policy.forward(batch)[0].backward()
    moved = {id(p) for p in policy.parameters() if p.grad is not None and p.grad.norm() > 0}
    assert id(policy.latent_head) in moved
    assert not own & moved


def test_real_time_chunking_is_supported_where_the_plain_policy_does(
    kind: Kind, finetuned: Run, exported: Path
) -> None:
    ours = kind.policy_class.from_pretrained(finetuned.checkpoint())
    assert ours.supports_rtc() == kind.plain_class.from_pretrained(exported).supports_rtc()


def test_the_task_matters_in_pretraining(kind: Kind, pretrained: Run, corpus: Path) -> None:
    policy = kind.policy_class.from_pretrained(pretrained.checkpoint(), allow_pretraining=True)
    losses = []
    for task in TASKS:
        batch = training_batch(policy.config, pretrained.checkpoint(), corpus, task)
        with seeded_context(0), torch.no_grad():
            losses.append(policy.forward(batch)[1]["imitation_loss"])
    assert (losses[0] != losses[1]) == kind.tiny.language


def test_the_task_matters_on_the_robot(kind: Kind, finetuned: Run) -> None:
    policy = kind.policy_class.from_pretrained(finetuned.checkpoint())
    chosen = [actions(policy, finetuned.checkpoint(), task) for task in TASKS]
    assert torch.equal(*chosen) != kind.tiny.language


# --- latents -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES)
def test_every_parameter_of_the_policy_gets_a_gradient(
    kind: Kind, pretrained: Run, corpus: Path, source: str
) -> None:
    checkpoint = pretrained.checkpoint()
    config = PreTrainedConfig.from_pretrained(checkpoint, cli_overrides=[f"--latent_action.source={source}"])
    if source == "inverse_dynamics":
        policy = kind.policy_class.from_pretrained(checkpoint, allow_pretraining=True)
    elif not kind.policy_class.differentiable_latents():
        with pytest.raises(ValueError, match="--policy.latent_action.source=inverse_dynamics"):
            kind.policy_class(config)
        return
    else:
        policy = kind.policy_class(config)
    with torch.no_grad():  # What starts at zero silences the weights behind it.
        for parameter in policy.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    predicted: list[Tensor] = []

    def predict(batch: dict[str, Any]) -> Tensor:
        z = type(policy).predict_latents(policy, batch)
        if z.requires_grad:  # not while the health is measured
            z.retain_grad()
            predicted.append(z)
        return z

    policy.predict_latents = predict
    gradients = one_step(policy, training_batch(config, checkpoint, corpus))

    expected = set(kind.tiny.without_gradient)
    if source == "policy":  # A constant added to all latents, which their norm takes away again.
        (head,) = [name for name, p in policy.named_parameters() if p is policy.latent_head]
        expected.add(head.replace("weight", "bias"))
    without = {n for n, g in gradients.items() if not n.startswith("pretraining.") and not g.norm() > 0}
    assert not [name for name in without if not any(fnmatchcase(name, pattern) for pattern in expected)]
    if source != "inverse_dynamics":
        (z,) = predicted
        assert z.shape == (4, HORIZON, LATENT_DIM)
        assert z.grad is not None
        assert (z.grad.norm(dim=-1) > 0).all()  # every z_k of every clip


def test_padding_and_the_future_do_not_count(kind: Kind, pretrained: Run, corpus: Path) -> None:
    policy = kind.policy_class.from_pretrained(pretrained.checkpoint(), allow_pretraining=True).eval()
    batch = training_batch(policy.config, pretrained.checkpoint(), corpus)
    present = len(policy.config.history_deltas)
    camera = "observation.images.top"
    other = {**batch, camera: batch[camera].clone()}
    other[camera][:, present:] += 1
    seen, seen_too = policy.policy_batch(batch), policy.policy_batch(other)
    for key in seen:
        assert not isinstance(seen[key], Tensor) or torch.equal(seen[key], seen_too[key]), key


def test_the_world_model_sees_the_pictures_as_they_are(kind: Kind, pretrained: Run, corpus: Path) -> None:
    policy = kind.policy_class.from_pretrained(pretrained.checkpoint(), allow_pretraining=True)
    raw = raw_batch(policy.config, corpus)["observation.images.top"]
    frames = policy.clip(training_batch(policy.config, pretrained.checkpoint(), corpus)).frames
    torch.testing.assert_close(frames, raw[:, -HORIZON - 1 :], atol=1e-4, rtol=0)


# --- weights -------------------------------------------------------------------------------------------------


def check_report(report: dict[str, Any], given: dict[str, Tensor], made: dict[str, Tensor]) -> set[str]:
    """The report is true of every tensor; returns the names of those that started anew."""
    tensors = {tensor["name"]: tensor for tensor in report["tensors"]}
    assert made.keys() <= tensors.keys() <= made.keys() | given.keys()
    saved = {made[name].data_ptr(): tensor for name, tensor in given.items() if name in made}
    given = {
        **{name: saved[t.data_ptr()] for name, t in made.items() if t.data_ptr() in saved},
        **given,
    }  # tied
    for name, tensor in tensors.items():
        if tensor["status"] == "kept":
            assert torch.equal(given[name], made[name].to(given[name].dtype)), name
        else:
            assert tensor["reason"], name
            assert (tensor["status"] == "dropped") == (name not in made), name
    return {name for name, tensor in tensors.items() if tensor["status"] == "reinitialised"}


def test_pretraining_begins_from_the_base(kind: Kind, base: Path, pretrained: Run) -> None:
    config = PreTrainedConfig.from_pretrained(pretrained.checkpoint())
    assert config.base_path == str(base)
    assert f"Transfer from {base}:" in pretrained.log
    report = read_json(pretrained.checkpoint(4) / "transfer_report.json")
    policy = kind.policy_class(config)  # as at the first step
    assert policy.transfer_report == report
    lost = check_report(report, load_file(base / "model.safetensors"), policy.state_dict())
    (head,) = [name for name, p in policy.named_parameters() if p is policy.latent_head]
    assert head in lost
    assert kept_share(policy, lost) > 0.7


def test_finetuning_begins_from_the_pretraining(
    kind: Kind, pretrained: Run, finetuned: Run, demonstrations: Path
) -> None:
    config = PreTrainedConfig.from_pretrained(finetuned.checkpoint())
    assert config.transferred_from == str(pretrained.checkpoint())
    meta = LeRobotDatasetMetadata("test/x", root=demonstrations)
    policy = kind.policy_class.from_pretrained(pretrained.checkpoint(), config=config, dataset_meta=meta)
    assert policy.transfer_report == read_json(finetuned.checkpoint() / "transfer_report.json")
    lost = check_report(policy.transfer_report, pretrained.tensors(), policy.state_dict())
    assert kept_share(policy, lost) > 0.7


def kept_share(policy: PreTrainedPolicy, lost: set[str]) -> float:
    sizes = {n: p.numel() for n, p in policy.named_parameters() if not n.startswith("pretraining.")}
    return 1 - sum(size for name, size in sizes.items() if name in lost) / sum(sizes.values())


def test_wrong_bases_are_refused(kind: Kind, base: Path, pretrained: Run, tmp_path: Path) -> None:
    def refused(path: Path, *named: str) -> None:
        config = PreTrainedConfig.from_pretrained(
            pretrained.checkpoint(), cli_overrides=[f"--base_path={path}"]
        )
        with pytest.raises((ValueError, OSError)) as error:
            kind.policy_class(config)
        assert not [text for text in (str(path), *named) if text not in str(error.value)]

    refused(tmp_path, "config.json", "--policy.base_path")
    (tmp_path / "config.json").write_text('{"type": "sac"}')
    refused(tmp_path, "'sac'", f"{kind.name!r}", "--policy.base_path")
    refused(pretrained.checkpoint(), f"'lawm_{kind.name}'", f"{kind.name!r}", "--policy.path")

    (tmp_path / "config.json").write_text((base / "config.json").read_text())
    refused(tmp_path, "model.safetensors", "--policy.base_path")
    save_file(
        {**load_file(base / "model.safetensors"), "surprise": torch.zeros(2)}, tmp_path / "model.safetensors"
    )
    refused(tmp_path, "surprise", "--policy.*")


def test_a_base_is_for_the_start_of_pretraining(
    kind: Kind, base: Path, pretrained: Run, tmp_path: Path
) -> None:
    config = PreTrainedConfig.from_pretrained(pretrained.checkpoint(), cli_overrides=["--stage=finetune"])
    with pytest.raises(ValueError, match=r"--policy.stage is 'finetune'.*--policy.path"):
        kind.policy_class(config)
    config = PreTrainedConfig.from_pretrained(
        pretrained.checkpoint(), cli_overrides=[f"--base_path={tmp_path}"]
    )
    with pytest.raises(ValueError, match="leave out one of --policy.path and --policy.base_path"):
        kind.policy_class.from_pretrained(pretrained.checkpoint(), config=config, allow_pretraining=True)


# --- configuration -------------------------------------------------------------------------------------------


def test_config_comes_back_as_it_was(finetuned: Run, pretrained: Run, tmp_path: Path) -> None:
    for checkpoint in (pretrained.checkpoint(), finetuned.checkpoint()):
        config = PreTrainedConfig.from_pretrained(checkpoint)
        config.save_pretrained(tmp_path)
        assert PreTrainedConfig.from_pretrained(tmp_path) == config


def test_flags_reach_nested_fields(pretrained: Run) -> None:
    flags = {"latent_action.dim": 3, "world_model.image_size": 64, "idm.context": 0}
    config = PreTrainedConfig.from_pretrained(
        pretrained.checkpoint(), cli_overrides=[f"--{name}={value}" for name, value in flags.items()]
    )
    for name, value in flags.items():
        part, field = name.split(".")
        assert getattr(getattr(config, part), field) == value
    assert config.latent_action.horizon == HORIZON


def test_wrapped_defaults_are_the_plain_types_own(kind: Kind) -> None:
    ours, plain = kind.config_class(device="cpu").plain_config(), kind.config_class.plain_class(device="cpu")
    assert ours == plain


PAGE = Path(__file__).resolve().parents[2] / "docs" / "policies.md"


def test_page_says_what_the_type_can_do(kind: Kind, finetuned: Run) -> None:
    """| type | pretrain | finetune | export | language | differentiable latents | RTC |, the first three tested above."""
    stated = table(PAGE, "policies")[f"`lawm_{kind.name}`"]
    policy = kind.policy_class.from_pretrained(finetuned.checkpoint())
    facts = (True, True, True, kind.tiny.language, policy.differentiable_latents(), policy.supports_rtc())
    assert stated == ["yes" if fact else "no" for fact in facts]
