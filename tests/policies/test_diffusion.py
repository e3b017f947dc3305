"""Tests of policies that denoise: where latents sit in their chunk, one step from noise, and what their
condition's columns mean. Letters: B batch, H latent actions, Z latent dimension."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from diffusers import DDIMScheduler, DDPMScheduler
from helpers.tiny_policies import make_clip
from lerobot.configs import FeatureType, PolicyFeature
from torch import Tensor, nn

from lawm_lerobot.checkpoints.conditioning import match_cameras
from lawm_lerobot.checkpoints.transfer import InterpolateRows, MatchColumns, StartFrom, transfer_tensors
from lawm_lerobot.method.configuration import InverseDynamicsConfig, RecurrentConfig
from lawm_lerobot.method.latent_action import LatentActionConfig
from lawm_lerobot.policies.common.configuration import LawmConfig
from lawm_lerobot.policies.common.denoising import denoise_once
from lawm_lerobot.policies.common.policy import LawmPolicy
from lawm_lerobot.policies.diffusion.configuration_lawm_diffusion import LawmDiffusionConfig
from lawm_lerobot.policies.diffusion.modeling_lawm_diffusion import LawmDiffusionPolicy
from lawm_lerobot.policies.multi_task_dit.configuration_lawm_multi_task_dit import LawmMultiTaskDiTConfig
from lawm_lerobot.policies.multi_task_dit.modeling_lawm_multi_task_dit import LawmMultiTaskDiTPolicy

torch.set_num_threads(1)

B, H, Z, A, S = 3, 3, 4, 2, 5
IMAGE = "observation.images."


def diffusion(**changes: Any) -> LawmDiffusionConfig:
    values = {
        "use_group_norm": True,
        "pretrained_backbone_weights": None,
        "spatial_softmax_num_keypoints": 4,
        "down_dims": (16, 32),
        "diffusion_step_embed_dim": 8,
        "horizon": 16,
        "n_action_steps": 8,
        "num_train_timesteps": 10,
    }
    return LawmDiffusionConfig(**common(), **{**values, **changes})


def multi_task_dit(clip: Path, **changes: Any) -> LawmMultiTaskDiTConfig:
    values = {
        "vision_encoder_name": str(clip),
        "text_encoder_name": str(clip),
        "image_resize_shape": (16, 16),
        "image_crop_shape": None,
        "hidden_dim": 32,
        "num_layers": 1,
        "num_heads": 2,
        "timestep_embed_dim": 8,
        "num_train_timesteps": 10,
    }
    return LawmMultiTaskDiTConfig(**common(), **{**values, **changes})


def common() -> dict[str, Any]:
    return {
        "device": "cpu",
        "latent_action": LatentActionConfig(dim=Z, horizon=H, stride=2),
        "world_model": RecurrentConfig(size="test", image_size=32),
        "idm": InverseDynamicsConfig(size="test"),
    }


def features(*cameras: str, state: int | None, action: int) -> dict[str, Any]:
    seen = {f"{IMAGE}{camera}": PolicyFeature(FeatureType.VISUAL, (3, 32, 32)) for camera in cameras}
    if state is not None:
        seen = {"observation.state": PolicyFeature(FeatureType.STATE, (state,)), **seen}
    return {
        "input_features": seen,
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (action,))},
    }


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("models") / "tiny_clip")


@pytest.fixture(autouse=True)
def tiny_resnet(monkeypatch: pytest.MonkeyPatch) -> None:
    """ResNet18's initialisation would take most of the time; the suite over every type has the real one."""

    def resnet18(weights: str | None) -> nn.Module:
        map_of_two = nn.Conv2d(3, 16, 16, stride=16)  # 32 pixels -> 2
        return nn.Sequential(map_of_two, nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    monkeypatch.setattr(torchvision.models, "resnet18", resnet18)


Make = Callable[..., LawmConfig]


@pytest.fixture(params=["diffusion", "multi_task_dit"])
def make(request: pytest.FixtureRequest, clip: Path) -> Make:
    if request.param == "diffusion":
        return diffusion
    return lambda **changes: multi_task_dit(clip, **changes)


def built(config: LawmConfig, seed: int = 0) -> LawmPolicy:
    classes = {LawmDiffusionConfig: LawmDiffusionPolicy, LawmMultiTaskDiTConfig: LawmMultiTaskDiTPolicy}
    torch.manual_seed(seed)
    return classes[type(config)](config)


def pretraining_batch(config: LawmConfig, cameras: tuple[str, ...] = ("top",)) -> dict[str, Any]:
    frames = len(config.observation_delta_indices)
    generator = torch.Generator().manual_seed(1)
    batch: dict[str, Any] = {"observation.state": torch.randn(B, frames, S, generator=generator)}
    for camera in cameras:
        batch[f"{IMAGE}{camera}"] = torch.rand(B, frames, 3, 32, 32, generator=generator)
        batch[f"{IMAGE}{camera}_is_pad"] = torch.zeros(B, frames, dtype=torch.bool)
    if isinstance(config, LawmMultiTaskDiTConfig):
        batch["observation.language.tokens"] = torch.randint(0, 256, (B, 12), generator=generator)
        batch["observation.language.attention_mask"] = torch.ones(B, 12, dtype=torch.bool)
    return batch


# --- where the latents sit in the chunk ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_obs_steps", "down_dims", "horizon", "slots"),
    [(1, (16, 32), 4, (0, 0)), (2, (16, 32), 4, (1, 3)), (3, (16, 32, 64), 8, (2, 6)), (2, (16,), 3, (1, 0))],
)
def test_the_present_keeps_its_slot_and_the_chunk_a_length_the_unet_can_halve(
    n_obs_steps: int, down_dims: tuple[int, ...], horizon: int, slots: tuple[int, int]
) -> None:
    latent = LatentActionConfig(dim=Z, horizon=horizon)
    config = replace(diffusion(n_obs_steps=n_obs_steps, down_dims=down_dims), latent_action=latent)
    wrapped = config.wrapped_config()
    assert wrapped.horizon % 2 ** len(down_dims) == 0
    assert config.latent_slots == slots
    assert sum(slots) + horizon == wrapped.horizon
    assert config.horizon == 16  # the user's, for finetuning


