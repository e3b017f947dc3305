"""World models, inverse dynamics and latent actions on tiny clips, in the letters of world_models/base.py."""

import gc
import json
import weakref
from dataclasses import dataclass, field

import draccus
import pytest
import torch
from draccus.utils import ParsingError
from torch import Tensor, nn

from lawm_lerobot.method.configuration import (
    INVERSE_DYNAMICS_SIZES,
    RECURRENT_SIZES,
    RSSM_SIZES,
    InverseDynamicsConfig,
    RecurrentConfig,
    RSSMConfig,
    WorldModelConfig,
)
from lawm_lerobot.method.inverse_dynamics import random_shift
from lawm_lerobot.method.kernels import linear as products
from lawm_lerobot.method.kernels.conv import ChannelNormSiLU, activated_convs
from lawm_lerobot.method.kernels.recurrence import Unrolled
from lawm_lerobot.method.latent import LatentNorm, effective_rank, latent_std
from lawm_lerobot.method.networks import BlockLinear, Linear, init_weights
from lawm_lerobot.method.world_models.base import WorldModel
from lawm_lerobot.method.world_models.rssm import at, draw_frames

B, H, SIDE, Z = 4, 3, 32, 2
SHAPE = (B, H, 3, SIDE, SIDE)
MODELS = ["rssm", "recurrent"]
VARIANTS = [("rssm", {}), ("rssm", {"decoded_frames": 2}), ("recurrent", {})]


