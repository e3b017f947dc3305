"""The families of latents of docs/latents.md through the commands: trained, saved, resumed, dropped, and refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from draccus.utils import ParsingError
from helpers.datasets_on_the_spot import make_dataset
from helpers.training import DETERMINISTIC, Run, assert_same_tensors, finetune, pretrain, resume, run_command
from lerobot.configs import FeatureType, PolicyFeature
from safetensors.torch import load_file

from lawm_lerobot.benchmark.results import logged_health
from lawm_lerobot.inspection.metrics import LatentMetrics
from lawm_lerobot.inspection.verdict import _check_collapsed
from lawm_lerobot.labelling.latent_readout import frame_features
from lawm_lerobot.labels.configuration import LabelsConfig
from lawm_lerobot.method.latent_action import LatentActionConfig
from lawm_lerobot.method.quantizers import VectorQuantizer
from lawm_lerobot.policies.act.configuration_lawm_act import LawmActConfig
from lawm_lerobot.policies.common.checkpointed import COTRAINING_FILE
from lawm_lerobot.policies.common.clips import make_clip
from lawm_lerobot.policies.common.health import HealthMonitor
from lawm_lerobot.policies.common.pretraining import _proprio_dim
from lawm_lerobot.policies.common.pretraining_checkpoint import load_pretraining_checkpoint
from lawm_lerobot.policies.common.publishing import _latent_rows
from lawm_lerobot.policies.diffusion.configuration_lawm_diffusion import LawmDiffusionConfig
from lawm_lerobot.scripts import lawm_export

STATE = "observation.state"
LAPA = ("--policy.latent_action.quantizer=vq",)
FSQ = ("--policy.latent_action.quantizer=fsq", "--policy.latent_action.levels=[3]")
VILLA_X = ("--policy.latent_action.proprio_weight=1", "--policy.use_state=false")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Episodes of 14 frames and of 7, which is less than a clip."""
    return make_dataset(tmp_path_factory.mktemp("corpus") / "corpus", lengths=(14, 7), action_dim=None)


