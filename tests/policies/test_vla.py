"""Tests of what is special to the vision-language-action policies: frozen parts, adapters, language, padding, precision.

The rest of what they do is in the suite over all types, `test_every_policy`.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from draccus.utils import ParsingError
from helpers.datasets_on_the_spot import make_dataset
from helpers.tiny_vlas import make_paligemma, make_smolvlm
from helpers.training import Run, finetune, lerobot_train, resume, run_command
from lerobot.configs import PreTrainedConfig
from lerobot.policies import get_policy_class, make_pre_post_processors
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.policies.rtc.configuration_rtc import RTCConfig
from lerobot.rollout.context import _load_pretrained_policy as load_for_the_robot
from lerobot.utils.random_utils import seeded_context
from safetensors.torch import load_file
from torch import Tensor

from lawm_lerobot.policies.common.configuration import LawmConfig
from lawm_lerobot.policies.common.loading import load_whole_policy
from lawm_lerobot.policies.vla.policy import FlowVLAPolicy
from lawm_lerobot.scripts import lawm_export

HORIZON, LATENT_DIM, STATE_DIM, ACTION_DIM = 4, 6, 3, 2
TASKS = ("push the square", "leave it")
CAMERA = "observation.images.top"
LAWM = (
    "--policy.device=cpu",
    f"--policy.latent_action.horizon={HORIZON}",
    f"--policy.latent_action.dim={LATENT_DIM}",
    "--policy.latent_action.stride=2",
    "--policy.latent_action.source=both",
    "--policy.world_model.size=test",
    "--policy.world_model.image_size=32",
    "--policy.idm.size=test",
)


@dataclass
class VLA:
    """A type, and how this module pretrains it: in half precision, with parts frozen."""

    name: str
    pretraining: tuple[str, ...]
    finetuning: tuple[str, ...]
    frozen: str
    conversion: str
    flags: list[str] = field(default_factory=list)
    root: Path = Path()

    @property
    def policy_class(self) -> type[FlowVLAPolicy]:
        return get_policy_class(f"lawm_{self.name}")

    @property
    def plain_class(self) -> type[PreTrainedPolicy]:
        return get_policy_class(self.name)


SINGLE = ("--policy.dtype=float32", "--policy.gradient_checkpointing=false")
HALF = ("--policy.dtype=bfloat16", "--policy.gradient_checkpointing=true")
VLM = "model.paligemma_with_expert.paligemma."
KINDS = (
    # Its vision-language model is frozen by default.
    VLA(
        "smolvla",
        ("--policy.use_amp=true",),
        ("--policy.use_amp=false",),
        "model.vlm_with_expert.vlm.",
        "adapt_to_pi_aloha",
    ),
    VLA(
        "pi0",
        (*HALF, "--policy.freeze_vision_encoder=true"),
        SINGLE,
        f"{VLM}model.vision_tower.",
        "use_relative_actions",
    ),
    VLA("pi05", (*HALF, "--policy.train_expert_only=true"), SINGLE, VLM, "use_relative_actions"),
)


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def vla(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VLA]:
    kind = request.param
    kind.root = tmp_path_factory.mktemp(kind.name)
    with pytest.MonkeyPatch.context() as monkeypatch:
        if kind.name == "smolvla":
            kind.flags = make_smolvlm(kind.root / "smolvlm", tied=True)
        else:
            kind.flags = make_paligemma(kind.root / "hub", monkeypatch)
        yield kind


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A corpus, and demonstrations of a robot with another camera as well."""
    root = tmp_path_factory.mktemp("datasets")
    corpus = make_dataset(root / "corpus", lengths=(10, 10), state_dim=STATE_DIM, tasks=TASKS)
    tasks = ("push the bright square along the table",)
    return corpus, make_dataset(
        root / "demonstrations", cameras=("top", "wrist"), lengths=(10, 10), state_dim=STATE_DIM, tasks=tasks
    )


@pytest.fixture(scope="module")
def pretrained(vla: VLA, datasets: tuple[Path, Path]) -> Run:
    """Two steps, each saved, with labels of the demonstrations beside the corpus."""
    corpus, demonstrations = datasets
    return lerobot_train(
        corpus,
        vla.root / "pretrained",
        f"--policy.type=lawm_{vla.name}",
        *vla.flags,
        *vla.pretraining,
        *LAWM,
        "--policy.empty_cameras=1",
        "--policy.labels.repo_id=test/demonstrations",
        f"--policy.labels.root={demonstrations}",
        "--policy.labels.batch_size=2",
        "--save_freq=1",
    )


