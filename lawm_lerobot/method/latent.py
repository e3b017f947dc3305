"""The constraint on latent actions, and the metrics that show a collapse. Letters as in world_models/base.py."""

import torch
from torch import Tensor, nn


def masked_moments(z: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B,H,Z), (B,H) -> mean (Z), unbiased variance (Z) and number () of the valid latents, in float32.

    The variance is zero where fewer than two are valid.
    """
    z, mask = z.float(), valid.unsqueeze(-1).float()  # (B,H,Z), (B,H,1)
    count = mask.sum()
    mean = (z * mask).sum((0, 1)) / count.clamp_min(1.0)  # (Z)
    variance = ((z - mean).square() * mask).sum((0, 1)) / (count - 1).clamp_min(1.0)  # (Z)
    return mean, variance, count


class LatentNorm(nn.Module):
    """Standardises every latent dimension over the valid transitions, without a learned scale or shift.

    Training uses the statistics of the batch, and gradients pass through them, so that a latent cannot shrink
    towards a constant to please the world model. Evaluation uses running statistics, and so does training on
    a batch with fewer than two valid transitions. In distributed training each process normalises its own
    batch.

    A dimension whose standard deviation is far below sqrt(eps) = 0.01 stays near zero instead of having
    rounding noise blown up to unit variance: a collapse remains visible.

    Args:
        dim: Z.
        momentum: The share of a batch in the running statistics, once there have been many.
        eps: Added to the variances.
    """

    mean: Tensor
    variance: Tensor
    batches: Tensor

    def __init__(self, dim: int, momentum: float = 0.01, eps: float = 1e-4):
        super().__init__()
        self.momentum = momentum
        self.eps = eps
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("variance", torch.ones(dim))
        self.register_buffer("batches", torch.zeros(()))

    def forward(self, z: Tensor, valid: Tensor, track: bool = True) -> Tensor:
        """(B,H,Z), (B,H) bool -> (B,H,Z) float32, zero at padded transitions.

        With ``track=False`` the running statistics take no notice.
        """
        mean, variance = self.mean, self.variance  # (Z), (Z)
        if self.training:
            batch_mean, batch_variance, count = masked_moments(z, valid)  # (Z), (Z), ()
            enough = count >= 2
            # `where` rather than `if`, which would wait for the GPU. The copies keep the update below, which
            # is in place, away from what the backward pass needs.
            mean = torch.where(enough, batch_mean, self.mean.clone())
            variance = torch.where(enough, batch_variance, self.variance.clone())
            if track:
                self.update(batch_mean.detach(), batch_variance.detach(), enough)
        return (z.float() - mean) * torch.rsqrt(variance + self.eps) * valid.unsqueeze(-1)

    @torch.no_grad()
    def update(self, mean: Tensor, variance: Tensor, enough: Tensor) -> None:
        """Moves the running statistics towards a batch's (Z), at first as a plain average, to start from no guess.

        They stay as they are where ``enough`` () is false, because the batch has too few latents.
        """
        self.batches += enough
        rate = (1.0 / self.batches.clamp_min(1.0)).clamp_min(self.momentum) * enough
        self.mean.lerp_(mean, rate)
        self.variance.lerp_(variance, rate)


@torch.no_grad()
def effective_rank(z: Tensor, valid: Tensor) -> Tensor:
    """() exp of the entropy of the normalised eigenvalues of the latents' covariance (Roy, Vetterli 2007).

    Between 1 and Z for (B,H,Z): how many directions the latents use. 0 if they do not vary at all. The
    decomposition waits for the GPU, so call it when metrics are logged, not at every step.
    """
    mean, variance, count = masked_moments(z, valid)
    centred = ((z.float() - mean) * valid.unsqueeze(-1)).flatten(0, 1)  # (B*H,Z)
    covariance = centred.T @ centred / (count - 1).clamp_min(1.0)  # (Z,Z)
    finite = covariance.isfinite().all()
    # Zeros in place of a covariance that is not finite, on which the decomposition raises an error.
    covariance = torch.where(finite, covariance, torch.zeros_like(covariance))
    share = torch.linalg.eigvalsh(covariance).clamp_min(0.0)  # (Z)
    share = share / share.sum().clamp_min(1e-20)
    entropy = -torch.special.xlogy(share, share).sum()
    # Relative to the size of the latents: rounding leaves a constant with a variance that is not quite zero.
    varies = variance.sum() > 1e-10 * (1.0 + mean.square().sum())
    rank = torch.where(varies, entropy.exp(), torch.zeros_like(entropy))
    return torch.where(finite, rank, torch.full_like(rank, torch.nan))


@torch.no_grad()
def latent_std(z: Tensor, valid: Tensor) -> Tensor:
    """() standard deviation of the valid latents of (B,H,Z), averaged over Z; near 0 is a collapse."""
    return masked_moments(z, valid)[1].sqrt().mean()
