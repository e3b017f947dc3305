"""Tests of what is special to X-VLA: it predicts the clean chunk, counts padding, and trains its parts at their own rates.

The rest of what it does is in the suite over all types, `test_every_policy`.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.tiny_policies import build, raw_clips
from helpers.tiny_vlas import make_xvla
from lerobot.policies import make_pre_post_processors
from lerobot.policies.xvla.configuration_xvla import XVLAConfig
from lerobot.policies.xvla.modeling_xvla import XVLAPolicy
from lerobot.utils.random_utils import seeded_context
from torch import Tensor

from lawm_lerobot.policies.xvla.configuration_lawm_xvla import LawmXVLAConfig
from lawm_lerobot.policies.xvla.modeling_lawm_xvla import LawmXVLAPolicy

HORIZON, LATENT_DIM, SLOTS = 4, 6, 8


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        return make_xvla(tmp_path_factory.mktemp("xvla"), monkeypatch)


@pytest.fixture(scope="module")
def policy(flags: list[str]) -> LawmXVLAPolicy:
    return build(LawmXVLAConfig, flags, "pretrain")


@pytest.fixture(scope="module")
def seen(policy: LawmXVLAPolicy) -> dict[str, Any]:
    before, _ = make_pre_post_processors(policy.config)
    return policy.policy_batch(before(raw_clips()))


def test_latents_are_one_step_of_the_sampler(policy: LawmXVLAPolicy, seen: dict[str, Any]) -> None:
    inputs = policy._build_model_inputs(seen)
    with seeded_context(0):
        chunk = policy.model.generate_actions(**inputs, steps=1)
    with seeded_context(0), torch.no_grad():
        latents = policy.predict_latents(seen)
    assert chunk.shape == (3, SLOTS, LATENT_DIM)
    torch.testing.assert_close(latents, chunk[:, :HORIZON])


def test_imitation_is_the_plain_loss_without_the_padding(
    policy: LawmXVLAPolicy, seen: dict[str, Any]
) -> None:
    latents = torch.randn(3, HORIZON, LATENT_DIM)
    some = torch.tensor([[True] * 4, [True, True, False, False], [False] * 4])
    batch = policy.with_latents(seen, latents, some)
    assert batch["action"].shape == (3, SLOTS, LATENT_DIM)
    clean: list[Tensor] = []
    hook = policy.model.transformer.register_forward_hook(lambda *call: clean.append(call[-1]))
    losses = []
    for is_pad in (batch["action_is_pad"], torch.zeros(3, SLOTS, dtype=torch.bool)):
        with seeded_context(0), torch.no_grad():
            losses.append(policy.wrapped_loss({**batch, "action_is_pad": is_pad})[0])
    hook.remove()
    errors = (clean[0][:, :HORIZON, :LATENT_DIM] - latents).square()
    torch.testing.assert_close(losses[0], errors[some].mean())
    with seeded_context(0), torch.no_grad():
        plain, _ = XVLAPolicy.forward(policy, batch)
    torch.testing.assert_close(losses[1], plain)


def test_parts_train_at_their_own_rates(policy: LawmXVLAPolicy, flags: list[str]) -> None:
    def rates(groups: list[dict[str, Any]], default: float) -> dict[int, float]:
        return {id(p): group.get("lr", default) for group in groups for p in group["params"]}

    own = rates(policy.get_optim_params(), policy.config.pretraining_lr)
    named = dict(policy.named_parameters())
    assert own.keys() == {id(parameter) for parameter in named.values()}
    slow = [name for name, p in named.items() if own[id(p)] == pytest.approx(policy.config.optimizer_lr / 10)]
    assert slow == [name for name in named if "vlm" in name]
    assert own[id(policy.latent_head)] == policy.config.optimizer_lr

    finetuned = build(LawmXVLAConfig, flags, "finetune")
    lerobots = XVLAConfig.get_optimizer_preset(finetuned.config).build(XVLAPolicy.get_optim_params(finetuned))
    expected = rates(lerobots.param_groups, 0)
    assert rates(finetuned.get_optim_params(), 0) == expected
    optimizer = finetuned.config.get_optimizer_preset().build(finetuned.get_optim_params())
    assert rates(optimizer.param_groups, 0) == expected