@pytest.fixture(scope="module")
def adapted(vla: VLA, pretrained: Run, datasets: tuple[Path, Path]) -> Run:
    """Finetuned by adapters for two steps, and resumed for a third."""
    flags = (*vla.finetuning, "--policy.chunk_size=5", "--policy.n_action_steps=3")
    run = finetune(
        pretrained.checkpoint(),
        datasets[1],
        vla.root / "adapted",
        *flags,
        "--policy.empty_cameras=0",
        "--peft.method_type=LORA",
        "--peft.r=4",
    )
    return Run(run.directory, run.log + resume(run, 2, "--steps=3").log)


@pytest.fixture(scope="module")
def exported(vla: VLA, adapted: Run) -> Path:
    output_dir = vla.root / "exported"
    run_command(lawm_export.main, f"--policy.path={adapted.checkpoint()}", f"--output_dir={output_dir}")
    return output_dir


# --- helpers -------------------------------------------------------------------------------------------------


def load_pretraining(vla: VLA, run: Run, *overrides: str) -> FlowVLAPolicy:
    """In single precision, where figures are compared."""
    single = [flag.replace("--policy.", "--") for flag in vla.finetuning]
    config = PreTrainedConfig.from_pretrained(run.checkpoint(), cli_overrides=[*single, *overrides])
    return vla.policy_class.from_pretrained(run.checkpoint(), config=config, allow_pretraining=True)


def raw_clip(seed: int = 0) -> dict[str, Any]:
    """Three clips as they come from a dataset."""
    generator = torch.Generator().manual_seed(seed)
    return {
        CAMERA: torch.rand(3, HORIZON + 1, 3, 32, 32, generator=generator),
        f"{CAMERA}_is_pad": torch.zeros(3, HORIZON + 1, dtype=torch.bool),
        "observation.state": torch.rand(3, HORIZON + 1, STATE_DIM, generator=generator),
        "task": [*TASKS, TASKS[0]],
    }


def clip_for(policy: FlowVLAPolicy, run: Run, raw: dict[str, Any] | None = None) -> dict[str, Any]:
    before, _ = make_pre_post_processors(policy.config, str(run.checkpoint()))
    return before(raw_clip() if raw is None else raw)


def config_of(checkpoint: Path) -> LawmConfig:
    config = PreTrainedConfig.from_pretrained(checkpoint)
    config.pretrained_path = checkpoint
    return config


def chunk_of(policy: PreTrainedPolicy, checkpoint: Path, **kwargs: Any) -> Tensor:
    """(1,chunk,A) for one made-up observation and a fixed noise."""
    before, _ = make_pre_post_processors(policy.config, str(checkpoint))
    generator = torch.Generator().manual_seed(0)
    observation = {
        CAMERA: torch.rand(3, 32, 32, generator=generator),
        "observation.images.wrist": torch.rand(3, 32, 32, generator=generator),
        "observation.state": torch.rand(STATE_DIM, generator=generator),
        "task": TASKS[0],
    }
    noise = torch.randn(1, policy.config.chunk_size, policy.config.max_action_dim, generator=generator)
    return policy.eval().predict_action_chunk(before(observation), noise=noise, **kwargs)


# --- latents and loss ----------------------------------------------------------------------------------------


def test_latents_are_one_step_of_the_sampler(vla: VLA, pretrained: Run) -> None:
    policy = load_pretraining(vla, pretrained)
    network = policy.model.config
    network.num_steps = network.num_inference_steps = 1  # SmolVLA's name, and pi0's
    seen = policy.policy_batch(clip_for(policy, pretrained))
    with torch.no_grad():
        with seeded_context(0):
            latents = policy.predict_latents(seen)
        with seeded_context(0):
            chunk = policy.model.sample_actions(*policy.model_inputs(seen))
    assert chunk.shape == (3, HORIZON, 32)
    assert latents.shape == (3, HORIZON, LATENT_DIM)
    torch.testing.assert_close(latents, chunk[..., :LATENT_DIM])


