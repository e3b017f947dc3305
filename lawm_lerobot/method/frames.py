"""The one way in which frames are brought to the size that the world model and the inverse dynamics see."""

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_frames(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """(N,C,h,w) -> (N,C,*size), bilinear with antialiasing; bytes stay bytes."""
    if tuple(frames.shape[-2:]) == size:
        return frames
    if frames.dtype == torch.uint8:
        return resize_frames(frames.float(), size).round().clamp(0, 255).to(torch.uint8)
    return F.interpolate(frames, size, mode="bilinear", antialias=True, align_corners=False)
