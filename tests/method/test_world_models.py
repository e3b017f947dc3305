"""World models on tiny clips, in the letters of world_models/base.py."""

import pytest
import torch
from helpers.moving_squares import MODELS, SIDE, B, H, Z, build, moving_squares

from lawm_lerobot.method.configuration import InverseDynamicsConfig, WorldModelConfig
from lawm_lerobot.method.world_models.rssm import draw_frames, select_frames

SHAPE = (B, H, 3, SIDE, SIDE)
VARIANTS = [("rssm", {}), ("rssm", {"decoded_frames": 2}), ("recurrent", {})]


@pytest.mark.parametrize("name", MODELS)
def test_output_has_the_promised_shapes(name):
    frames, latents, valid = moving_squares()
    model = build(name)
    output = model(frames, latents, valid)
    assert output.loss.shape == () and output.loss.dtype == torch.float32 and output.loss.requires_grad
    assert model.imagine(frames[:, 0], latents).shape == SHAPE
    reconstruction = model.reconstruct(frames, latents)
    assert reconstruction is None if name == "recurrent" else reconstruction.shape == frames.shape
    assert {"loss", "mse", "copy_mse", "mse_over_copy"} <= output.metrics.keys()
    for metric in output.metrics.values():
        assert metric.shape == () and not metric.requires_grad and metric.isfinite()
    assert output.metrics["copy_mse"] == pytest.approx(
        (frames[:, 1:] - frames[:, :1]).square().mean().item(), rel=1e-5
    )


@pytest.mark.parametrize("name", MODELS)
def test_the_first_latent_drives_the_first_transition(name):
    frames, latents, _ = moving_squares()
    model = build(name).eval()
    latents.requires_grad_()
    for k in range(H):
        imagined = model.imagine(frames[:, 0], latents)
        (gradient,) = torch.autograd.grad(imagined[:, k].square().sum(), latents)
        reached = gradient.abs().amax((0, 2)) > 0  # (H)
        assert reached[: k + 1].all() and not reached[k + 1 :].any()


@pytest.mark.parametrize(("name", "changes"), VARIANTS)
@pytest.mark.parametrize("training", [True, False])
def test_a_gradient_reaches_every_latent_and_every_parameter(name, changes, training):
    frames, latents, valid = moving_squares()
    model = build(name, **changes).train(training)
    latents.requires_grad_()
    model(frames, latents, valid).loss.backward()
    assert (latents.grad.abs().amax(-1) > 0).all()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not silent


def test_parameters_are_contiguous():
    # LeRobot writes the optimizer's state, which has the layout of the parameters, with safetensors.
    modules = [*map(build, MODELS), InverseDynamicsConfig(size="test").build(Z, SIDE)]
    assert all(p.is_contiguous() for module in modules for p in module.parameters())


def test_latents_get_a_gradient_through_the_rssm_posterior_alone():
    frames, latents, valid = moving_squares()
    latents.requires_grad_()
    build("rssm", open_loop_weight=0.0)(frames, latents, valid).loss.backward()
    assert (latents.grad.abs().amax(-1) > 0).all()


@pytest.mark.parametrize(("name", "changes"), VARIANTS)
def test_padding_influences_nothing(name, changes):
    frames, latents, valid = moving_squares()
    valid[0, 1:], valid[1, 2:], valid[2] = False, False, False
    model = build(name, **changes).train()
    results = []
    for padding in (0.0, 1.0):
        padded = torch.where(valid[..., None, None, None], frames[:, 1:], padding)
        z = torch.where(valid[..., None], latents, 5 * padding).requires_grad_()
        model.zero_grad()
        torch.manual_seed(1)  # The same samples of the posterior.
        output = model(torch.cat([frames[:, :1], padded], 1), z, valid)
        output.loss.backward()
        gradients = [parameter.grad.clone() for parameter in model.parameters()]
        results.append([output.loss.detach(), *output.metrics.values(), z.grad, *gradients])
        assert (z.grad[~valid] == 0).all()
    for first, second in zip(*results, strict=True):
        torch.testing.assert_close(first, second)


@pytest.mark.parametrize(("name", "changes"), VARIANTS)
def test_a_batch_without_any_valid_transition_is_harmless(name, changes):
    frames, latents, valid = moving_squares()
    output = build(name, **changes)(frames, latents, torch.zeros_like(valid))
    output.loss.backward()
    assert output.loss.isfinite() and output.metrics["mse"] == 0


@pytest.mark.parametrize("name", MODELS)
def test_learns_what_the_latents_do(name):
    frames, latents, valid = moving_squares(batch=8, horizon=2)
    model = build(name)
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    for _ in range(150):
        optimizer.zero_grad()
        output = model(frames, latents, valid)
        if output.metrics["mse_over_copy"] < 0.25:
            break
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
    model.eval()
    with torch.no_grad():
        metrics = model(frames, latents, valid).metrics
        shuffled = model(frames, latents.roll(1, 0), valid).metrics
    assert metrics["mse_over_copy"] < 0.5
    assert shuffled["mse"] > 2 * metrics["mse"]