def test_imitation_is_the_plain_loss_without_the_padding(
    vla: VLA, pretrained: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = load_pretraining(vla, pretrained)
    batch = policy.policy_batch(clip_for(policy, pretrained))
    batch["action"] = torch.randn(3, HORIZON, LATENT_DIM)
    nothing = torch.zeros(3, HORIZON, dtype=torch.bool)
    errors: list[Tensor] = []
    forward = policy.model.forward
    monkeypatch.setattr(
        policy.model, "forward", lambda *args, **kwargs: errors.append(forward(*args, **kwargs)) or errors[-1]
    )
    losses = []
    for is_pad in (nothing, nothing.index_fill(1, torch.tensor([2, 3]), True)):
        with seeded_context(0), torch.no_grad():
            losses.append(policy.wrapped_loss({**batch, "action_is_pad": is_pad})[0])
    with seeded_context(0), torch.no_grad():
        plain, _ = vla.plain_class.forward(policy, {**batch, "action_is_pad": nothing})
    torch.testing.assert_close(losses[0], plain)
    torch.testing.assert_close(losses[1], errors[1][:, :2, :LATENT_DIM].mean())
    assert losses[0] != losses[1]


def test_the_future_reaches_neither_the_prompt_nor_the_state(vla: VLA, pretrained: Run) -> None:
    policy = load_pretraining(vla, pretrained)
    raw, future, present = raw_clip(), raw_clip(), raw_clip()
    future["observation.state"][:, 1:] -= 1
    present["observation.state"][:, 0] -= 1

    def what_it_sees(clip: dict[str, Any]) -> list[Tensor]:
        inputs = policy.model_inputs(policy.policy_batch(clip_for(policy, pretrained, clip)))
        return [part for item in inputs for part in (item if isinstance(item, list) else [item])]

    ours, theirs, other = map(what_it_sees, (raw, future, present))
    assert all(map(torch.equal, ours, theirs))
    assert not all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(ours, other, strict=True))


def test_only_what_is_trainable_gets_a_gradient(vla: VLA, pretrained: Run) -> None:
    policy = load_pretraining(vla, pretrained).train()
    policy.predict_latents(policy.policy_batch(clip_for(policy, pretrained))).square().mean().backward()
    with_gradient = {name for name, p in policy.model.named_parameters(prefix="model") if p.grad is not None}
    assert not [name for name in with_gradient if name.startswith(vla.frozen)]
    assert any("expert" in name for name in with_gradient)
    groups = policy.get_optim_params()
    assert groups[0]["lr"] == policy.config.optimizer_lr < policy.config.pretraining_lr
    optimized = {id(p) for group in groups for p in group["params"]}
    assert optimized == {id(p) for p in policy.parameters() if p.requires_grad}


