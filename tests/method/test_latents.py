"""Inverse dynamics on tiny clips, and the norm of latents, in the letters of world_models/base.py."""

import pytest
import torch
from helpers.moving_squares import SIDE, H, Z, moving_squares

from lawm_lerobot.method.configuration import InverseDynamicsConfig
from lawm_lerobot.method.inverse_dynamics import random_shift
from lawm_lerobot.method.latent import LatentNorm, effective_rank, latent_std


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
        if loss < 0.03:
            break
    frames, latents, valid = moving_squares(batch=12)  # Clips it has not seen.
    assert (idm.eval()(frames, valid) - latents).square().mean() < 0.1 * latents.var()


def test_principal_components_are_those_of_the_change():
    torch.manual_seed(0)
    pattern = torch.zeros(2, 3, SIDE, SIDE)
    pattern[0, 0, : SIDE // 2] = 1  # The upper half reddens, often,
    pattern[1, 2, SIDE // 2 :] = 1  # and the lower half turns blue, less so.
    amounts = torch.randn(64, 4, 2) * torch.tensor([0.2, 0.05]) + 0.01
    change = torch.einsum("bhk,kcij->bhcij", amounts, pattern)
    start = torch.rand(64, 1, 3, SIDE, SIDE)
    frames = torch.cat([start, start + change.cumsum(1)], 1)
    valid = torch.ones(64, 4, dtype=torch.bool)
    valid[0, 2:] = False
    components = InverseDynamicsConfig(type="principal_components").build(2, SIDE)
    components.train()(frames[:32], valid[:32])
    components(frames[32:], valid[32:])
    latents = components.eval()(frames, valid)
    assert (latents[0, 2:] == 0).all()
    shown, true = latents[valid], amounts[valid]
    for column in range(2):
        assert abs(torch.corrcoef(torch.stack([shown[:, column], true[:, column]]))[0, 1]) > 0.99
    torch.testing.assert_close(shown.std(0), torch.ones(2), atol=0.02, rtol=0)
    learned = components.components.clone()
    components(frames, valid)  # in evaluation nothing is learned
    assert torch.equal(components.components, learned)


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
