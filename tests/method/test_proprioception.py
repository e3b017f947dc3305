"""Latents that foretell the change of the robot's state: targets, units, padding, and whom the loss trains."""

import pytest
import torch
from helpers.moving_squares import SIDE, build, moving_squares
from helpers.toy_policy import pretraining_loss
from torch import Tensor

from lawm_lerobot.method.clip import Clip
from lawm_lerobot.method.configuration import InverseDynamicsConfig
from lawm_lerobot.method.latent_action import LatentActionConfig
from lawm_lerobot.method.objective import LatentActionPretraining
from lawm_lerobot.method.proprioception import ProprioDynamics

Z, H, S = 2, 3, 3


def moved(latents: Tensor, units: float = 1.0) -> Tensor:
    """States (B,T,S) that latents (B,H,Z) move; the last number never does."""
    start = 5 + torch.rand(len(latents), 1, Z)
    moves = torch.cat([torch.zeros_like(start), latents.cumsum(1)], 1)
    return torch.cat([start + moves, torch.ones(len(latents), latents.shape[1] + 1, 1)], -1) * units


def train(steps: int = 200, units: float = 1.0, shift: int = 0) -> float:
    """R2 on new states after learning from true latents; `shift` moves them to a later transition."""
    torch.manual_seed(0)
    module = ProprioDynamics(Z, S)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    valid = torch.ones(32, H, dtype=torch.bool)
    for _ in range(steps):
        latents = torch.randn(32, H, Z)
        error, r2 = module(latents.roll(shift, 1), moved(latents, units), valid)
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    latents = torch.randn(32, H, Z)
    error, r2 = module.eval()(latents.roll(shift, 1), moved(latents, units), valid)
    return float(r2)


@pytest.mark.parametrize("units", [1.0, 1e-3, 1e3])
def test_the_change_from_this_state_to_the_next_is_foretold_in_any_units(units):
    assert train(units=units) > 0.95


def test_the_change_is_that_of_the_latents_own_transition():
    assert train(shift=1) < 0.5


def test_the_present_state_helps():
    """A pendulum's next move follows from where it is."""
    module = ProprioDynamics(Z, 1)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    valid = torch.ones(32, 1, dtype=torch.bool)
    for _ in range(150):
        start = torch.randn(32, 1, 1)
        error, r2 = module(torch.zeros(32, 1, Z), torch.cat([start, -start], 1), valid)
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    assert r2 > 0.9


def test_padded_states_count_nowhere():
    latents = torch.randn(8, H, Z)
    states, valid = moved(latents), torch.ones(8, H, dtype=torch.bool)
    valid[:3, 1:] = False
    found = []
    for padding in (0.0, 1e3):
        torch.manual_seed(0)
        module = ProprioDynamics(Z, S)
        padded = torch.cat([states[:, :1], torch.where(valid[..., None], states[:, 1:], padding)], 1)
        error, r2 = module(torch.where(valid[..., None], latents, padding), padded, valid)
        error.backward()
        found.append([error, r2, module.layers[-1].weight.grad, *module.state_dict().values()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_guessing_the_mean_change_explains_nothing():
    module = ProprioDynamics(Z, S)
    for parameter in module.layers[-1].parameters():
        torch.nn.init.zeros_(parameter)
    latents = torch.randn(16, H, Z)
    _, r2 = module(latents, moved(latents), torch.ones(16, H, dtype=torch.bool))
    assert float(r2) == pytest.approx(0, abs=1e-4)


def test_the_state_shapes_the_inverse_dynamics_by_its_weight():
    frames, latents, valid = moving_squares()
    clip = Clip(frames, valid, moved(latents))

    def gradient(weight: float) -> Tensor:
        torch.manual_seed(0)
        config = LatentActionConfig(dim=Z, horizon=H, noise=0, proprio_weight=weight, proprio_dim=S)
        idm = InverseDynamicsConfig(size="test", random_shift=0).build(Z, SIDE)
        method = LatentActionPretraining(config, build("recurrent", loss_weight=0), idm)
        loss, metrics = pretraining_loss(method, None, clip)
        loss.backward()
        torch.testing.assert_close(loss.detach(), weight * metrics["proprio_loss"])
        assert metrics.keys() == {"proprio_loss", "proprio_r2"}
        return idm.head[1].weight.grad

    once, twice = gradient(1.0), gradient(2.0)
    assert once.norm() > 0
    torch.testing.assert_close(2 * once, twice)


def test_clips_without_states_are_an_error():
    config = LatentActionConfig(dim=Z, horizon=H, proprio_weight=1.0, proprio_dim=S)
    method = LatentActionPretraining(
        config, build("recurrent"), InverseDynamicsConfig(size="test").build(Z, SIDE)
    )
    frames, _, valid = moving_squares()
    with pytest.raises(RuntimeError, match="needs clips with states"):
        pretraining_loss(method, None, Clip(frames, valid))
