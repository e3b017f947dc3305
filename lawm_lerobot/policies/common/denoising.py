"""Latents of policies that denoise, from one step that carries the gradient.

Letters: B batch, H slots of the action chunk, Z latent dimension.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

# The share of the signal in the noisy sample, sqrt(alpha_bar), at the step from which the clean one is estimated.
# A network that predicts the noise errs by its own error divided by this; at the very last step of the usual
# cosine schedule that would be 2000 times.
ESTIMATION_SIGNAL_SHARE = 0.1


def denoise_once(scheduler: Any, network: Callable[[Tensor, Tensor], Tensor], noise: Tensor) -> Tensor:
    """The clean sample (B,H,Z) that a diffusion network sees in pure noise, with gradient into the network.

    The scheduler's ``prediction_type`` says how; the sample is not clipped, since latents have unit variance and a
    clipped value would pass no gradient.

    Args:
        scheduler: The diffusers scheduler, DDPM or DDIM, that the policy trains with.
        network: The function (noisy sample (B,H,Z), timestep (B) int64) -> prediction (B,H,Z).
        noise: (B,H,Z), Gaussian of unit variance.
    """
    share = scheduler.alphas_cumprod.sqrt()  # (steps), falling
    step = max(int((share >= ESTIMATION_SIGNAL_SHARE).sum()) - 1, 0)
    prediction = network(noise, torch.full(noise.shape[:1], step, device=noise.device))
    unclipped = DDPMScheduler.from_config(scheduler.config, clip_sample=False, thresholding=False)
    return unclipped.step(prediction, step, noise).pred_original_sample