@pytest.fixture(autouse=True)
def repeatable():
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def moving_squares(batch: int = B, horizon: int = H, square: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """A square that z_k moves by 4 pixels a unit: frames (B,T,3,32,32), latents (B,H,2), valid (B,H)."""
    latents = torch.randint(-1, 2, (batch, horizon, 2)).float()
    start = torch.randint(6, SIDE - 6 - square, (batch, 1, 2))
    moves = torch.cat([torch.zeros(batch, 1, 2), 4 * latents.cumsum(1)], 1)  # (B,T,2)
    corner = (start + moves).clamp(0, SIDE - square)[..., None]  # (B,T,2,1)
    inside = (torch.arange(SIDE) >= corner) & (torch.arange(SIDE) < corner + square)  # (B,T,2,32)
    inside = (inside[:, :, 0, :, None] & inside[:, :, 1, None, :]).unsqueeze(2)  # (B,T,1,32,32)
    colour = torch.tensor([0.9, 0.6, 0.1]).view(3, 1, 1)
    return torch.where(inside, colour, 0.2), latents, torch.ones(batch, horizon, dtype=torch.bool)


def build(name: str, **kwargs) -> WorldModel:
    return WorldModelConfig.get_choice_class(name)(size="test", image_size=SIDE, **kwargs).build(Z, H)


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
    valid = torch.arange(n) < lengths[:, None]  # (B,n)
    values = torch.where(valid, torch.rand(n + 1, n), 1e6)
    estimates = []
    for _ in range(2000):
        index, weight = draw_frames(valid, count)
        assert index.shape == weight.shape == (n + 1, count)
        assert (weight[~at(index, valid)] == 0).all()
        torch.testing.assert_close(weight.sum(1), lengths.float())
        assert (index[1:] == lengths[1:, None] - 1).any(1).all()  # the last valid one
        assert all(len(row.unique()) == count for row in index)
        estimates.append((weight * at(index, values)).sum(1))
    estimates = torch.stack(estimates)  # (draws,B)
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


# --- the same figures for less time and memory ------------------------------------------------------------


def unroll(layer: nn.Module, inputs: Tensor, run) -> Tensor:
    """Three steps of a recurrence: (N,8) -> ()."""
    x, total = inputs, inputs.new_zeros(())
    for k in range(3):
        x = torch.tanh(run(layer, x).flatten(1)) + inputs
        total = total + (k + 1) * x.square().sum()
    return total


LAYERS = {
    "linear": lambda: Linear(8, 8),
    "without a bias": lambda: Linear(8, 8, bias=False),
    "blocks": lambda: BlockLinear(8, 8, 2),
    "sequence": lambda: nn.Sequential(Linear(8, 4), nn.LayerNorm(4), Linear(4, 8)),
}


@pytest.mark.parametrize("steps", [3, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", LAYERS)
def test_unrolled_layers_have_the_gradients_of_the_layers(kind, dtype, steps):
    layer = LAYERS[kind]().to(dtype)
    inputs = torch.randn(5, 8, dtype=dtype, requires_grad=True)
    parts = [inputs, *layer.parameters()]
    expected = torch.autograd.grad(unroll(layer, inputs, lambda module, x: module(x)), parts)
    total = unroll(layer, inputs, Unrolled(steps))
    calls = [0] * len(parts)
    for i, part in enumerate(parts):
        part.register_hook(lambda _, i=i: calls.__setitem__(i, calls[i] + 1))
    (of_inputs,) = torch.autograd.grad(total, inputs, retain_graph=True)
    torch.testing.assert_close(of_inputs, expected[0])
    for _ in range(2):  # A second backward pass through one graph gives the same again.
        calls[:] = [0] * len(parts)
        found = torch.autograd.grad(total, parts, retain_graph=True)
        torch.testing.assert_close(found, expected)
        assert calls == [1] * len(parts)
    assert all(f.stride() == part.stride() for f, part in zip(found, parts, strict=True))


def test_unrolled_layers_without_gradients_or_with_frozen_weights():
    layer, inputs = BlockLinear(8, 8, 2), torch.randn(5, 8, requires_grad=True)
    expected = unroll(layer, inputs, lambda module, x: module(x))
    with torch.no_grad():
        torch.testing.assert_close(unroll(layer, inputs, Unrolled(3)), expected)
    (gradient,) = torch.autograd.grad(expected, inputs)
    unroll(layer.requires_grad_(False), inputs, Unrolled(3)).backward()
    torch.testing.assert_close(inputs.grad, gradient)
    assert layer.weight.grad is None


def test_unrolled_layers_in_bfloat16():
    layer, inputs = LAYERS["sequence"](), torch.randn(5, 8)
    found = []
    for run in (lambda module, x: module(x), Unrolled(3)):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            total = unroll(layer, inputs, run)
        found.append(torch.autograd.grad(total.float(), list(layer.parameters())))
    for plain, fast in zip(*found, strict=True):
        assert fast.dtype == torch.float32
        assert (fast - plain).norm() < 0.05 * plain.norm()


def test_an_unrolled_graph_does_not_hold_itself_alive():
    layer, inputs = Linear(8, 8), torch.randn(5, 8)
    gc.disable()
    try:
        x = layer(inputs)
        alive = weakref.ref(x)
        total = unroll(layer, x, Unrolled(3))
        del x, total
        assert alive() is None
    finally:
        gc.enable()


def test_unrolled_layers_can_be_compiled():
    layer, inputs = LAYERS["sequence"](), torch.randn(5, 8)
    compiled = torch.compile(lambda x: unroll(layer, x, Unrolled(3)), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(inputs), unroll(layer, inputs, lambda module, x: module(x)))


@pytest.mark.parametrize("leading", [(6,), (2, 3)])
def test_linear_layers_have_the_gradients_of_plain_ones(leading):
    layer, inputs = Linear(8, 4), torch.randn(*leading, 8, requires_grad=True)
    plain = torch.nn.functional.linear(inputs, layer.weight, layer.bias)
    torch.testing.assert_close(layer(inputs), plain)
    parts = [inputs, *layer.parameters()]
    expected = torch.autograd.grad(plain.square().sum(), parts)
    torch.testing.assert_close(torch.autograd.grad(layer(inputs).square().sum(), parts), expected)


@pytest.mark.parametrize("error", [None, TypeError, RuntimeError])
def test_products_are_pytorchs_own_where_its_hidden_ones_have_changed(error, monkeypatch):
    def changed(left, right):
        if error:
            raise error("another signature")
        return torch.zeros(len(left), right.shape[1])

    linear, blocks, inputs = Linear(8, 4), BlockLinear(8, 4, 2), torch.randn(6, 8)
    expected = linear(inputs), blocks(inputs)
    monkeypatch.setattr(products, "_onednn", changed)
    products._available.cache_clear()
    try:
        assert not products.is_faster(inputs)
        torch.testing.assert_close((linear(inputs), blocks(inputs)), expected)
    finally:
        products._available.cache_clear()


@pytest.mark.parametrize("at_once", [1, 10**9])
@pytest.mark.parametrize("conv", [nn.Conv2d, nn.ConvTranspose2d])
def test_activated_convolutions_have_the_gradients_of_their_layers(conv, at_once, monkeypatch):
    monkeypatch.setattr("lawm_lerobot.method.kernels.conv.BYTES_AT_ONCE", at_once)
    norm, conv = ChannelNormSiLU(4), conv(4, 6, 4, 2, 1, bias=conv is nn.ConvTranspose2d)
    conv.apply(init_weights)
    nn.init.normal_(norm.weight)
    maps = torch.randn(3, 4, 8, 8).contiguous(memory_format=torch.channels_last).requires_grad_()
    parts = [maps, *norm.parameters(), *conv.parameters()]
    plain = conv(norm(maps))
    weights = torch.randn_like(plain)
    expected = torch.autograd.grad((weights * plain).sum(), parts)
    found = activated_convs([norm, conv], maps)
    torch.testing.assert_close(found, plain)
    torch.testing.assert_close(torch.autograd.grad((weights * found).sum(), parts), expected)


# --- precision, shapes and configuration ------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("config", "size"),
    [
        *((RSSMConfig, size) for size in RSSM_SIZES if size != "test"),
        *((RecurrentConfig, size) for size in RECURRENT_SIZES if size != "test"),
        *((InverseDynamicsConfig, size) for size in INVERSE_DYNAMICS_SIZES if size != "test"),
    ],
)
def test_sizes_are_named_by_their_parameters(config, size):
    with torch.device("meta"):
        built = config(size=size)
        model = built.build(8, 64) if config is InverseDynamicsConfig else built.build(8, 8)
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert counted == pytest.approx(1e6 * int(size.removesuffix("m")), rel=0.1)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("image_size", [32, 64, 128, 256])
def test_every_image_size_builds(name, image_size):
    model = WorldModelConfig.get_choice_class(name)(size="test", image_size=image_size).build(Z, H)
    first_frame = torch.rand(1, 3, image_size, image_size)
    assert model.imagine(first_frame, torch.zeros(1, 1, Z)).shape == (1, 1, 3, image_size, image_size)
    idm = InverseDynamicsConfig(size="test").build(Z, image_size)
    assert idm(first_frame.expand(2, -1, -1, -1)[None], torch.ones(1, 1, dtype=torch.bool)).shape == (1, 1, Z)


@dataclass
class Holder:
    world_model: WorldModelConfig = field(default_factory=WorldModelConfig.default)
    idm: InverseDynamicsConfig = field(default_factory=InverseDynamicsConfig)


def test_flags_reach_the_default_world_model_and_the_other_ones():
    assert draccus.parse(Holder, args=[]).world_model == WorldModelConfig.default()
    held = draccus.parse(Holder, args=["--world_model.size=test", "--idm.context=2"])
    assert held.world_model == type(WorldModelConfig.default())(size="test")
    assert held.idm == InverseDynamicsConfig(context=2)
    for name in MODELS:
        held = draccus.parse(Holder, args=[f"--world_model.type={name}", "--world_model.size=test"])
        assert held.world_model == WorldModelConfig.get_choice_class(name)(size="test")


@pytest.mark.parametrize("name", MODELS)
def test_configuration_survives_a_file(name, tmp_path):
    choice = WorldModelConfig.get_choice_class(name)
    config = choice(size="test", image_size=32, camera="observation.images.top")
    held = Holder(config, InverseDynamicsConfig(size="test"))
    path = tmp_path / "config.json"
    path.write_text(json.dumps(draccus.encode(held)))
    assert json.loads(path.read_text())["world_model"]["type"] == name
    assert draccus.parse(Holder, path, args=[]) == held
    changed = draccus.parse(Holder, path, args=["--world_model.image_size=64"]).world_model
    assert type(changed) is type(config) and (changed.size, changed.image_size) == ("test", 64)


@pytest.mark.parametrize(
    ("make", "found", "flag"),
    [
        (lambda: RSSMConfig(size="7b"), "'7b'", "--policy.world_model.size"),
        (lambda: RecurrentConfig(size="12m"), "'12m'", "--policy.world_model.size"),
        (lambda: RSSMConfig(image_size=100), "100", "--policy.world_model.image_size"),
        (lambda: RSSMConfig(open_loop_weight=-1), "-1", "--policy.world_model.open_loop_weight"),
        (lambda: RSSMConfig(decoded_frames=1), "1", "--policy.world_model.decoded_frames"),
        (lambda: RSSMConfig(unimix=0.0), "0.0", "--policy.world_model.unimix"),
        (lambda: RecurrentConfig(loss_weight=float("nan")), "nan", "--policy.world_model.loss_weight"),
        (lambda: InverseDynamicsConfig(size="2b"), "'2b'", "--policy.idm.size"),
        (lambda: InverseDynamicsConfig(random_shift=-1), "-1", "--policy.idm.random_shift"),
    ],
)
def test_a_wrong_value_is_refused_in_one_sentence(make, found, flag):
    with pytest.raises(ParsingError) as error:
        make()
    message = str(error.value)
    assert found in message and f"`{flag}`" in message
    assert message.endswith(".") and ". " not in message and "\n" not in message


@pytest.mark.parametrize("context", [0, 1, 2])
def test_inverse_dynamics_sees_its_transition_and_its_neighbours(context):
    frames = torch.rand(2, 8, 3, SIDE, SIDE, requires_grad=True)
    valid = torch.ones(2, 7, dtype=torch.bool)
    idm = InverseDynamicsConfig(size="test", context=context).build(Z, SIDE).eval()
    latents = idm(frames, valid)
    assert latents.shape == (2, 7, Z)
    (gradient,) = torch.autograd.grad(latents[:, 3].sum(), frames)
    reached = (gradient.abs().amax((0, 2, 3, 4)) > 0).nonzero().flatten().tolist()
    assert reached == list(range(3 - context, 5 + context))


def test_inverse_dynamics_ignores_padding():
    frames, _, valid = moving_squares()
    valid[0, 1:], valid[1, 2:] = False, False
    idm = InverseDynamicsConfig(size="test", context=2).build(Z, SIDE).eval()
    changed = torch.cat([frames[:, :1], torch.where(valid[..., None, None, None], frames[:, 1:], 1.0)], 1)
    latents = idm(frames, valid)
    torch.testing.assert_close(latents, idm(changed, valid))
    assert (latents[~valid] == 0).all() and (latents[valid] != 0).all()


@pytest.mark.parametrize("context", [1, 2])
def test_inverse_dynamics_does_not_tell_the_place_in_the_clip(context):
    torch.manual_seed(0)
    idm = InverseDynamicsConfig(size="test", context=context).build(Z, SIDE).eval()
    valid = torch.ones(2, H, dtype=torch.bool)
    valid[1, -2:] = False
    latents = idm(torch.rand(2, 1, 3, SIDE, SIDE).expand(2, H + 1, 3, SIDE, SIDE), valid)  # nothing moves
    for clip, mask in zip(latents, valid, strict=True):
        torch.testing.assert_close(clip[mask], clip[:1].expand(int(mask.sum()), Z))


def test_inverse_dynamics_reads_out_the_motion():
    idm = InverseDynamicsConfig(size="test", random_shift=2).build(Z, SIDE)
    optimizer = torch.optim.Adam(idm.parameters(), lr=2e-3)
    for _ in range(200):
        frames, latents, valid = moving_squares(batch=12)
        loss = (idm(frames, valid) - latents).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    frames, latents, valid = moving_squares(batch=12)  # Clips it has not seen.
    assert (idm.eval()(frames, valid) - latents).square().mean() < 0.1 * latents.var()


def test_random_shift_moves_a_clip_as_one():
    frames = torch.rand(16, 1, 3, 8, 8).expand(-1, 3, -1, -1, -1)
    shifted = random_shift(frames, 2)
    assert shifted.shape == frames.shape
    assert (shifted[:, 0] == shifted[:, 1]).all() and (shifted[:, 0] == shifted[:, 2]).all()
    assert (shifted != frames).any()
    padded = torch.nn.functional.pad(frames[:, 0], (2, 2, 2, 2), mode="replicate")  # (16,3,12,12)
    for clip, wide in zip(shifted[:, 0], padded, strict=True):
        crops = [wide[:, y : y + 8, x : x + 8] for y in range(5) for x in range(5)]
        assert any(torch.equal(clip, crop) for crop in crops)
    assert torch.equal(random_shift(frames, 0), frames)


def test_inverse_dynamics_shifts_in_training_only():
    frames, _, valid = moving_squares()
    idm = InverseDynamicsConfig(size="test").build(Z, SIDE)
    assert not torch.equal(idm(frames, valid), idm(frames, valid))
    idm.eval()
    assert torch.equal(idm(frames, valid), idm(frames, valid))


def test_latent_norm_standardises_the_valid_transitions():
    z, valid = 3 * torch.randn(64, 4, Z) + 7, torch.rand(64, 4) > 0.3
    norm = LatentNorm(Z)
    normed = norm(torch.where(valid[..., None], z, 1e4), valid)
    assert (normed[~valid] == 0).all()
    torch.testing.assert_close(normed[valid].mean(0), torch.zeros(Z), atol=1e-4, rtol=0)
    torch.testing.assert_close(normed[valid].std(0), torch.ones(Z), atol=1e-3, rtol=0)
    # One batch in, the running statistics are that batch's, so evaluation agrees with training.
    torch.testing.assert_close(norm.eval()(z, valid), normed, atol=1e-4, rtol=1e-4)


def test_latent_norm_passes_gradients_but_none_along_scale_and_shift():
    z = torch.randn(16, 4, Z, requires_grad=True)
    valid = torch.ones(16, 4, dtype=torch.bool)
    target = torch.randn(16, 4, Z)
    (LatentNorm(Z)(z, valid) - target).square().sum().backward()
    assert z.grad.abs().max() > 0.1
    assert z.grad.sum((0, 1)).abs().max() < 1e-3
    assert (z.grad * z.detach()).sum((0, 1)).abs().max() < 0.1


def test_latent_norm_does_not_amplify_a_collapsed_latent():
    valid = torch.ones(8, 4, dtype=torch.bool)
    assert LatentNorm(Z)(torch.full((8, 4, Z), 3.3), valid).abs().max() < 1e-3
    assert LatentNorm(Z)(3.3 + 1e-6 * torch.randn(8, 4, Z), valid).abs().max() < 1e-2


@pytest.mark.parametrize("count", [0, 1])
def test_latent_norm_falls_back_on_running_statistics(count):
    norm = LatentNorm(Z)
    norm(2 * torch.randn(64, 4, Z) + 5, torch.ones(64, 4, dtype=torch.bool))
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    z, valid = torch.full((2, 2, Z), 7.0, requires_grad=True), torch.zeros(2, 2, dtype=torch.bool)
    valid.view(-1)[:count] = True
    normed = norm(z, valid)
    torch.testing.assert_close(normed[valid], torch.ones(count, Z), atol=0.3, rtol=0)
    normed.sum().backward()
    assert z.grad.isfinite().all()
    for name, value in norm.state_dict().items():
        assert torch.equal(value, before[name])


def test_latent_figures():
    valid = torch.ones(256, 4, dtype=torch.bool)
    z = torch.randn(256, 4, 6)
    assert effective_rank(z, valid) == pytest.approx(6, abs=0.1)
    assert latent_std(z, valid) == pytest.approx(1, abs=0.05)
    assert effective_rank(z[..., :1].expand(-1, -1, 6), valid) == pytest.approx(1, abs=0.01)
    assert effective_rank(torch.full_like(z, 3.3), valid) == 0
    assert latent_std(torch.full_like(z, 3.3), valid) < 1e-4
    valid[128:] = False
    padded = torch.where(valid[..., None], z, 100.0)
    torch.testing.assert_close(effective_rank(padded, valid), effective_rank(z[:128], valid[:128]))
    torch.testing.assert_close(latent_std(padded, valid), latent_std(z[:128], valid[:128]))
