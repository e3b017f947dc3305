"""What reaches the policy's weights in pretraining, and what must not. Letters as in CONTRIBUTING: B, H, T, C h w, Z."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.act.modeling_act import ACTPolicy
from torch import Tensor, nn

from lawm_lerobot.method.configuration import (
    InverseDynamicsConfig,
    RecurrentConfig,
    RSSMConfig,
    WorldModelConfig,
)
from lawm_lerobot.method.latent_action import LatentActionConfig
from lawm_lerobot.policies.act.configuration_lawm_act import LawmActConfig
from lawm_lerobot.policies.act.modeling_lawm_act import LawmActPolicy
from lawm_lerobot.policies.common.health import IGNORED_AFTER

torch.set_num_threads(1)

SOURCES = ("inverse_dynamics", "policy", "both")
WORLD_MODELS: dict[str, Callable[[], WorldModelConfig]] = {
    "rssm": lambda: RSSMConfig(size="test", image_size=32),
    "recurrent": lambda: RecurrentConfig(size="test", image_size=32),
}
LATENT = ("noise", "imitation_weight", "unshifted_targets")
CAMERA, STATE = "observation.images.top", "observation.state"
B, H, Z, S, SIZE = 4, 3, 4, 2, 32


def make_policy(
    source: str = "inverse_dynamics", world_model: str = "recurrent", seed: int = 0, **changes: Any
) -> LawmActPolicy:
    """A tiny policy in the pretraining stage and in training mode."""
    latent = {name: changes.pop(name) for name in LATENT if name in changes}
    torch.manual_seed(seed)
    config = LawmActConfig(
        device="cpu",
        pretrained_backbone_weights=None,
        input_features={
            CAMERA: PolicyFeature(FeatureType.VISUAL, (3, SIZE, SIZE)),
            STATE: PolicyFeature(FeatureType.STATE, (S,)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (Z,))},
        latent_action=LatentActionConfig(source=source, dim=Z, horizon=H, stride=1, **latent),
        world_model=WORLD_MODELS[world_model](),
        idm=InverseDynamicsConfig(size="test", random_shift=2),
        **{
            "dim_model": 32,
            "n_heads": 2,
            "dim_feedforward": 64,
            "n_encoder_layers": 1,
            "n_vae_encoder_layers": 1,
            **changes,
        },
    )
    return LawmActPolicy(config).train()


def noise_batch(batch: int = B, seed: int = 1) -> dict[str, Any]:
    """A pretraining batch of noise, nothing of it padded."""
    generator = torch.Generator().manual_seed(seed)
    pad = torch.zeros(batch, H + 1, dtype=torch.bool)
    return {
        CAMERA: torch.rand(batch, H + 1, 3, SIZE, SIZE, generator=generator),
        f"{CAMERA}_is_pad": pad,
        STATE: torch.randn(batch, H + 1, S, generator=generator),
        f"{STATE}_is_pad": pad.clone(),
        "task": ["push"] * batch,
    }


def moving_squares() -> dict[str, Any]:
    """A batch whose clips start with one and the same frame; only the state tells where the square will go."""
    moves = torch.tensor([(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (1, -1), (-1, 1)])  # (B,2)
    clips = torch.full((len(moves), H + 1, 3, SIZE, SIZE), 0.3)
    for clip, move in zip(clips, moves.tolist(), strict=True):
        for t in range(H + 1):
            row, column = (12 + 4 * t * step for step in move)
            clip[t, :, max(row, 0) : row + 8, max(column, 0) : column + 8] = 0.9
    batch = noise_batch(len(moves))
    return {**batch, CAMERA: clips, STATE: moves[:, None].expand(-1, H + 1, -1).float()}


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in module.named_parameters()
    }


def step(
    policy: LawmActPolicy, batch: dict[str, Any], seed: int = 2
) -> tuple[float, dict, dict[str, Tensor]]:
    """Loss, metrics and gradients of one forward and backward pass with fixed random numbers."""
    policy.zero_grad()
    torch.manual_seed(seed)
    loss, metrics = policy.forward(batch)
    loss.backward()
    return loss.item(), metrics, gradients(policy)


# --- what must arrive ----------------------------------------------------------------------------------------

# Without a gradient by design of ACT or of the latents' norm, in every source:
#   decoder.layers.0.self_attn.in_proj_weight: ACT's decoder starts from zeros, which are all alike as keys and values.
# and where the latents come from the policy alone:
#   encoder_latent_input_proj.weight: multiplies the latent of ACT's VAE, which is zero without actions to encode;
#   action_head.bias: a constant added to all latents, which their norm takes away again.
WITHOUT_GRADIENT = {"model.decoder.layers.0.self_attn.in_proj_weight"}
WITHOUT_GRADIENT_FROM_THE_WORLD_MODEL = {"model.encoder_latent_input_proj.weight", "model.action_head.bias"}


def nudged(policy: LawmActPolicy) -> LawmActPolicy:
    """The biases that ACT starts at zero silence the weights behind them for the first step: move everything."""
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return policy


@pytest.mark.parametrize("world_model", WORLD_MODELS)
@pytest.mark.parametrize("source", SOURCES)
def test_every_policy_parameter_gets_a_gradient(source: str, world_model: str) -> None:
    policy = nudged(make_policy(source, world_model))
    _, _, found = step(policy, noise_batch())
    expected_without = WITHOUT_GRADIENT | (
        WITHOUT_GRADIENT_FROM_THE_WORLD_MODEL if source == "policy" else set()
    )
    of_policy = {name: g.norm().item() for name, g in found.items() if name.startswith("model.")}
    assert {name for name, norm in of_policy.items() if not norm > 1e-9} <= expected_without
    assert ("model.vae_encoder_cls_embed.weight" in of_policy) == (source != "policy")


@pytest.mark.parametrize("world_model", WORLD_MODELS)
@pytest.mark.parametrize("source", ["policy", "both"])
def test_world_models_gradient_alone_reaches_the_whole_latent_path(source: str, world_model: str) -> None:
    # ACT's VAE serves imitation only; source=both has it.
    policy = nudged(make_policy(source, world_model, imitation_weight=0.0))
    _, _, found = step(policy, noise_batch())
    without = {
        name
        for name, gradient in found.items()
        if name.startswith("model.") and "vae_encoder" not in name and not gradient.norm() > 1e-9
    }
    assert without <= WITHOUT_GRADIENT | WITHOUT_GRADIENT_FROM_THE_WORLD_MODEL


@pytest.mark.parametrize("world_model", WORLD_MODELS)
@pytest.mark.parametrize("source", SOURCES)
def test_world_model_and_inverse_dynamics_get_gradients(source: str, world_model: str) -> None:
    _, _, found = step(make_policy(source, world_model), noise_batch())
    without = {n for n, g in found.items() if n.startswith("pretraining.") and not g.norm() > 1e-12}
    # A constant added to all latents, which their norm takes away again.
    assert without <= {"pretraining.inverse_dynamics.head.1.bias"}
    assert any(n.startswith("pretraining.inverse_dynamics.") for n in found) == (source != "policy")


@pytest.mark.parametrize("k", range(H))
@pytest.mark.parametrize("world_model", WORLD_MODELS)
def test_every_latent_changes_the_loss(world_model: str, k: int) -> None:
    policy = make_policy(world_model=world_model).eval()
    clip = policy.clip(noise_batch())
    frames, valid = clip.frames, clip.valid
    z = torch.randn(B, H, Z, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        before = policy.pretraining.world_model(frames, z, valid).loss
        z[:, k] += 1
        after = policy.pretraining.world_model(frames, z, valid).loss
    assert after != before


@pytest.mark.parametrize("world_model", WORLD_MODELS)
@pytest.mark.parametrize("source", ["policy", "both"])
def test_every_latent_of_the_policy_gets_a_gradient(
    source: str, world_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = make_policy(source, world_model, imitation_weight=0.0)
    predicted: list[Tensor] = []

    def predict(batch: dict[str, Any]) -> Tensor:
        z = LawmActPolicy.predict_latents(policy, batch)
        if z.requires_grad:  # not while the health is measured
            z.retain_grad()
            predicted.append(z)
        return z

    monkeypatch.setattr(policy, "predict_latents", predict)
    step(policy, noise_batch())
    (z,) = predicted
    assert z.shape == (B, H, Z)
    assert z.grad is not None
    assert (z.grad.norm(dim=-1) > 1e-9).all()  # (B,H): every z_k of every clip, z_0 included


# --- what must not -------------------------------------------------------------------------------------------


def test_world_model_does_not_train_the_policy_behind_inverse_dynamics() -> None:
    _, _, found = step(make_policy("inverse_dynamics", imitation_weight=0.0), noise_batch())
    assert all(not gradient.any() for name, gradient in found.items() if name.startswith("model."))


def test_imitation_does_not_train_the_inverse_dynamics() -> None:
    policy = make_policy("inverse_dynamics")
    policy.config.world_model.loss_weight = 0.0
    _, _, found = step(policy, noise_batch())
    assert all(not gradient.any() for name, gradient in found.items() if name.startswith("pretraining."))


@pytest.mark.parametrize("unshifted", [True, False])
def test_policy_imitates_latents_of_the_frames_as_they_are(
    unshifted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # q's input is shifted at random, which the policy cannot see in x_0.
    policy = make_policy("inverse_dynamics", unshifted_targets=unshifted)
    imitated: list[Tensor] = []
    wrapped_loss = policy.wrapped_loss
    monkeypatch.setattr(
        policy, "wrapped_loss", lambda seen: (imitated.append(seen["action"]), wrapped_loss(seen))[1]
    )
    batch, norm = noise_batch(), policy.pretraining.latent_norm
    for seed in (0, 1):
        torch.manual_seed(seed)
        before = norm.batches.clone()
        policy(batch)
        assert norm.batches == before + 1  # the second look leaves the running statistics alone
    assert torch.equal(*imitated) == unshifted
    assert not any(latents.requires_grad for latents in imitated)


def test_samples_cannot_be_weighted() -> None:
    # LeRobot asks so where its sample weights are in use, and would multiply a loss of the whole batch by them.
    with pytest.raises(ValueError, match="leave out --sample_weighting") as error:
        make_policy().forward(noise_batch(), reduction="none")
    assert "(reduction='none')" in str(error.value)
    with pytest.raises(TypeError, match="unheard_of"):
        make_policy().forward(noise_batch(), unheard_of=1)


def test_finetuning_passes_the_reduction_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(ACTPolicy, "forward", lambda self, batch, **kwargs: (asked.append(kwargs), {}))
    config = replace(make_policy().config, stage="finetune", chunk_size=6, n_action_steps=6)
    LawmActPolicy(config).forward({CAMERA: torch.rand(B, 3, SIZE, SIZE)}, reduction="none")
    assert asked == [{"reduction": "none"}]


def test_optimizer_steps_in_one_pass_and_to_the_same_weights() -> None:
    ends = []
    for fused in (True, False):
        policy = make_policy("inverse_dynamics")
        groups = policy.get_optim_params()
        assert all(group["fused"] for group in groups)
        if not fused:
            groups = [{key: value for key, value in group.items() if key != "fused"} for group in groups]
        optimizer = policy.config.get_optimizer_preset().build(groups)
        torch.manual_seed(0)
        policy(noise_batch())[0].backward()
        optimizer.step()
        ends.append(torch.cat([p.detach().flatten() for p in policy.parameters()]))
    torch.testing.assert_close(*ends)


@pytest.mark.slow
def test_compiled_modules_give_the_same_loss_under_the_same_names() -> None:
    losses, names = [], []
    for compiled in (False, True):
        policy = make_policy("inverse_dynamics", compile_model=compiled, noise=0.0, dropout=0.0)
        modules = (policy.pretraining.world_model, policy.pretraining.inverse_dynamics)
        assert [module._compiled_call_impl is not None for module in modules] == [compiled] * 2
        losses.append(policy.pretraining.world_model(*world_model_inputs()).loss)
        names.append(list(policy.state_dict()))
    assert names[0] == names[1]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-5)


def world_model_inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(B, H + 1, 3, SIZE, SIZE, generator=generator)
    return frames, torch.randn(B, H, Z, generator=generator), torch.ones(B, H, dtype=torch.bool)


@pytest.mark.parametrize("world_model", WORLD_MODELS)
@pytest.mark.parametrize("source", SOURCES)
def test_padded_frames_change_nothing(source: str, world_model: str) -> None:
    batch = noise_batch()
    for row, frames in enumerate((1, 2, 3, H + 1)):  # The first clip has no valid transition at all.
        batch[f"{CAMERA}_is_pad"][row, frames:] = True
        batch[f"{STATE}_is_pad"][row, frames:] = True
    pad = batch[f"{CAMERA}_is_pad"]
    other = {**batch, CAMERA: batch[CAMERA].clone(), STATE: batch[STATE].clone()}
    other[CAMERA][pad] = 1 - other[CAMERA][pad]
    other[STATE][pad] += 10

    loss, metrics, found = step(make_policy(source, world_model), batch)
    other_loss, other_metrics, other_found = step(make_policy(source, world_model), other)
    assert other_loss == loss
    assert other_metrics == metrics
    assert all(torch.equal(found[name], other_found[name]) for name in found)


@pytest.mark.parametrize("source", SOURCES)
def test_valid_frames_do_change_the_loss(source: str) -> None:
    batch = noise_batch()
    other = {**batch, CAMERA: batch[CAMERA].clone()}
    other[CAMERA][:, 1:] = 1 - other[CAMERA][:, 1:]
    assert step(make_policy(source), other)[0] != step(make_policy(source), batch)[0]


@pytest.mark.parametrize("source", SOURCES)
def test_batch_without_a_valid_transition_is_harmless(source: str) -> None:
    batch = noise_batch()
    batch[f"{CAMERA}_is_pad"][:, 1:] = True
    loss, metrics, found = step(make_policy(source, "rssm"), batch)
    assert torch.tensor([loss, *metrics.values()]).isfinite().all()
    assert all(gradient.isfinite().all() for gradient in found.values())


@pytest.mark.parametrize("source", SOURCES)
def test_policy_sees_no_future_frame(source: str) -> None:
    policy = make_policy(source).eval()
    batch = noise_batch()
    future = {**batch, CAMERA: batch[CAMERA].clone(), STATE: batch[STATE].clone()}
    future[CAMERA][:, 1:] = torch.rand_like(future[CAMERA][:, 1:])
    future[STATE][:, 1:] = torch.randn_like(future[STATE][:, 1:])
    present = {**batch, CAMERA: batch[CAMERA].clone()}
    present[CAMERA][:, 0] = torch.rand_like(present[CAMERA][:, 0])
    with torch.no_grad():
        z, z_future, z_present = (
            policy.predict_latents(policy.policy_batch(b)) for b in (batch, future, present)
        )
    assert torch.equal(z, z_future)
    assert not torch.equal(z, z_present)


def test_policy_sees_no_action() -> None:
    policy = make_policy()
    batch = {**noise_batch(), "action": torch.randn(B, 2), "action_is_pad": torch.zeros(B, dtype=torch.bool)}
    assert not [key for key in policy.policy_batch(batch) if key.startswith("action")]


# --- does it learn -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world_model", ["recurrent", pytest.param("rssm", marks=pytest.mark.slow)])
@pytest.mark.parametrize("source", SOURCES)
def test_one_batch_can_be_learnt_and_only_with_its_own_latents(
    source: str, world_model: str, caplog: pytest.LogCaptureFixture
) -> None:
    policy = make_policy(
        source, world_model, health_freq=20, dropout=0.0, kl_weight=0.1, policy_pretraining_lr=2e-3
    )
    policy.model.backbone.requires_grad_(False)  # Most of the time, and not needed for one batch.
    policy.health.measurements = IGNORED_AFTER  # Judge as in a long run, at the last measurement below.
    optimizer = torch.optim.Adam(policy.get_optim_params(), lr=2e-3)
    batch = moving_squares()
    losses = []
    with caplog.at_level(logging.ERROR):  # An untrained world model is still allowed to ignore the latents.
        for _ in range(STEPS[source]):
            loss, _ = policy.forward(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])

    policy.health.warned.clear()
    policy.health.training_steps = 0  # Measure now.
    caplog.clear()
    _, metrics = policy.forward(batch)
    assert metrics["shuffle_ratio"] > 1.1
    assert metrics["latent_std"] > 0.5
    assert metrics["mse_over_copy"] < 0.9
    assert not caplog.records


STEPS = {"inverse_dynamics": 150, "policy": 150, "both": 150}


# --- collapse cannot pass unseen -----------------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES)
def test_constant_latents_are_warned_of(source: str, caplog: pytest.LogCaptureFixture) -> None:
    policy = make_policy(source, "rssm")
    with torch.no_grad():
        if source == "inverse_dynamics":
            policy.pretraining.inverse_dynamics.head[-1].weight.zero_()
        else:
            policy.model.action_head.weight.zero_()
    _, metrics = policy.forward(noise_batch())
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "collapsed" in record.message
    assert "--policy.latent_action.source=inverse_dynamics" in record.message
    assert "--policy.latent_action.stride" in record.message
    assert metrics["latent_std"] < 0.1


def test_warning_comes_once(caplog: pytest.LogCaptureFixture) -> None:
    policy = make_policy("policy", "rssm", health_freq=1)
    with torch.no_grad():
        policy.model.action_head.weight.zero_()
    for _ in range(3):
        policy.forward(noise_batch())
    assert len(caplog.records) == 1


@pytest.mark.parametrize("source", SOURCES)
def test_fresh_latents_are_not_warned_of(source: str, caplog: pytest.LogCaptureFixture) -> None:
    _, metrics = make_policy(source, "rssm").forward(noise_batch())
    assert metrics["latent_std"] > 0.1
    assert not caplog.records


def test_latents_of_a_clip_that_is_over_do_not_count_as_another_clips() -> None:
    policy = make_policy()
    clip = policy.clip(noise_batch())
    frames, valid = clip.frames, clip.valid
    valid[len(valid) // 2 :, 1:] = False  # half of the batch has one transition each
    latents = torch.randn(len(valid), H, Z) * valid[..., None]
    policy.eval()
    before = policy.pretraining.health(frames, latents, valid)["shuffle_ratio"]
    latents[: len(valid) // 2, 1:] += 10  # meets only transitions that are past the end
    after = policy.pretraining.health(frames, latents, valid)["shuffle_ratio"]
    torch.testing.assert_close(after, before)


@pytest.mark.parametrize(
    ("source", "world_model", "warned"),
    [("policy", "recurrent", True), ("policy", "rssm", False), ("inverse_dynamics", "recurrent", False)],
)
def test_a_world_model_that_can_ignore_latents_of_the_policy_is_warned_of(
    source: str, world_model: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        make_policy(source, world_model)
    assert ("--policy.world_model.type=rssm" in caplog.text) == warned


@pytest.mark.parametrize("measurements", [0, IGNORED_AFTER])
def test_ignored_latents_are_warned_of_once_the_world_model_had_its_time(
    measurements: int, caplog: pytest.LogCaptureFixture
) -> None:
    policy = make_policy()
    with torch.no_grad():
        policy.pretraining.world_model.latent_in[0].weight.zero_()
    policy.health.measurements = measurements
    _, metrics = policy.forward(noise_batch())
    assert metrics["shuffle_ratio"] == pytest.approx(1, abs=0.01)
    messages = [record.message for record in caplog.records]
    assert len(messages) == (1 if measurements else 0)
    assert all("ignores" in message and "--policy.latent_action.stride" in message for message in messages)


def test_a_policy_that_says_the_same_to_every_frame_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    # What an image backbone that has died does to it.
    policy = make_policy("inverse_dynamics", dropout=0.5)
    _, metrics = policy.forward(noise_batch())
    assert metrics["policy_std"] > 1e-2
    assert not caplog.records
    with torch.no_grad():
        policy.latent_head.zero_()
    policy.health.training_steps = 0  # Measure now.
    _, metrics = policy.forward(noise_batch())
    assert metrics["policy_std"] == 0
    assert ["--policy.policy_pretraining_lr" in record.message for record in caplog.records] == [True]


def test_measuring_the_health_changes_nothing() -> None:
    results = []
    for frequency in (1, 1000):
        policy = make_policy("both", "rssm", health_freq=frequency)
        step(policy, noise_batch())
        results.append(step(policy, noise_batch(seed=5)))
        assert all(module.training for module in policy.modules())
    (loss, _, found), (other_loss, _, other_found) = results
    assert loss == other_loss
    assert all(torch.equal(found[name], other_found[name]) for name in found)


# --- ACT's VAE flag ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_predicting_latents_leaves_the_training_flags_as_they_were(training: bool) -> None:
    policy = make_policy("both").train(training)
    before = {name: module.training for name, module in policy.named_modules()}
    policy.predict_latents(policy.policy_batch(noise_batch()))
    assert {name: module.training for name, module in policy.named_modules()} == before


def test_predicting_latents_restores_the_flag_after_an_error() -> None:
    policy = make_policy("both")
    with pytest.raises(KeyError):
        policy.predict_latents({})
    assert policy.model.training


@pytest.mark.parametrize("training", [True, False])
def test_dropout_acts_on_predicted_latents_in_training_only(training: bool) -> None:
    policy = make_policy("both", dropout=0.3).train(training)
    seen = policy.policy_batch(noise_batch())
    first, second = policy.predict_latents(seen), policy.predict_latents(seen)
    assert torch.equal(first, second) != training


def test_finetuning_config_has_no_pretraining_modules() -> None:
    config = replace(make_policy().config, stage="finetune", chunk_size=6, n_action_steps=6)
    assert not [name for name in LawmActPolicy(config).state_dict() if name.startswith("pretraining.")]
