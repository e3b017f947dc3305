"""Finetuning from a pretraining checkpoint through `lerobot-train`: what is kept, what is not, and what is remembered."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from helpers.datasets_on_the_spot import make_dataset
from helpers.training import Run, assert_same_tensors, finetune, lerobot_train, pretrain, resume, run_command
from lerobot.configs import PreTrainedConfig
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.policies import make_policy
from lerobot.policies.act.modeling_act import ACTPolicy
from safetensors.torch import load_file
from torch import Tensor

from lawm_lerobot.checkpoints.transfer import KeepIfPresent, transfer_tensors
from lawm_lerobot.envs import LawmMetaworldEnvConfig

LATENT_DIM = 8
HORIZON = 4  # TINY_LAWM's
#: Training leaves the weights as the transfer made them.
FROZEN = ("--policy.optimizer_lr=0", "--policy.optimizer_lr_backbone=0")

#: Datasets of other robots: {name: (what differs from the pretraining dataset, flags)}.
ROBOTS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "same_robot": ({}, ()),
    "other_cameras": ({"cameras": ("front", "wrist")}, ()),
    "no_state": ({"state_dim": None}, ()),
    "wider_state": ({"state_dim": 5}, ()),
    "other_action": ({"action_dim": 7}, ()),
    "action_as_wide_as_the_latent": ({"action_dim": LATENT_DIM}, ()),
    "chunk_as_long_as_the_horizon": (
        {"action_dim": LATENT_DIM},
        (f"--policy.chunk_size={HORIZON}", f"--policy.n_action_steps={HORIZON}"),
    ),
    "other_chunk": ({}, ("--policy.chunk_size=7", "--policy.n_action_steps=3")),
    "no_vae": ({}, ("--policy.use_vae=false",)),
}


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    root, made = tmp_path_factory.mktemp("datasets"), {}

    def dataset(**changes: Any) -> Path:
        key = repr(sorted(changes.items()))
        if key not in made:
            made[key] = make_dataset(root / f"dataset_{len(made)}", lengths=(8, 8), **changes)
        return made[key]

    return dataset


@pytest.fixture(scope="module")
def pretrained(datasets: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = pretrain(datasets(action_dim=None), tmp_path_factory.mktemp("pretrained") / "run")
    return run.checkpoint()


@pytest.fixture(scope="module")
def transferred(
    pretrained: Path, datasets: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Run]:
    """Finetuned for one of `ROBOTS`, with the weights as the transfer made them."""
    root, made = tmp_path_factory.mktemp("transferred"), {}

    def run(robot: str) -> Run:
        if robot not in made:
            changes, flags = ROBOTS[robot]
            made[robot] = finetune(
                pretrained, datasets(**changes), root / robot, "--log_freq=1", *FROZEN, *flags, steps=1
            )
        return made[robot]

    return run


def read_config(checkpoint: Path) -> dict[str, Any]:
    return json.loads((checkpoint / "config.json").read_text())


# --- transfer ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("robot", ROBOTS)
def test_policy_takes_the_features_of_the_robot(
    robot: str, transferred: Callable[[str], Run], datasets: Callable[..., Path]
) -> None:
    run = transferred(robot)
    assert math.isfinite(float(run.metrics()[-1]["loss"]))
    config = read_config(run.checkpoint())
    features = LeRobotDatasetMetadata("test/x", root=datasets(**ROBOTS[robot][0])).features
    observations = {key for key in features if key.startswith("observation.")}
    assert config["input_features"].keys() == observations
    if "observation.state" in observations:
        state = config["input_features"]["observation.state"]
        assert state["shape"] == list(features["observation.state"]["shape"])
    assert config["output_features"]["action"]["shape"] == list(features["action"]["shape"])


@pytest.mark.parametrize("robot", ROBOTS)
def test_report_tells_the_truth_about_every_tensor(
    robot: str, transferred: Callable[[str], Run], pretrained: Path
) -> None:
    run = transferred(robot)
    source, target = load_file(pretrained / "model.safetensors"), run.tensors()
    report = json.loads((run.checkpoint() / "transfer_report.json").read_text())

    names = [tensor["name"] for tensor in report["tensors"]]
    assert len(set(names)) == len(names)
    assert set(names) == source.keys() | target.keys()
    for tensor in report["tensors"]:
        name, status = tensor["name"], tensor["status"]
        given, made = source.get(name), target.get(name)
        assert tensor["source_shape"] == (None if given is None else list(given.shape)), name
        assert tensor["target_shape"] == (None if made is None else list(made.shape)), name
        assert tensor["reason"] or status == "kept", name
        if status == "kept":
            assert torch.equal(given, made), name
        elif status == "dropped":
            assert made is None, name
        elif name == "model.vae_encoder_pos_enc":
            assert status == "reinitialised"  # Fixed sinusoids: the same numbers for the same length.
        else:
            assert status in ("adapted", "reinitialised"), name
            assert given is None or given.shape != made.shape or not torch.equal(given, made), name
    counted = {status: sum(t["status"] == status for t in report["tensors"]) for status in report["summary"]}
    assert report["summary"] == counted
    assert sum(counted.values()) == len(names)


@pytest.mark.parametrize("robot", ROBOTS)
def test_only_what_has_changed_its_meaning_is_lost(robot: str, transferred: Callable[[str], Run]) -> None:
    report = json.loads((transferred(robot).checkpoint() / "transfer_report.json").read_text())
    lost = {t["name"] for t in report["tensors"] if t["status"] == "reinitialised"}
    new_meaning = (
        "action_head",
        "vae_encoder_action_input_proj",
        "robot_state_input_proj",
        "vae_encoder_pos_enc",
    )
    assert not [name for name in lost if not any(part in name for part in new_meaning)]
    assert {"model.action_head.weight", "model.action_head.bias"} <= lost
    dropped = {t["name"].partition(".")[0] for t in report["tensors"] if t["status"] == "dropped"}
    assert dropped == ({"pretraining"} if robot not in ("no_state", "no_vae") else {"pretraining", "model"})


def test_log_sums_the_transfer_up(transferred: Callable[[str], Run], pretrained: Path) -> None:
    log = transferred("other_chunk").log
    assert f"Transfer from {pretrained}:" in log
    assert "adapted: model.decoder_pos_embed.weight" in log
    assert "reinitialised: model.action_head.weight, model.action_head.bias" in log


@pytest.mark.parametrize(("robot", "chunk"), [("other_chunk", 7), ("same_robot", 100)])
def test_action_queries_are_stretched(
    robot: str, chunk: int, transferred: Callable[[str], Run], pretrained: Path
) -> None:
    name = "model.decoder_pos_embed.weight"
    source, made = load_file(pretrained / "model.safetensors")[name], transferred(robot).tensors()[name]
    assert source.shape[0] == HORIZON
    assert made.shape[0] == chunk
    torch.testing.assert_close(made[[0, -1]], source[[0, -1]])
    # Half-way between two rows lies their mean; 7 queries over 4 put one there every second time.
    if chunk == 7:
        torch.testing.assert_close(made[1::2], (source[1:] + source[:-1]) / 2)
    expected = F.interpolate(source.T[None], size=chunk, mode="linear", align_corners=True)[0].T
    torch.testing.assert_close(made, expected)


def test_chunk_as_long_as_the_horizon_keeps_the_queries(
    transferred: Callable[[str], Run], pretrained: Path
) -> None:
    name = "model.decoder_pos_embed.weight"
    source = load_file(pretrained / "model.safetensors")[name]
    assert torch.equal(transferred("chunk_as_long_as_the_horizon").tensors()[name], source)


@pytest.mark.parametrize("robot", ["action_as_wide_as_the_latent", "chunk_as_long_as_the_horizon"])
def test_head_is_new_even_where_its_shape_fits(
    robot: str, transferred: Callable[[str], Run], pretrained: Path
) -> None:
    source, made = load_file(pretrained / "model.safetensors"), transferred(robot).tensors()
    for name in (
        "model.action_head.weight",
        "model.action_head.bias",
        "model.vae_encoder_action_input_proj.weight",
    ):
        assert source[name].shape == made[name].shape
        assert not torch.isclose(source[name], made[name]).any()


def test_position_of_the_latent_token_survives_the_loss_of_the_state(
    transferred: Callable[[str], Run], pretrained: Path
) -> None:
    name = "model.encoder_1d_feature_pos_embed.weight"
    source, made = load_file(pretrained / "model.safetensors")[name], transferred("no_state").tensors()[name]
    assert (source.shape[0], made.shape[0]) == (2, 1)
    assert torch.equal(made[0], source[0])


def test_pretraining_without_a_state_gives_a_policy_with_one(
    datasets: Callable[..., Path], tmp_path: Path
) -> None:
    before = pretrain(datasets(state_dim=None, action_dim=None), tmp_path / "pretrained")
    after = finetune(before.checkpoint(), datasets(), tmp_path / "finetuned", *FROZEN, steps=1)
    name = "model.encoder_1d_feature_pos_embed.weight"
    assert torch.equal(after.tensors()[name][0], before.tensors()[name][0])
    assert after.tensors()["model.encoder_robot_state_input_proj.weight"].shape == (32, 2)


def test_pretraining_without_a_vae_gives_a_policy_with_one(
    datasets: Callable[..., Path], tmp_path: Path
) -> None:
    source = "--policy.latent_action.source=policy"
    before = pretrain(datasets(action_dim=None), tmp_path / "pretrained", source)
    assert not [name for name in before.tensors() if "vae_encoder" in name]
    after = finetune(before.checkpoint(), datasets(), tmp_path / "finetuned", *FROZEN, steps=1)
    report = json.loads((after.checkpoint() / "transfer_report.json").read_text())
    vae = {t["name"]: t["status"] for t in report["tensors"] if "vae_encoder" in t["name"]}
    assert set(vae.values()) == {"reinitialised"}
    assert vae.keys() == {name for name in after.tensors() if "vae_encoder" in name}


@pytest.mark.parametrize("camera", ["wrist", "top"])
def test_cameras_chosen_by_the_user_are_respected(
    camera: str, pretrained: Path, datasets: Callable[..., Path], tmp_path: Path
) -> None:
    # With and without a camera that the pretraining dataset had too, and without the state, which it had.
    chosen = {f"observation.images.{camera}": {"type": "VISUAL", "shape": [3, 32, 32]}}
    run = finetune(
        pretrained,
        datasets(cameras=("top", "wrist")),
        tmp_path / "run",
        f"--policy.input_features={json.dumps(chosen)}",
        steps=1,
    )
    assert read_config(run.checkpoint())["input_features"] == chosen


# --- the finetuned checkpoint --------------------------------------------------------------------------------


@pytest.mark.parametrize("robot", ROBOTS)
def test_checkpoint_is_as_large_as_plain_acts(
    robot: str, transferred: Callable[[str], Run], tmp_path: Path
) -> None:
    checkpoint = transferred(robot).checkpoint()
    plain = ACTPolicy(PreTrainedConfig.from_pretrained(checkpoint).plain_config())
    plain.save_pretrained(tmp_path)
    ours = {name: tuple(tensor.shape) for name, tensor in load_file(checkpoint / "model.safetensors").items()}
    assert ours == {name: tuple(tensor.shape) for name, tensor in plain.state_dict().items()}
    size = (checkpoint / "model.safetensors").stat().st_size
    assert size <= (tmp_path / "model.safetensors").stat().st_size


def test_actions_are_scaled_by_the_demonstrations(
    transferred: Callable[[str], Run], pretrained: Path, datasets: Callable[..., Path]
) -> None:
    def statistics(checkpoint: Path) -> dict[str, Tensor]:
        (file,) = checkpoint.glob("policy_postprocessor_step_*_unnormalizer_processor.safetensors")
        return load_file(file)

    expected = LeRobotDatasetMetadata("test/x", root=datasets()).stats["action"]
    found = statistics(transferred("same_robot").checkpoint())
    torch.testing.assert_close(found["action.mean"], torch.as_tensor(expected["mean"], dtype=torch.float32))
    torch.testing.assert_close(found["action.std"], torch.as_tensor(expected["std"], dtype=torch.float32))
    assert not [name for name in statistics(pretrained) if name.startswith("action.")]


def test_pretraining_leaves_no_trace_of_recorded_actions(
    datasets: Callable[..., Path], tmp_path: Path
) -> None:
    run = pretrain(datasets(), tmp_path / "run", steps=1)
    for file in run.checkpoint().glob("policy_*processor_step_*.safetensors"):
        assert not [name for name in load_file(file) if name.startswith("action.")]


def test_source_is_remembered_after_resuming(
    pretrained: Path, datasets: Callable[..., Path], tmp_path: Path
) -> None:
    run = finetune(pretrained, datasets(), tmp_path / "run", steps=1)
    resumed = resume(run, 1, "--steps=2")
    for step in (1, 2):
        assert read_config(resumed.checkpoint(step))["transferred_from"] == str(pretrained)
        assert (resumed.checkpoint(step) / "transfer_report.json").is_file()
    assert "Transfer from" not in resumed.log


def test_resumed_run_ends_where_an_uninterrupted_one_does(
    pretrained: Path, datasets: Callable[..., Path], tmp_path: Path
) -> None:
    flags = ("--policy.dropout=0", "--policy.use_vae=false")
    straight = finetune(pretrained, datasets(), tmp_path / "straight", *flags, steps=4)
    interrupted = finetune(pretrained, datasets(), tmp_path / "interrupted", *flags, steps=2)
    resumed = resume(interrupted, 2, "--steps=4")
    assert_same_tensors(resumed.tensors(4), straight.tensors(4))
    assert_same_tensors(resumed.optimizer(4), straight.optimizer(4))


@pytest.mark.parametrize("robot", ["same_robot", "chunk_as_long_as_the_horizon"])
def test_going_on_from_a_finetuned_checkpoint_keeps_everything(
    robot: str,
    transferred: Callable[[str], Run],
    datasets: Callable[..., Path],
    pretrained: Path,
    tmp_path: Path,
) -> None:
    first, dataset = transferred(robot), datasets(**ROBOTS[robot][0])
    explicit = finetune(first.checkpoint(), dataset, tmp_path / "explicit", *FROZEN, steps=1)
    implied = lerobot_train(
        dataset, tmp_path / "implied", f"--policy.path={first.checkpoint()}", *FROZEN, steps=1
    )
    for second in (explicit, implied):
        assert_same_tensors(second.tensors(), first.tensors())
        assert read_config(second.checkpoint())["transferred_from"] == str(pretrained)


def test_finetuning_uses_acts_own_learning_rates(transferred: Callable[[str], Run], pretrained: Path) -> None:
    def optimizer(checkpoint: Path) -> dict[str, Any]:
        return json.loads((checkpoint / "train_config.json").read_text())["optimizer"]

    assert optimizer(pretrained)["lr"] == 3e-4
    assert optimizer(transferred("same_robot").checkpoint())["lr"] == 0  # FROZEN's, in the place of 1e-5


# --- evaluation ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def evaluable(
    datasets: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, Path]]:
    """{case: (pretrained, finetuned)} for Meta-World, whose actions are 4 numbers."""
    root, made = tmp_path_factory.mktemp("evaluable"), {}
    arm = {"cameras": ("corner2",), "state_dim": 4}
    chunk = (f"--policy.chunk_size={HORIZON}", f"--policy.n_action_steps={HORIZON}")
    for dim in (4, 6):
        latent = f"--policy.latent_action.dim={dim}"
        before = pretrain(datasets(**arm, action_dim=None), root / f"pretrained_{dim}", latent, steps=1)
        after = finetune(
            before.checkpoint(), datasets(**arm, action_dim=4), root / f"finetuned_{dim}", *chunk, steps=1
        )
        made[f"latent_{dim}"] = before.checkpoint(), after.checkpoint()
    return made


@pytest.mark.parametrize("case", ["latent_4", "latent_6"])
def test_evaluation_loads_every_weight_as_it_is_in_the_file(
    case: str, evaluable: dict[str, tuple[Path, Path]]
) -> None:
    _, checkpoint = evaluable[case]
    config = PreTrainedConfig.from_pretrained(checkpoint)
    config.pretrained_path = checkpoint
    policy = make_policy(config, env_cfg=LawmMetaworldEnvConfig(size=32))
    assert_same_tensors(dict(policy.state_dict()), load_file(checkpoint / "model.safetensors"))


def test_lerobot_eval_runs_a_finetuned_checkpoint(
    evaluable: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    pytest.importorskip("metaworld")
    from lerobot.scripts.lerobot_eval import main

    run_command(
        main,
        f"--policy.path={evaluable['latent_4'][1]}",
        "--policy.device=cpu",
        *("--env.type=lawm_metaworld", "--env.size=32", "--env.episode_length=3"),
        *("--eval.n_episodes=1", "--eval.batch_size=1", f"--output_dir={tmp_path}"),
    )
    info = json.loads((tmp_path / "eval_info.json").read_text())
    assert info["overall"]["n_episodes"] == 1


def test_a_tensor_that_may_be_missing_must_still_fit() -> None:
    rule = KeepIfPresent("vae*", "used in one of the two stages")
    fresh = {"vae": torch.zeros(3)}
    assert transfer_tensors({}, fresh, [rule], "source")[1].tensors[0].status == "reinitialised"
    assert transfer_tensors({"vae": torch.ones(3)}, fresh, [rule], "source")[1].tensors[0].status == "kept"
    with pytest.raises(
        ValueError, match=r"vae is of shape \(4,\) in the checkpoint and \(3,\) in the policy"
    ):
        transfer_tensors({"vae": torch.ones(4)}, fresh, [rule], "source")
