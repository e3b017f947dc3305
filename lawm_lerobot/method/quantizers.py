"""Discrete latents, the family of LAPA (arXiv 2410.11758): an inferred latent is put together from a few codes.

Letters: B clips, H latent actions, Z numbers in one, G codes in one, K codes to choose from, D = Z / G.

The quantised latent is a vector of Z numbers like any other: it drives the world model, and a policy learns it with the
loss that it has for actions. In LAPA the policy is a language model, which learns the codes' numbers as tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lawm_lerobot.method.latent_action import FSQ, VQ, LatentActionConfig
from lawm_lerobot.method.networks import masked_mean

# Share of a batch in the running statistics of the codes.
MOMENTUM = 0.01
# A code that is chosen less often than this share of what all codes would be, if they were chosen alike, is dead.
DEAD = 0.1


def straight_through(continuous: Tensor, quantised: Tensor) -> Tensor:
    """The quantised values, with the gradient of the continuous ones (VQ-VAE, arXiv 1711.00937, section 3.1)."""
    # The added zero keeps the gradient, and equal codes equal to the last bit.
    return quantised.detach() + (continuous - continuous.detach())


class Quantizer(nn.Module, ABC):
    """Makes latents discrete.

    Args:
        sizes: The number of codes that each of a latent's G places can have.
        shared: All places choose from the same codes.
    """

    def __init__(self, sizes: Sequence[int], shared: bool) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.shared = shared

    @abstractmethod
    def forward(self, z: Tensor, valid: Tensor, track: bool = True) -> Tensor:
        """Standardised latents (B,H,Z), valid (B,H) -> quantised ones (B,H,Z), zero at padded transitions.

        With ``track=False`` nothing is learned of them, in training too.
        """

    @abstractmethod
    def codes(self, latents: Tensor) -> Tensor:
        """The numbers (B,H,G) of the codes of quantised latents (B,H,Z), int64."""

    def loss(self, continuous: Tensor, quantised: Tensor, valid: Tensor) -> Tensor:
        """The loss () of latents (B,H,Z) before and after they were quantised, given valid (B,H); 0 by default."""
        return continuous.new_zeros(())

    @torch.no_grad()
    def usage(self, latents: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """The metrics () of quantised latents (B,H,Z) that show a collapse of the codes, given valid (B,H).

        code_perplexity is the number of codes that a place in the latents takes, weighted by how often (the exponential
        of their entropy), averaged over the places: 1 is a constant, K the most. codes_used is the share of all codes that
        occur at all, which depends on how many latents there are.
        """
        numbers = F.one_hot(self.codes(latents), max(self.sizes)) * valid[..., None, None]  # (B,H,G,K)
        counts = numbers.sum((0, 1)).float()  # (G,K)
        shares = counts / counts.sum(1, keepdim=True).clamp_min(1.0)  # (G,K)
        entropy = -torch.special.xlogy(shares, shares).sum(1)  # (G)
        occurring = counts.sum(0, keepdim=True) if self.shared else counts
        total = self.sizes[0] if self.shared else sum(self.sizes)
        return {"code_perplexity": entropy.exp().mean(), "codes_used": (occurring > 0).sum() / total}


class VectorQuantizer(Quantizer):
    """Replaces each of the G parts of a latent by the nearest of K learned vectors, the same ones for all places.

    The codes follow the running mean of the parts that chose them (VQ-VAE, arXiv 1711.00937, appendix A.1). One that is
    hardly chosen any more is put where a part of the present batch is. They are buffers: in distributed training
    all processes get the first one's.

    As in LAPA (section 3.1): several codes for a transition, from one small codebook, and dead codes that are replaced. Not
    as in LAPA: LAPA lets the gradient pass by noise of the size of the error (NSVQ) and trains the codebook by it, where
    here it passes straight through, and LAPA puts a dead code beside one that lives.

    Args:
        dim: Z, a multiple of ``places``.
        places: G.
        size: K.
        commitment: The weight of the loss.
    """

    share: Tensor
    total: Tensor

    def __init__(self, dim: int, places: int, size: int, commitment: float = 0.25) -> None:
        super().__init__([size] * places, shared=True)
        self.commitment = commitment
        # Of the parts of a batch, the share that chose a code, and the sum of these over the number of all parts.
        self.register_buffer("share", torch.full((size,), 1.0 / size))  # (K)
        self.register_buffer("total", torch.randn(size, dim // places) / size)  # (K,D)

    @property
    def codebook(self) -> Tensor:
        """The codes (K,D)."""
        return self.total / self.share.unsqueeze(1)

    def forward(self, z: Tensor, valid: Tensor, track: bool = True) -> Tensor:
        parts = self._parts(z)  # (B*H*G,D)
        if self.training and track:
            counted = valid.flatten().repeat_interleave(len(self.sizes))  # (B*H*G)
            self._revive(parts.detach(), counted)
            self._follow(parts.detach(), counted)
        quantised = self.codebook[self._nearest(parts)].view_as(z)  # (B,H,Z)
        return straight_through(z, quantised) * valid.unsqueeze(-1)

    def loss(self, continuous: Tensor, quantised: Tensor, valid: Tensor) -> Tensor:
        """The weighted mean squared distance () of latents from their codes, which the latents alone learn from.

        The third term of VQ-VAE's equation 3 (arXiv 1711.00937): it keeps latents from growing away from the codes. LAPA
        does without, since noise in place of the error lets its latents feel how far they are.
        """
        distance = (continuous - quantised.detach()).square().mean(-1)  # (B,H)
        return self.commitment * masked_mean(distance, valid)

    def codes(self, latents: Tensor) -> Tensor:
        return self._nearest(self._parts(latents)).view(*latents.shape[:2], -1)  # (B,H,G)

    def _parts(self, z: Tensor) -> Tensor:
        return z.float().reshape(-1, self.total.shape[1])  # (B*H*G,D)

    @torch.no_grad()
    def _nearest(self, parts: Tensor) -> Tensor:
        return torch.cdist(parts, self.codebook).argmin(1)  # (B*H*G)

    @torch.no_grad()
    def _revive(self, parts: Tensor, counted: Tensor) -> None:
        """Put every dead code where a part (n,D) is that counts, drawn at random, as if it were chosen like any other."""
        size = len(self.share)
        # Sorting random numbers in place of drawing from those that count, whose number only the device knows.
        keys = torch.rand(len(parts), device=parts.device).masked_fill(~counted, -1.0)  # (n)
        drawn = keys.argsort(descending=True)  # (n)
        count = counted.sum().clamp_min(1)
        fresh = parts[drawn[torch.arange(size, device=parts.device) % count]]  # (K,D)
        dead = (self.share < DEAD / size) & counted.any()  # (K)
        self.share.copy_(torch.where(dead, 1.0 / size, self.share))
        self.total.copy_(torch.where(dead.unsqueeze(1), fresh / size, self.total))

    @torch.no_grad()
    def _follow(self, parts: Tensor, counted: Tensor) -> None:
        """Move the running statistics towards those of the parts (n,D) that count."""
        chosen = F.one_hot(self._nearest(parts), len(self.share)) * counted.unsqueeze(1)  # (n,K)
        chosen = chosen.float() / counted.sum().clamp_min(1)
        rate = MOMENTUM * counted.any()
        self.share.lerp_(chosen.sum(0), rate)
        with torch.autocast(parts.device.type, enabled=False):
            self.total.lerp_(chosen.T @ parts, rate)


class FiniteScalarQuantizer(Quantizer):
    """Rounds every number of a latent to one of a few levels between -1 and 1 (FSQ, arXiv 2309.15505, section 3.1).

    Each number is a place with codes of its own, G = Z and D = 1. There is no codebook that could collapse, and nothing to
    learn. Not LAPA's: it is there because codebooks are hard to train.

    Args:
        levels: The number of levels of each of the Z numbers.
    """

    outer: Tensor
    offset: Tensor

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__(levels, shared=False)
        count = torch.tensor(levels)
        # An even number of levels has none at 0 unless one more is below 0 than above.
        self.register_buffer("outer", count // 2, persistent=False)  # (Z)
        self.register_buffer("offset", (count % 2 == 0) / 2, persistent=False)  # (Z)

    def forward(self, z: Tensor, valid: Tensor, track: bool = True) -> Tensor:
        # A little beyond the outer levels, or these were never reached.
        reach = 1.001 * (self.outer - self.offset)  # (Z)
        # Shifted so that a latent of 0 is at the level 0.
        bounded = torch.tanh(z.float() + torch.atanh(self.offset / reach)) * reach - self.offset  # (B,H,Z)
        return straight_through(bounded, bounded.round()) / self.outer * valid.unsqueeze(-1)

    def codes(self, latents: Tensor) -> Tensor:
        # Of a training that has diverged there may be no number.
        return (latents.nan_to_num(0, 0, 0) * self.outer).round().long() + self.outer  # (B,H,Z)


def build_quantizer(config: LatentActionConfig) -> Quantizer | None:
    """The quantiser that a configuration asks for, newly initialised; None if latents stay as they are."""
    if config.quantizer == VQ:
        return VectorQuantizer(config.dim, config.codes, config.codebook_size, config.commitment_weight)
    if config.quantizer == FSQ:
        return FiniteScalarQuantizer(config.levels_of_each)
    return None