@pytest.mark.parametrize("name", MODELS)
def test_imagination_is_repeatable_and_is_what_was_trained(name):
    frames, latents, valid = moving_squares()
    model = build(name).train()
    with torch.no_grad():
        imagined = model.imagine(frames[:, 0], latents)
        torch.testing.assert_close(imagined, model.imagine(frames[:, 0], latents))
        errors = (imagined - frames[:, 1:]).square().mean()
        torch.testing.assert_close(errors, model(frames, latents, valid).metrics["mse"])
        longer = model.imagine(frames[:, 0], torch.cat([latents, latents], 1))
    torch.testing.assert_close(imagined, longer[:, :H])


def test_rssm_samples_in_training_only():
    frames, latents, valid = moving_squares()
    model = build("rssm").train()
    losses = [model(frames, latents, valid).loss.item() for _ in range(2)]
    assert losses[0] != losses[1]
    model.eval()
    losses = [model(frames, latents, valid).loss.item() for _ in range(2)]
    assert losses[0] == losses[1]


# --- decoding some frames ---------------------------------------------------------------------------------


def test_drawn_frames_stand_for_all_valid_ones():
    n, count = 6, 3
    lengths = torch.arange(n + 1)  # one clip of each
    draws = 2000
    valid = torch.arange(n) < lengths[:, None]  # (B,n)
    values = torch.where(valid, torch.rand(n + 1, n), 1e6)
    index, weight = draw_frames(valid.repeat(draws, 1), count)
    assert index.shape == weight.shape == (draws * (n + 1), count)
    assert (weight[~select_frames(valid.repeat(draws, 1), index)] == 0).all()
    torch.testing.assert_close(weight.sum(1), lengths.float().repeat(draws))
    lasts = (index == lengths.repeat(draws)[:, None] - 1).any(1)  # (draws*B)
    assert lasts.unflatten(0, (draws, -1))[:, 1:].all()
    assert (index.sort(1).values.diff(dim=1) > 0).all()  # all different
    estimates = (weight * select_frames(values.repeat(draws, 1), index)).sum(1)
    estimates = estimates.unflatten(0, (draws, -1))  # (draws,B)
    error = (estimates.mean(0) - (values * valid).sum(1)).abs()
    assert (error <= 4 * estimates.std(0) / len(estimates) ** 0.5 + 1e-4).all()
    assert (estimates.std(0)[count + 1 :] > 0).all()


def test_all_frames_are_drawn_where_there_are_no_more():
    valid = torch.arange(4) < torch.tensor([[4], [2]])
    index, weight = draw_frames(valid, 4)
    assert index.tolist() == [[0, 1, 2, 3]] * 2
    assert torch.equal(weight, valid.float())


@pytest.mark.parametrize(("decoded", "training", "expected"), [(2, True, 4), (2, False, 7), (0, True, 7)])
def test_some_frames_are_decoded_in_training_and_all_in_evaluation(decoded, training, expected):
    frames, latents, valid = moving_squares()
    model = build("rssm", decoded_frames=decoded).train(training)
    rows = []
    model.decoder.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    model(frames, latents, valid)
    assert rows == [B * expected]


# --- precision and shapes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_autocast_is_finite(name):
    frames, latents, valid = moving_squares()
    model, idm = build(name), InverseDynamicsConfig(size="test").build(Z, SIDE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        latents = idm(frames, valid)
        output = model(frames, latents, valid)
    output.loss.backward()
    assert latents.dtype == output.loss.dtype == torch.float32
    assert output.loss.isfinite()
    assert all(p.grad.isfinite().all() for p in [*model.parameters(), *idm.parameters()])


@pytest.mark.parametrize("name", MODELS)
def test_wrong_shapes_name_the_flag(name):
    frames, latents, valid = moving_squares()
    model = build(name)
    with pytest.raises(ValueError, match="--policy.latent_action.horizon"):
        model(frames[:, :-1], latents, valid)
    with pytest.raises(ValueError, match="--policy.world_model.image_size"):
        model(frames[..., :16, :16], latents, valid)
    with pytest.raises(ValueError, match="--policy.latent_action.dim"):
        model(frames, latents[..., :1], valid)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("image_size", [32, 64, 128, 256])
def test_every_image_size_builds(name, image_size):
    model = WorldModelConfig.get_choice_class(name)(size="test", image_size=image_size).build(Z, H)
    first_frame = torch.rand(1, 3, image_size, image_size)
    assert model.imagine(first_frame, torch.zeros(1, 1, Z)).shape == (1, 1, 3, image_size, image_size)
    idm = InverseDynamicsConfig(size="test").build(Z, image_size)
    assert idm(first_frame.expand(2, -1, -1, -1)[None], torch.ones(1, 1, dtype=torch.bool)).shape == (1, 1, Z)