def test_wrapped_policy_gets_the_latents_from_the_present_on_and_the_rest_as_padding(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make(n_obs_steps=2, **features("top", state=S, action=Z))
    policy = built(config).train()
    got: dict[str, Tensor] = {}
    wrapped = next(
        c for c in type(policy).__mro__ if c.__module__.startswith("lerobot.") and "forward" in vars(c)
    )
    forward = wrapped.forward

    def spy(self: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict | None]:
        got.update(batch)
        return forward(self, batch)

    monkeypatch.setattr(wrapped, "forward", spy)
    batch = pretraining_batch(config)
    batch[f"{IMAGE}top_is_pad"][0, -1] = True  # the first clip's last transition is past the end
    loss, _ = policy.forward(batch)
    before, after = config.latent_slots
    assert got["action"].shape == (B, before + H + after, Z)
    assert got["action_is_pad"][1].tolist() == [True] * before + [False] * H + [True] * after
    assert got["action_is_pad"][0].tolist() == [True] * before + [False] * (H - 1) + [True] * (1 + after)
    assert not got["action"][:, :before].any()
    assert got["action"][:, before].any()
    assert got[f"{IMAGE}top"].shape[1] == 2  # the history ends at the present
    assert torch.equal(got[f"{IMAGE}top"], batch[f"{IMAGE}top"][:, :2])
    assert loss.isfinite()


def test_padding_is_not_in_the_wrapped_loss(make: Make) -> None:
    # Networks that predict the clean sample have the padding itself as target.
    policy = built(make(prediction_type="sample", **features("top", state=S, action=Z)))
    seen = policy.policy_batch(pretraining_batch(policy.config))
    before, after = policy.config.latent_slots
    chunk = torch.randn(B, before + H + after, Z, requires_grad=True)
    is_pad = torch.ones(B, before + H + after, dtype=torch.bool)
    is_pad[:, before : before + H] = False
    for part in (policy, *policy.modules()):  # At the last step of the schedule the network sees noise only.
        if hasattr(part, "noise_scheduler"):
            part.noise_scheduler.alphas_cumprod.zero_()
    loss, _ = super(LawmPolicy, policy).forward({**seen, "action": chunk, "action_is_pad": is_pad})
    (gradient,) = torch.autograd.grad(loss, chunk)
    assert (gradient.norm(dim=-1) > 0).equal(~is_pad)


@pytest.mark.parametrize("n_obs_steps", [1, 2])
def test_predicted_latents_are_those_of_the_present_and_after(make: Make, n_obs_steps: int) -> None:
    policy = built(make(n_obs_steps=n_obs_steps, **features("top", state=S, action=Z)))
    before, _ = policy.config.latent_slots
    assert before == n_obs_steps - 1
    chunk = torch.arange(20.0)[None, :, None]
    assert policy.latents_in(chunk).flatten().tolist() == [before + k for k in range(H)]
    latents = policy.predict_latents(policy.policy_batch(pretraining_batch(policy.config)))
    assert latents.shape == (B, H, Z)


def test_video_without_a_state_pretrains_and_cannot_be_finetuned_on(make: Make) -> None:
    config = make(**features("top", state=None, action=Z))
    policy = built(config).train()
    batch = pretraining_batch(config)
    policy.forward(batch)  # of a dataset with a state, which is not used
    del batch["observation.state"]
    policy.forward(batch)[0].backward()
    assert policy.latent_head.grad.norm() > 0
    assert "observation.state" not in config.input_features
    image = {"dtype": "video", "shape": (32, 32, 3), "names": ["height", "width", "channels"]}
    action = {"dtype": "float32", "shape": (A,), "names": None}
    with pytest.raises(ValueError, match=rf"no 'observation.state'.*{config.type} cannot act without"):
        replace(config, stage="finetune").set_dataset_feature_metadata(
            {f"{IMAGE}top": image, "action": action}
        )


# --- one step from noise -------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheduler", [DDPMScheduler, DDIMScheduler])
@pytest.mark.parametrize("schedule", ["squaredcos_cap_v2", "linear"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_one_step_finds_what_a_perfect_network_knows(
    prediction_type: str, schedule: str, scheduler: type
) -> None:
    made = scheduler(
        num_train_timesteps=100, beta_schedule=schedule, prediction_type=prediction_type, clip_sample=True
    )
    clean, noise = 3 * torch.randn(B, H, Z), torch.randn(B, H, Z)  # beyond the clip's range

    def network(noisy: Tensor, step: Tensor) -> Tensor:
        alpha = made.alphas_cumprod[step].view(-1, 1, 1)
        signal, spread = alpha.sqrt(), (1 - alpha).sqrt()
        epsilon = (noisy - signal * clean) / spread
        return {"epsilon": epsilon, "sample": clean, "v_prediction": signal * epsilon - spread * clean}[
            prediction_type
        ]

    torch.testing.assert_close(denoise_once(made, network, noise), clean, rtol=1e-3, atol=1e-3)


def test_an_error_of_the_network_is_not_blown_up() -> None:
    scheduler = DDPMScheduler(num_train_timesteps=100, beta_schedule="squaredcos_cap_v2")
    noise = torch.randn(B, H, Z)
    error = denoise_once(scheduler, lambda noisy, step: noisy + 0.1, noise) - denoise_once(
        scheduler, lambda noisy, step: noisy, noise
    )
    assert error.abs().max() < 2


@pytest.mark.parametrize("changes", [{"prediction_type": "sample"}, {"objective": "flow_matching"}])
@pytest.mark.parametrize("source", ["policy", "both"])
def test_other_objectives_pass_the_gradient_too(changes: dict[str, str], source: str, make: Make) -> None:
    if "objective" in changes and make is diffusion:
        changes = {"noise_scheduler_type": "DDIM"}
    config = make(**changes, **features("top", state=S, action=Z))
    config.latent_action.source = source
    config.latent_action.imitation_weight = 0.0
    policy = built(config).train()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    policy.forward(pretraining_batch(config))[0].backward()
    assert policy.latent_head.grad.norm() > 0
    encoder = [p for n, p in policy.named_parameters() if "rgb_encoder" in n or "vision_encoder" in n]
    assert any(p.grad is not None and p.grad.norm() > 0 for p in encoder)


@pytest.mark.parametrize("multiplier", [0.1, 1.0])
def test_image_encoder_learns_at_its_share_of_the_rate(clip: Path, multiplier: float) -> None:
    config = multi_task_dit(
        clip, vision_encoder_lr_multiplier=multiplier, **features("top", state=S, action=Z)
    )
    policy = built(config)
    lr = config.get_optimizer_preset().lr
    assert lr == config.pretraining_lr != config.policy_pretraining_lr != config.optimizer_lr
    rates = {id(p): group.get("lr", lr) for group in policy.get_optim_params() for p in group["params"]}
    trained = {name: id(p) for name, p in policy.named_parameters() if p.requires_grad}
    assert rates.keys() == set(trained.values())
    encoder = "observation_encoder.vision_encoder."
    for name, p in trained.items():
        share = multiplier if name.startswith(encoder) else 1
        beside = name.startswith("pretraining.")
        assert rates[p] == pytest.approx(lr if beside else config.policy_pretraining_lr * share)


def test_flow_matching_takes_one_euler_step(clip: Path) -> None:
    policy = built(
        multi_task_dit(clip, objective="flow_matching", **features("top", state=S, action=Z))
    ).eval()
    seen = policy.policy_batch(pretraining_batch(policy.config))
    with torch.no_grad():
        torch.manual_seed(4)
        latents = policy.predict_latents(seen)
        condition = policy.observation_encoder.encode(policy._prepare_batch(seen))
        policy.objective.config = replace(policy.objective.config, num_integration_steps=1)
        torch.manual_seed(4)
        sampled = policy.objective.conditional_sample(policy.noise_predictor, B, condition)  # LeRobot's own
    torch.testing.assert_close(latents, policy.latents_in(sampled))


# --- what carries over ---------------------------------------------------------------------------------------


def transferred(source: LawmConfig, target: LawmConfig) -> tuple[dict, dict, dict]:
    """Tensors before and after, and {name: (status, reason)}."""
    before, after = built(source, seed=0), built(target, seed=1)
    state, report = transfer_tensors(
        {n: t for n, t in before.state_dict().items() if not n.startswith("pretraining.")},
        after.state_dict(),
        after.transfer_rules(source.wrapped_config()),
        "source",
    )
    after.load_state_dict(state, strict=True)
    return dict(before.state_dict()), state, {t.name: (t.status, t.reason) for t in report.tensors}


def matrix(state: dict[str, Tensor]) -> Tensor:
    names = (
        "diffusion.unet.mid_modules.0.cond_encoder.1.weight",
        "noise_predictor.transformer_blocks.0.adaLN_modulation.1.weight",
    )
    return next(state[name] for name in names if name in state)


def marked(config: LawmConfig, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The condition's columns by what they mean."""
    policy = built(config)
    (rule,) = [r for r in policy.transfer_rules(config.wrapped_config()) if isinstance(r, MatchColumns)]
    blocks = rule.target_blocks
    return dict(zip(blocks, matrix(state).split(list(blocks.values()), dim=1), strict=True))


@pytest.fixture
def lively(monkeypatch: pytest.MonkeyPatch) -> None:
    """Conditions that start at zero would be alike everywhere."""
    from lerobot.policies.multi_task_dit.modeling_multi_task_dit import DiffusionTransformer

    monkeypatch.setattr(DiffusionTransformer, "_initialize_weights", lambda self: None)


@pytest.mark.usefixtures("lively")
@pytest.mark.parametrize(("before", "after"), [(2, 2), (1, 2), (2, 1)])
def test_image_columns_are_kept_and_those_of_the_state_are_new(make: Make, before: int, after: int) -> None:
    source = make(n_obs_steps=before, **features("top", state=2, action=Z))
    target = make(n_obs_steps=after, stage="finetune", **features("top", state=S, action=A))
    given, made, report = transferred(source, target)
    old, new = marked(source, given), marked(target, made)
    for name in new:
        same = name in old and old[name].shape == new[name].shape and torch.equal(old[name], new[name])
        assert same == (name in old and not name.startswith("observation.state")), name
    fresh = marked(target, built(target, seed=1).state_dict())
    assert torch.equal(new["observation.state[0]"], fresh["observation.state[0]"])
    status, reason = next(
        report[n] for n in report if n.endswith("modulation.1.weight") or "cond_encoder.1.w" in n
    )
    assert status == "adapted"
    assert f"{IMAGE}top[0]" in reason.partition("fresh")[0]
    assert "observation.state[0]" in reason.partition("fresh")[2]


@pytest.mark.usefixtures("lively")
@pytest.mark.parametrize("own_before", [False, True])
@pytest.mark.parametrize("own_after", [False, True])
def test_every_camera_starts_from_what_pretraining_saw(make: Make, own_before: bool, own_after: bool) -> None:
    key = "use_separate_rgb_encoder_per_camera"
    source = make(**{key: own_before}, **features("top", state=None, action=Z))
    target = make(**{key: own_after}, stage="finetune", **features("front", "wrist", state=S, action=A))
    given, made, report = transferred(source, target)

    def encoders(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {n: t for n, t in state.items() if "rgb_encoder" in n or "vision_encoder" in n}

    old, new = encoders(given), encoders(made)
    assert len(new) == len(old) * (2 if own_after else 1)
    assert sorted(float(t.float().sum()) for t in new.values()) == sorted(
        float(t.float().sum()) for t in old.values() for _ in range(2 if own_after else 1)
    )
    assert {report[n][0] for n in new} <= {"kept", "adapted", "reinitialised"}
    assert all("pos_grid" in n for n in new if report[n][0] == "reinitialised")
    # Both cameras look with what the only one looked with: their sum is as large as its.
    top = marked(source, given)[f"{IMAGE}top[0]"]
    columns = marked(target, made)
    for camera in ("front", "wrist"):
        torch.testing.assert_close(columns[f"{IMAGE}{camera}[0]"], top / 2)


def test_an_encoder_that_nothing_starts_from_is_left_behind(make: Make) -> None:
    own = {"use_separate_rgb_encoder_per_camera": True}
    source = make(**own, **features("left", "right", "above", state=S, action=Z))
    target = make(**own, stage="finetune", **features("right", state=S, action=A))
    given, made, report = transferred(source, target)
    prefix = "diffusion.rgb_encoder" if make is diffusion else "observation_encoder.vision_encoders"
    dropped = {n for n, (status, _) in report.items() if status == "dropped" and "pos_grid" not in n}
    assert dropped
    assert all(n.startswith(f"{prefix}.2.") for n in dropped)
    for name in (n for n in made if n.startswith(f"{prefix}.0.") and "pos_grid" not in n):
        assert torch.equal(made[name], given[name.replace(f"{prefix}.0.", f"{prefix}.1.")]), name
        assert report[name] == ("adapted", f"starts from {name.replace('.0.', '.1.', 1)}")


def test_what_takes_or_gives_actions_is_new_even_where_its_shape_fits(make: Make) -> None:
    source = make(**features("top", state=S, action=Z))
    target = make(stage="finetune", **features("top", state=S, action=Z))
    given, made, report = transferred(source, target)
    new = {n for n, (status, _) in report.items() if status == "reinitialised"}
    expected = (
        {"down_modules.0.0.conv1.block.0", "down_modules.0.0.residual_conv", "final_conv.1", "pos_grid"}
        if make is diffusion
        else {"input_proj", "output_proj"}
    )
    assert all(any(part in name for part in expected) for name in new)
    assert all(any(part in name for name in new) for part in expected - {"pos_grid"})
    head = "diffusion.unet.final_conv.1.weight" if make is diffusion else "noise_predictor.output_proj.weight"
    assert given[head].shape == made[head].shape
    assert not torch.isclose(given[head], made[head]).any()


def test_actions_as_wide_as_the_first_layer_have_no_residual_projection() -> None:
    name = "diffusion.unet.down_modules.0.0.residual_conv.weight"
    source = diffusion(**features("top", state=S, action=Z))
    for action, status in ((16, "dropped"), (A, "reinitialised")):
        target = diffusion(stage="finetune", **features("top", state=S, action=action))
        _, made, report = transferred(source, target)
        assert (name in made) == (status == "reinitialised")
        assert report[name][0] == status


def test_further_buffers_of_the_wrapped_policy_survive() -> None:
    source = diffusion(**features("top", state=S, action=Z))
    target = diffusion(stage="finetune", **features("top", state=S, action=A))
    before, after = built(source), built(target, seed=1)
    for policy in (before, after):  # an average of the weights, say
        policy.diffusion.register_buffer("ema_decay", torch.full((3,), 0.9 if policy is before else 0.0))
    state, _ = transfer_tensors(
        {n: t for n, t in before.state_dict().items() if not n.startswith("pretraining.")},
        after.state_dict(),
        after.transfer_rules(source.wrapped_config()),
        "source",
    )
    assert torch.equal(state["diffusion.ema_decay"], torch.full((3,), 0.9))


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        (["top"], ["top"], {"top": "top"}),
        (["top"], ["front", "wrist"], {"front": "top", "wrist": "top"}),
        (["left", "right"], ["front", "wrist"], {"front": "left", "wrist": "right"}),
        (["left", "right"], ["wrist", "right"], {"right": "right", "wrist": "left"}),
        (["top"], ["top", "wrist"], {"top": "top", "wrist": "top"}),
        (["top"], [], {}),
    ],
)
def test_cameras_start_from_their_namesakes_or_the_others_in_turn(
    source: list[str], target: list[str], expected: dict[str, str]
) -> None:
    assert match_cameras(source, target) == expected


# --- the rules by themselves ---------------------------------------------------------------------------------


def test_columns_that_have_not_changed_are_simply_kept() -> None:
    weight = torch.randn(2, 5)
    blocks = {"a": 2, "b": 3}
    rule = MatchColumns("w", blocks, blocks, {"a": "a", "b": "b"})
    assert rule(weight, torch.zeros(2, 5))[1] == "kept"
    swapped, status, _ = MatchColumns("w", blocks, {"b": 3, "a": 2}, {"a": "a", "b": "b"})(
        weight, torch.zeros(2, 5)
    )
    assert status == "adapted"
    assert torch.equal(swapped, torch.cat([weight[:, 2:], weight[:, :2]], dim=1))


@pytest.mark.parametrize(
    ("source", "target"), [((2, 6), (2, 5)), ((3, 5), (2, 5)), (None, (2, 5)), ((2, 5), (2, 4))]
)
def test_columns_that_do_not_fit_are_an_error(source: tuple | None, target: tuple) -> None:
    blocks = {"a": 2, "b": 3}
    rule = MatchColumns("w", blocks, {"a": 2, "b": target[1] - 2}, {"a": "a", "b": "b"})
    given = {} if source is None else {"w": torch.zeros(source)}
    with pytest.raises(ValueError, match="does not fit this policy: w is"):
        transfer_tensors(given, {"w": torch.zeros(target)}, [rule], "source")


def test_a_table_may_have_a_leading_one() -> None:
    table = torch.arange(3.0).view(1, 3, 1).expand(1, 3, 2)
    stretched, status, _ = InterpolateRows("t", "stretched")(table, torch.zeros(1, 5, 2))
    assert status == "adapted"
    assert stretched[0, :, 0].tolist() == [0, 0.5, 1, 1.5, 2]


def test_a_module_that_has_nothing_to_start_from_is_an_error() -> None:
    rule = StartFrom("encoder*", {"encoder.1.": "encoder.0."}, "unused")
    with pytest.raises(ValueError, match=r"encoder\.1\.w is missing"):
        transfer_tensors({}, {"encoder.1.w": torch.zeros(2)}, [rule], "source")


def test_measuring_the_health_draws_nothing_that_training_would() -> None:
    drawn = []
    for frequency in (1, 1000):
        policy = built(diffusion(health_freq=frequency, **features("top", state=S, action=Z))).train()
        policy.health.training_steps = 1  # The first step measures in any case.
        torch.manual_seed(3)
        policy.forward(pretraining_batch(policy.config))
        drawn.append(torch.rand(4))
    assert torch.equal(*drawn)
