"""Tests of what is special to pi0-FAST, which writes tokens: its latents, its answers, and its prompt.

The rest of what it does is in the suite over all types, `test_every_policy`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from draccus.utils import ParsingError
from helpers.tiny_policies import build, raw_clips
from helpers.tiny_vlas import make_pi0_fast
from lerobot.policies import make_pre_post_processors
from lerobot.processor import PolicyProcessorPipeline
from torch import Tensor

from lawm_lerobot.policies.pi0_fast.configuration_lawm_pi0_fast import LawmPI0FastConfig
from lawm_lerobot.policies.pi0_fast.modeling_lawm_pi0_fast import LawmPI0FastPolicy

HORIZON, LATENT_DIM = 4, 6


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield make_pi0_fast(tmp_path_factory.mktemp("pi0_fast") / "hub", monkeypatch)


@pytest.fixture(scope="module")
def pretraining(flags: list[str]) -> LawmPI0FastPolicy:
    return build(LawmPI0FastConfig, flags, "pretrain")


@pytest.fixture(scope="module")
def finetuning(flags: list[str]) -> LawmPI0FastPolicy:
    return build(LawmPI0FastConfig, flags, "finetune")


def before(policy: LawmPI0FastPolicy) -> PolicyProcessorPipeline:
    return make_pre_post_processors(policy.config)[0]


def observation() -> dict[str, Any]:
    clips = {key: value for key, value in raw_clips().items() if not key.endswith("_is_pad")}
    return {key: value if key == "task" else value[:, 0].contiguous() for key, value in clips.items()}


def test_imitation_is_the_squared_error_without_the_padding(pretraining: LawmPI0FastPolicy) -> None:
    seen = pretraining.policy_batch(before(pretraining)(raw_clips()))
    targets = torch.randn(3, HORIZON, LATENT_DIM)
    valid = torch.tensor([[True] * HORIZON, [True, True, False, False], [False] * HORIZON])
    with torch.no_grad():
        loss, _ = pretraining.wrapped_loss(pretraining.with_latents(seen, targets, valid))
        latents = pretraining.predict_latents(seen)
    assert latents.shape == (3, HORIZON, LATENT_DIM)
    torch.testing.assert_close(loss, (latents - targets)[valid].square().mean())


def test_latents_differ_by_their_place_and_do_not_see_those_to_come(
    pretraining: LawmPI0FastPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = pretraining.policy_batch(before(pretraining)(raw_clips()))
    with torch.no_grad():
        latents = pretraining.predict_latents(seen)
        monkeypatch.setattr(pretraining.model.config, "chunk_size", 2)
        shorter = pretraining.predict_latents(seen)
    torch.testing.assert_close(shorter, latents[:, :2])
    assert (latents[:, 1:] - latents[:, :-1]).abs().amax(-1).min() > 1e-3


def test_half_precision_and_checkpointing_reach_the_backbone(flags: list[str]) -> None:
    policy = build(
        LawmPI0FastConfig, flags, "pretrain", "--dtype=bfloat16", "--gradient_checkpointing=true"
    ).train()
    policy(before(policy)(raw_clips()))[0].backward()
    gradients = {name: p.grad for name, p in policy.model.named_parameters() if "q_proj" in name}
    assert {g.dtype for name, g in gradients.items() if "vision" not in name} == {torch.bfloat16}
    assert all(g.isfinite().all() and g.norm() > 0 for g in gradients.values())


def test_an_answer_is_read_as_the_sampler_reads_it(finetuning: LawmPI0FastPolicy) -> None:
    batch = before(finetuning)(observation())
    tokens, mask = batch["observation.language.tokens"], batch["observation.language.attention_mask"]
    sampled = finetuning.model.sample_actions_fast_kv_cache(
        *finetuning.prepare_images(batch), tokens, mask, max_decoding_steps=1
    )  # (B,1)
    begin = finetuning._paligemma_tokenizer.bos_token_id
    with torch.no_grad():
        _, logits = finetuning._read(batch, [begin])
        chances = finetuning.estimate_chunk(batch)
    assert torch.equal(logits.argmax(-1), sampled)
    assert chances.shape == (3, 1, logits.shape[-1])
    torch.testing.assert_close(chances.sum(-1), torch.ones(3, 1))


def test_the_prompt_has_the_first_state_alone_or_none(pretraining: LawmPI0FastPolicy) -> None:
    def prompt(clip: dict[str, Any]) -> Tensor:
        return before(pretraining)(clip)["observation.language.tokens"]

    ours, future, present, without = raw_clips(), raw_clips(), raw_clips(), raw_clips()
    future["observation.state"][:, 1:] += 0.3
    present["observation.state"][:, 0] += 0.3
    del without["observation.state"]
    assert torch.equal(prompt(ours), prompt(future))
    assert not torch.equal(prompt(ours), prompt(present))
    assert prompt(without).shape == prompt(ours).shape


def test_an_answer_without_actions_is_refused(flags: list[str]) -> None:
    policy = build(LawmPI0FastConfig, flags, "finetune", "--validate_action_token_prefix=true")
    with pytest.raises(ValueError, match="--policy.validate_action_token_prefix=false"):
        policy.select_action(before(policy)(observation()))


def test_what_pretraining_cannot_use_is_refused() -> None:
    with pytest.raises(ParsingError, match="--policy.use_relative_actions"):
        LawmPI0FastConfig(device="cpu", use_relative_actions=True)
