"""Slices on pixels several times as large, and back."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def block_mean(x: Float[Tensor, "batch rows columns"], ratio: int) -> Float[Tensor, "batch coarse_rows coarse_columns"]:
    """Means over blocks of `ratio` x `ratio` pixels; what is left over at the far ends is dropped."""
    return F.avg_pool2d(x, ratio)


def enlarged(means: Float[Tensor, "batch rows columns"], ratio: int) -> Float[Tensor, "batch fine_rows fine_columns"]:
    """On pixels `ratio` times smaller, bicubic between the middles of blocks; no magnitude is negative."""
    fine = F.interpolate(means[:, None], scale_factor=ratio, mode="bicubic", align_corners=False)
    return fine[:, 0].clamp(min=0)
