"""The same numbers for less time and memory: the kernels against PyTorch's own operations."""

import gc
import pkgutil
import weakref

import pytest
import torch
from helpers.moving_squares import build, moving_squares
from torch import Tensor, nn

from lawm_lerobot.method import kernels
from lawm_lerobot.method.kernels import linear as products
from lawm_lerobot.method.kernels.conv import ChannelNormSiLU, activated_convs
from lawm_lerobot.method.kernels.recurrence import one_weight_gradient
from lawm_lerobot.method.networks import BlockLinear, Linear, init_weights


def unroll(layer: nn.Module, inputs: Tensor) -> Tensor:
    """Three steps of a recurrence: (N,8) -> ()."""
    x, total = inputs, inputs.new_zeros(())
    for k in range(3):
        x = torch.tanh(layer(x).flatten(1)) + inputs
        total = total + (k + 1) * x.square().sum()
    return total


def unroll_at_once(layer: nn.Module, inputs: Tensor, steps: int = 3) -> Tensor:
    with one_weight_gradient(steps):
        return unroll(layer, inputs)


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
    expected = torch.autograd.grad(unroll(layer, inputs), parts)
    total = unroll_at_once(layer, inputs, steps)
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
    expected = unroll(layer, inputs)
    with torch.no_grad():
        torch.testing.assert_close(unroll_at_once(layer, inputs), expected)
    (gradient,) = torch.autograd.grad(expected, inputs)
    unroll_at_once(layer.requires_grad_(False), inputs).backward()
    torch.testing.assert_close(inputs.grad, gradient)
    assert layer.weight.grad is None


def test_unrolled_layers_in_bfloat16():
    layer, inputs = LAYERS["sequence"](), torch.randn(5, 8)
    found = []
    for run in (unroll, unroll_at_once):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            total = run(layer, inputs)
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
        total = unroll_at_once(layer, x)
        del x, total
        assert alive() is None
    finally:
        gc.enable()


def test_unrolled_layers_can_be_compiled():
    layer, inputs = LAYERS["sequence"](), torch.randn(5, 8)
    compiled = torch.compile(lambda x: unroll_at_once(layer, x), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(inputs), unroll(layer, inputs))


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


def test_nested_recurrences_and_what_follows_them_are_apart():
    layer, inputs = Linear(8, 8), torch.randn(5, 8)
    expected = torch.autograd.grad(unroll(layer, inputs) + 2 * layer(inputs).sum(), layer.weight)
    with one_weight_gradient(4):
        before = layer(inputs).sum()
        total = unroll_at_once(layer, inputs)  # as many calls as it may have, beside those around it
        after = layer(inputs).sum()
    torch.testing.assert_close(torch.autograd.grad(total + before + after, layer.weight), expected)
    with pytest.raises(ValueError, match="inside"), one_weight_gradient(1):
        raise ValueError("inside")
    assert layer(inputs.expand(2, 5, 8)).shape == (2, 5, 8)  # no recurrence takes these


@pytest.mark.parametrize("training", [True, False])
def test_the_rssm_is_the_same_with_kernels_and_without(training, monkeypatch):
    frames, latents, valid = moving_squares()
    latents.requires_grad_()
    model = build("rssm").train(training)
    parts = [latents, *model.parameters()]
    found, calls = [], []
    for name in ("linear._product", "recurrence.UnrolledLayer.enter", "conv._normed"):
        target = f"lawm_lerobot.method.kernels.{name}"
        monkeypatch.setattr(target, counted(pkgutil.resolve_name(target), calls))
    for on in (True, False):
        calls.clear()
        with kernels.enabled(on):
            torch.manual_seed(1)  # The same samples of the posterior.
            output = model(frames, latents, valid)
            gradients = torch.autograd.grad(output.loss, parts)
            imagined = model.imagine(frames[:, 0], latents)
            reconstructed = model.eval().reconstruct(frames, latents)
            model.train(training)
        assert bool(calls) == on
        found.append([output.loss, *output.metrics.values(), imagined, reconstructed, *gradients])
    for fast, plain in zip(*found, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-3, atol=1e-5)
    assert kernels.are_enabled()


def counted(function, calls: list):
    def call(*arguments):
        calls.append(function)
        return function(*arguments)

    return call
