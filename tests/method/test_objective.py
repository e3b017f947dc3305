"""The parts of the pretraining loss with a policy of ten lines: where gradients arrive, and where none may."""

import pytest
from helpers.moving_squares import MODELS, SIDE, B, H, Z, build, moving_squares
from helpers.toy_policy import ToyPolicy, pretraining_loss
from torch import nn

from lawm_lerobot.method.clip import Clip
from lawm_lerobot.method.configuration import InverseDynamicsConfig
from lawm_lerobot.method.latent_action import POLICY, SOURCES, LatentActionConfig
from lawm_lerobot.method.objective import LatentActionPretraining


def make(
    source: str, world_model: str = "rssm", **latent: float
) -> tuple[LatentActionPretraining, ToyPolicy, Clip]:
    config = LatentActionConfig(source=source, dim=Z, horizon=H, **latent)
    inverse_dynamics = None if source == POLICY else InverseDynamicsConfig(size="test").build(Z, SIDE)
    method = LatentActionPretraining(config, build(world_model), inverse_dynamics)
    frames, _, valid = moving_squares()
    return method, ToyPolicy(SIDE, H, Z), Clip(frames, valid)


def silent(module: nn.Module) -> set[str]:
    """Parameters without a gradient."""
    return {name for name, p in module.named_parameters() if p.grad is None or not p.grad.norm() > 1e-12}


@pytest.mark.parametrize("world_model", MODELS)
@pytest.mark.parametrize("source", SOURCES)
def test_a_gradient_arrives_at_every_parameter(source, world_model):
    method, policy, clip = make(source, world_model)
    pretraining_loss(method, policy, clip)[0].backward()
    assert not silent(policy)
    if method.inverse_dynamics is not None:
        assert method.infer_latents(clip.frames, clip.valid).shape == (B, H, Z)
    # A constant added to all latents, which their norm takes away again.
    assert silent(method) <= {"inverse_dynamics.head.1.bias"}
    assert (method.inverse_dynamics is None) == (source == "policy")


@pytest.mark.parametrize("world_model", MODELS)
@pytest.mark.parametrize("source", ["policy", "both"])
def test_the_world_model_trains_the_policy_through_every_latent(source, world_model):
    method, policy, clip = make(source, world_model, imitation_weight=0)
    latents = []
    policy.register_forward_hook(lambda _, __, z: z.retain_grad() or latents.append(z))
    pretraining_loss(method, policy, clip)[0].backward()
    assert not silent(policy)
    assert latents[-1].shape == (B, H, Z)
    assert (latents[-1].grad.norm(dim=-1) > 1e-9).all()  # z_0 of every clip included


def test_the_world_model_does_not_train_a_policy_that_only_imitates():
    method, policy, clip = make("inverse_dynamics", imitation_weight=0)
    pretraining_loss(method, policy, clip)[0].backward()
    assert silent(policy) == {name for name, _ in policy.named_parameters()}


@pytest.mark.parametrize("unshifted", [True, False])
def test_imitation_does_not_train_the_inverse_dynamics(unshifted):
    method, policy, clip = make("inverse_dynamics", unshifted_targets=unshifted)
    method.world_model.config.loss_weight = 0.0
    pretraining_loss(method, policy, clip)[0].backward()
    assert silent(method) == {name for name, _ in method.named_parameters()}
    assert not silent(policy)


def test_inferring_without_an_inverse_dynamics_is_an_error():
    method, _, clip = make("policy")
    with pytest.raises(RuntimeError, match="latent_action.source=policy has no inverse dynamics"):
        method.infer_latents(clip.frames, clip.valid)