def test_gradient_checkpointing_changes_no_gradient(vla: VLA, pretrained: Run) -> None:
    if vla.name == "smolvla":
        assert not hasattr(load_pretraining(vla, pretrained).config, "gradient_checkpointing")
        return
    gradients = []
    for wanted in ("false", "true"):
        policy = load_pretraining(vla, pretrained, f"--gradient_checkpointing={wanted}").train()
        assert policy.model.gradient_checkpointing_enabled == (wanted == "true")
        with seeded_context(0):
            policy(clip_for(policy, pretrained))[0].backward()
        gradients.append({n: p.grad for n, p in policy.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


# --- pretraining ---------------------------------------------------------------------------------------------


def test_half_precision_trains_and_frozen_parts_stay(vla: VLA, pretrained: Run) -> None:
    # The read-out sees the policy's own latents for the demonstrations, whose task is of another length.
    losses = [float(step[name]) for step in pretrained.metrics() for name in ("loss", "policy_readout_loss")]
    assert len(losses) == 4
    assert all(math.isfinite(loss) for loss in losses)
    before, after = pretrained.tensors(1), pretrained.tensors(2)
    frozen = [name for name in before if name.startswith(vla.frozen)]
    assert frozen
    assert not [name for name in frozen if not torch.equal(before[name], after[name])]
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {"model.action_in_proj.weight", "model.action_out_proj.weight"} <= moved
    assert any("expert" in name and "q_proj" in name for name in moved)
    halves = {tensor.dtype for name, tensor in after.items() if "q_proj" in name and "vision" not in name}
    assert halves == {torch.float32 if vla.name == "smolvla" else torch.bfloat16}


def test_empty_cameras_are_not_for_the_world_model(vla: VLA, pretrained: Run) -> None:
    policy = load_pretraining(vla, pretrained)
    assert "observation.images.empty_camera_0" in policy.config.image_features
    assert policy.camera == CAMERA
    images, *_ = policy.model_inputs(policy.policy_batch(clip_for(policy, pretrained)))
    assert len(images) == 2


def test_tied_weights_are_saved_once_and_loaded_everywhere(vla: VLA, pretrained: Run) -> None:
    policy = load_pretraining(vla, pretrained)
    missing = policy.state_dict().keys() - pretrained.tensors().keys()
    if vla.name == "smolvla":
        assert missing in (
            {"model.vlm_with_expert.vlm.lm_head.weight"},
            {"model.vlm_with_expert.vlm.model.text_model.embed_tokens.weight"},
        )
    else:  # LeRobot unties them
        assert not missing


def test_adapters_are_refused_in_pretraining(vla: VLA, pretrained: Run) -> None:
    policy = load_pretraining(vla, pretrained)
    policy.config.pretrained_path = pretrained.checkpoint()
    with pytest.raises(ValueError, match="--policy.stage=finetune"):
        policy.wrap_with_peft(peft_cli_overrides={"method_type": "LORA", "r": 4})


def test_what_pretraining_cannot_use_is_refused(vla: VLA) -> None:
    config_class = vla.policy_class.config_class
    assert getattr(config_class(device="cpu", stage="finetune", **{vla.conversion: True}), vla.conversion)
    with pytest.raises(ParsingError, match=f"--policy.{vla.conversion}"):
        config_class(device="cpu", **{vla.conversion: True})
    too_many = config_class(device="cpu").latent_action
    too_many.dim = 33
    with pytest.raises(ParsingError, match=r"max_action_dim.*--policy.latent_action.dim"):
        config_class(device="cpu", latent_action=too_many)


def test_published_names_of_openpi_are_understood(vla: VLA, pretrained: Run) -> None:
    policy = load_pretraining(vla, pretrained)
    published = policy.model.state_dict()
    prefix = "" if vla.name == "smolvla" else "model."
    assert policy.base_names(published).keys() == {f"{prefix}{name}" for name in published}


# --- adapters ------------------------------------------------------------------------------------------------


def test_adapters_hold_what_is_new(vla: VLA, pretrained: Run, adapted: Run) -> None:
    assert [figures["step"] for figures in adapted.metrics()] == ["1", "2", "3"]
    checkpoint = adapted.checkpoint()
    assert not (checkpoint / "model.safetensors").exists()
    adapters = load_file(checkpoint / "adapter_model.safetensors")
    whole = {name.split(".")[-2] for name in adapters if "lora_" not in name}
    assert whole == {"action_in_proj", "action_out_proj"} | ({"state_proj"} if vla.name != "pi05" else set())
    low_rank = [tensor for name, tensor in adapters.items() if "lora_B" in name]
    assert low_rank
    assert all(tensor.abs().max() > 0 for tensor in low_rank)  # trained: they start at zero
    assert json.loads((checkpoint / "config.json").read_text())["transferred_from"] == str(
        pretrained.checkpoint()
    )


def test_adapters_act_the_same_whenever_they_are_loaded(vla: VLA, adapted: Run, exported: Path) -> None:
    chunks = []
    for seed in (0, 1):  # The transfer that loading repeats draws other random numbers.
        with seeded_context(seed):
            policy = load_for_the_robot(config_of(adapted.checkpoint()))
        assert policy.peft_config
        chunks.append(chunk_of(policy, adapted.checkpoint()))
    assert chunks[0].shape == (1, 5, ACTION_DIM)
    assert torch.equal(*chunks)
    plain = vla.plain_class.from_pretrained(exported, strict=True)
    assert type(plain.config) is vla.policy_class.config_class.plain_class
    assert not plain.config.use_peft
    torch.testing.assert_close(chunk_of(plain, exported), chunks[0], atol=1e-5, rtol=1e-4)


def test_exported_steps_are_lerobots_own(vla: VLA, adapted: Run, exported: Path) -> None:
    ours, plain = (
        [
            step["registry_name"]
            for step in json.loads((path / "policy_preprocessor.json").read_text())["steps"]
        ]
        for path in (adapted.checkpoint(), exported)
    )
    assert not [name for name in plain if name.startswith("lawm_")]
    assert ("lawm_pi05_prompt" in ours) == (vla.name == "pi05")


def test_adapters_without_their_base_say_so(vla: VLA, adapted: Run, tmp_path: Path) -> None:
    shutil.copytree(adapted.checkpoint(), tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(tmp_path / "gone")
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(FileNotFoundError, match=r"gone.*base_model_name_or_path"):
        load_whole_policy(config_of(tmp_path))


# --- control -------------------------------------------------------------------------------------------------


def test_real_time_chunking_reaches_the_sampler(vla: VLA, adapted: Run, exported: Path) -> None:
    config = config_of(adapted.checkpoint())
    config.rtc_config = RTCConfig(enabled=True, execution_horizon=4)
    ours = load_whole_policy(config)
    plain = vla.plain_class.from_pretrained(exported)
    plain.config.rtc_config = config.rtc_config
    plain.init_rtc_processor()
    before = torch.ones(1, 5, ACTION_DIM)
    guided = {"inference_delay": 1, "prev_chunk_left_over": before, "execution_horizon": 4}
    chunk = chunk_of(ours, adapted.checkpoint(), **guided)
    torch.testing.assert_close(chunk, chunk_of(plain, exported, **guided))
    assert not torch.allclose(chunk, chunk_of(ours, adapted.checkpoint()))