@pytest.fixture(scope="module")
def glam(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    demos = make_dataset(tmp_path_factory.mktemp("demos") / "demos", lengths=(14, 7), action_dim=3, seed=5)
    return (
        "--policy.labels.grounding_weight=1",
        "--policy.labels.repo_id=test/demos",
        f"--policy.labels.root={demos}",
        "--policy.labels.batch_size=4",
    )


@pytest.fixture(scope="module")
def everything(corpus: Path, glam: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All three families at once, two steps with a checkpoint after each."""
    flags = (*DETERMINISTIC, *LAPA, *VILLA_X, *glam, "--save_freq=1")
    return pretrain(corpus, tmp_path_factory.mktemp("everything") / "run", *flags)


def test_the_families_train_with_their_health_in_the_log(
    everything: Run, pretrained_once: Run, corpus: Path, tmp_path: Path
) -> None:
    codes = {"code_perplexity", "codes_used"}
    states = {"proprio_loss", "proprio_r2"}
    actions = {"action_latent_ratio", "action_world_model_loss", "readout_loss", "readout_r2"}
    levels = pretrain(corpus, tmp_path / "levels", *FSQ, steps=1)
    for run, found in ((everything, codes | states | actions), (levels, codes), (pretrained_once, set())):
        for logged in run.metrics():
            assert logged.keys() & (codes | states | actions) == found
            assert all(math.isfinite(float(logged[name])) for name in found)
        assert all(tensor.isfinite().all() for tensor in run.tensors().values())
    parts = {name.split(".")[1] for name in everything.tensors() if name.startswith("pretraining.")}
    for run in (levels, pretrained_once):  # an option that is off, or has nothing to learn, leaves no trace
        usual = {name.split(".")[1] for name in run.tensors() if name.startswith("pretraining.")}
        assert parts - usual == {"quantizer", "proprio", "action_encoder", "readout"}


def test_resumed_it_ends_where_an_uninterrupted_run_does(everything: Run) -> None:
    whole, before = everything.tensors(2), everything.tensors(1)
    for part in ("quantizer.total", "proprio.layers.0.weight", "action_encoder.heads.0.0.weight"):
        assert not torch.equal(whole[f"pretraining.{part}"], before[f"pretraining.{part}"])
    assert_same_tensors(whole, resume(everything, 1).tensors(2))
    assert everything.config()["latent_action"]["proprio_dim"] == 2


def test_the_read_out_reads_codes_and_the_card_says_so(everything: Run) -> None:
    policy, _ = load_pretraining_checkpoint(everything.checkpoint())
    shaped = ("latents also shaped by", "codes (`vq`), the robot's state, true actions as latents")
    assert shaped in _latent_rows(policy.config)
    assert logged_health(everything.log).keys() >= {"code_perplexity", "proprio_r2", "action_latent_ratio"}
    codebook = policy.pretraining.quantizer.codebook
    read_out = frame_features(policy, "cpu")(torch.randint(256, (9, 3, 32, 32), dtype=torch.uint8))
    assert torch.isin(torch.from_numpy(read_out), codebook).all()


def test_cotraining_learns_codes_and_the_export_is_plain(
    everything: Run, corpus: Path, tmp_path: Path
) -> None:
    robot = make_dataset(tmp_path / "robot", lengths=(8, 8))
    flags = [
        "--policy.video.repo_id=test/corpus",
        f"--policy.video.root={corpus}",
        "--policy.video.num_workers=0",
        "--policy.chunk_size=6",
        "--policy.n_action_steps=6",
    ]
    run = finetune(everything.checkpoint(), robot, tmp_path / "fine", *flags, steps=1)
    assert not [name for name in run.tensors() if name.startswith("pretraining.")]
    latents = load_file(run.checkpoint() / COTRAINING_FILE)["latents"]
    policy, _ = load_pretraining_checkpoint(everything.checkpoint())
    known = torch.cat([policy.pretraining.quantizer.codebook.flatten(), torch.zeros(1)])
    assert torch.isin(latents, known).all() and latents.any()
    run_command(lawm_export.main, f"--policy.path={run.checkpoint()}", f"--output_dir={tmp_path / 'act'}")
    exported = json.loads((tmp_path / "act" / "config.json").read_text())
    assert exported["type"] == "act" and "latent_action" not in exported
    assert_same_tensors(load_file(tmp_path / "act" / "model.safetensors"), run.tensors())


@pytest.mark.parametrize("kind", [LawmActConfig, LawmDiffusionConfig])
def test_states_are_those_of_the_clips_own_frames(kind: type[LawmActConfig | LawmDiffusionConfig]) -> None:
    def clip(weight: float, state: torch.Tensor | None) -> torch.Tensor | None:
        config = kind(
            device="cpu",
            input_features={"observation.images.top": PolicyFeature(FeatureType.VISUAL, (3, 64, 64))},
            latent_action=LatentActionConfig(horizon=3, proprio_weight=weight, proprio_dim=1),
        )
        frames = len(config.observation_delta_indices or [])
        batch = {"observation.images.top": torch.rand(2, frames, 3, 64, 64)}
        if state is not None:
            batch[STATE] = state[:frames].expand(2, -1).unsqueeze(-1)
        return make_clip(batch, config, torch.zeros(3, 1, 1), torch.ones(3, 1, 1)).states

    first = len(kind(device="cpu").history_deltas) - 1
    found = clip(1.0, torch.arange(9.0))
    assert found is not None
    assert found[0, :, 0].tolist() == [first + k for k in range(4)]  # of x_0 .. x_H, without the history
    assert clip(0.0, torch.arange(9.0)) is None and clip(1.0, None) is None


def test_a_state_that_the_video_lacks_is_refused() -> None:
    for weight, known in ((0.0, {}), (1.0, {STATE: {"shape": (7,)}})):
        config = LawmActConfig(device="cpu", latent_action=LatentActionConfig(proprio_weight=weight))
        assert _proprio_dim(config, SimpleNamespace(features=known)) == (7 if weight else None)
    with pytest.raises(
        ValueError, match=r"has no 'observation.state'.*--policy.latent_action.proprio_weight"
    ):
        _proprio_dim(config, SimpleNamespace(features={"action": {}}))


def test_latents_of_actions_need_actions_and_inferred_ones() -> None:
    with pytest.raises(ParsingError, match=r"no true actions.*--policy.labels.repo_id"):
        LabelsConfig(grounding_weight=1)
    with pytest.raises(ParsingError, match=r"grounding_weight is -1.*at least 0"):
        LabelsConfig(grounding_weight=-1)
    with pytest.raises(ParsingError, match=r"labels.grounding_weight is 1.*--policy.latent_action.source"):
        LawmActConfig(
            device="cpu",
            labels=LabelsConfig(fraction=0.5, grounding_weight=1),
            latent_action=LatentActionConfig(source="policy"),
        )


def test_health_warns_of_codes_that_have_collapsed(caplog: pytest.LogCaptureFixture) -> None:
    monitor = HealthMonitor(1)
    healthy = {
        "latent_std": 1.0,
        "latent_rank": 4.0,
        "shuffle_ratio": 2.0,
        "code_perplexity": 3.0,
        "codes_used": 1.0,
    }
    monitor.judge(healthy | {"action_latent_ratio": float("nan")}, 8)  # before the first label
    assert not caplog.records
    monitor.judge(healthy | {"code_perplexity": 1.1, "codes_used": 0.25}, 8)
    (record,) = caplog.records
    assert "1.10 codes on average" in record.message and "25% of all codes" in record.message


def test_the_verdict_on_codes_that_have_collapsed() -> None:
    quantizer = VectorQuantizer(4, 2, 8).eval()
    valid = torch.ones(64, 3, dtype=torch.bool)
    lively = quantizer(2 * torch.randn(64, 3, 4), valid)
    check = _check_collapsed(LatentMetrics.of(lively, quantizer))
    assert not check.failed and "codes a place on average" in check.sentence
    rare = quantizer.codebook[0].repeat(64, 3, 2)
    rare[0] = 50 * torch.eye(3, 4)  # so far away that the latents still vary, in several directions
    check = _check_collapsed(LatentMetrics.of(rare, quantizer))
    assert check.failed and "The codes of the latents have collapsed" in check.sentence
    assert LatentMetrics.of(lively, None).codes is None
