"""``lawm_pi0_fast``: LeRobot's pi0-FAST with LAWM pretraining.

pi0-FAST writes its actions as tokens, of which each but the first depends on those before: OpenVLA's class of policy.
LAPA (arXiv 2410.11758), by its abstract, pretrains a vision-language-action model to predict quantised latent actions.
Here latents stay numbers, which is this project's choice. The language model is given, in place of the answer, the token
that begins one, once for every latent action; a linear layer reads the latents from its last hidden states, and learns
them by their squared error. So a gradient passes through them, one pass gives the whole chunk, and the layer for the
tokens of actions stays what it was; but where several futures are likely, the latents are their mean. After the transfer
the loss is LeRobot's own, on tokens.

Letters: B batch, H latent actions, Z latent dimension, L tokens of an answer, D width of the language model, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.pi0_fast.modeling_pi0_fast import PI0FastPolicy
from lerobot.utils.constants import ACTION, OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS
from torch import Tensor, nn

from lawm_lerobot.checkpoints.transfer import OtherActions, Rule
from lawm_lerobot.method.networks import masked_mean
from lawm_lerobot.policies.common.clips import IS_PAD
from lawm_lerobot.policies.pi0_fast.configuration_lawm_pi0_fast import LawmPI0FastConfig
from lawm_lerobot.policies.vla.policy import OpenPIPolicy


class PI0FastWithLatents(PI0FastPolicy):
    """pi0-FAST, with an output layer for latents if its config asks for one."""

    def __init__(self, config: LawmPI0FastConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        if config.has_latent_head:
            layer = nn.Linear(self._token_layer.in_features, config.latent_action.dim)
            self.model.latent_out_proj = layer.to(config.device)

    @property
    def _token_layer(self) -> nn.Linear:
        return self.model.paligemma_with_expert.paligemma.lm_head


class LawmPI0FastPolicy(OpenPIPolicy, PI0FastWithLatents):
    """pi0-FAST that predicts latent actions in pretraining, writes actions afterwards.

    In the ``finetune`` stage this is `PI0FastPolicy`: same tensors, same names, same cost.
    """

    config_class = LawmPI0FastConfig
    name = "lawm_pi0_fast"

    def predict_latents(self, batch: dict[str, Any]) -> Tensor:
        return self.estimate_chunk(batch)  # (B,H,Z)

    def _latents(self, batch: dict[str, Any]) -> Tensor:
        begin = [self._paligemma_tokenizer.bos_token_id]
        hidden, _ = self._read(batch, begin * self.model.config.chunk_size)  # (B,H,D)
        return self.model.latent_out_proj(hidden.float())  # (B,H,Z)

    def wrapped_loss(self, batch: dict[str, Any]) -> tuple[Tensor, dict]:
        """Compute the squared error of the latents over what is not padded."""
        errors = (self._latents(batch) - batch[ACTION]).square().mean(dim=-1)  # (B,H)
        return masked_mean(errors, ~batch[f"{ACTION}{IS_PAD}"]), {}

    def estimate_chunk(self, batch: dict[str, Any]) -> Tensor:
        """Predict how likely each token is to be the first of the actions (B,1,V), or the latents in pretraining.

        A chunk of actions takes a pass for each of its tokens, which is too long for a measurement in training; FAST's
        first token tells of the slowest motion of the chunk.
        """
        if self.model.config.has_latent_head:
            return self._latents(batch)
        tokenizer = self._paligemma_tokenizer
        answer = [tokenizer.bos_token_id, *tokenizer.encode("Action: ", add_special_tokens=False)]
        _, logits = self._read(batch, answer)  # (B,L,V)
        return logits[:, -1:].float().softmax(dim=-1)

    def _read(self, batch: dict[str, Any], answer: list[int]) -> tuple[Tensor, Tensor]:
        """Compute the last hidden states (B,L,D) and logits (B,L,V) over an answer, by LeRobot's training pass."""
        tokens, mask = batch[OBS_LANGUAGE_TOKENS], batch[OBS_LANGUAGE_ATTENTION_MASK]
        answers = torch.tensor(answer, device=tokens.device).expand(len(tokens), -1)  # (B,L)
        calls: list[tuple[Tensor, Tensor]] = []
        hook = self._token_layer.register_forward_hook(lambda _, given, out: calls.append((given[0], out)))
        try:
            # The class's, because the instance's may be compiled, without the hook.
            type(self.model).forward(
                self.model,
                *self.prepare_images(batch),
                tokens,
                mask,
                answers,
                torch.ones_like(answers).bool(),
            )
        finally:
            hook.remove()
        return calls[0]

    def detokenize_actions(self, tokens: Tensor, action_horizon: int, action_dim: int) -> Tensor:
        """Decode tokens (B,L) to actions (B,horizon,A) as LeRobot does; ValueError if they are no actions."""
        try:
            return super().detokenize_actions(tokens, action_horizon, action_dim)
        except AssertionError as error:
            raise ValueError(
                f"The policy did not answer with actions ({error}), expected 'Action: ' first: train it for longer, or "
                "take the answer as it is with --policy.validate_action_token_prefix=false."
            ) from error

    @property
    def latent_head(self) -> nn.Parameter:
        has_latents = self.model.config.has_latent_head
        layer: Any = self.model.latent_out_proj if has_latents else self._token_layer
        return layer.weight

    def transfer_rules(self, source: PreTrainedConfig) -> Sequence[Rule]:
        latents = OtherActions(
            "model.latent_out_proj.*", "predicts latent actions, which are pretraining's alone"
        )
        return [*super().transfer_rules(source), latents]
