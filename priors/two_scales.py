"""Two denoisers of different reach as one: of slices, and of their block means.

Means over k x k pixels of x = x0 + sigma n are the means of x0 plus noise of sigma / k. Where sigma is large they hold
nearly all that can be known of x0, and a network of the means sees a whole head where one of pixels sees a part.
"""

import math
from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from priors.denoiser import pad_to_multiple

Denoise = Callable[[Tensor, float], Tensor]


def two_scales(fine: Denoise, coarse: Denoise, ratio: int, crossover: tuple[float, float]) -> Denoise:
    """denoise(x, sigma) -> x0 with the detail of `fine` and, where sigma is large, the block means of `coarse`.

    Exact where both are exact and the means of x tell all that x tells of the means of x0: both then agree on them.

    Args:
        fine: denoiser of slices.
        coarse: denoiser of their means over `ratio` x `ratio` pixels.
        ratio: at least 2.
        crossover: up to the first sigma `fine` alone; from the second on the means are those of `coarse`; between, the
            share of `coarse` is linear in log sigma.
    """
    low, high = crossover
    if ratio < 2 or not 0 < low < high:
        raise ValueError(f"ratio {ratio}, crossover {crossover}; expected at least 2, and 0 < low < high")

    def denoise(x: Float[Tensor, "batch rows columns"], sigma: float) -> Float[Tensor, "batch rows columns"]:
        x0 = fine(x, sigma)
        if sigma <= low:
            return x0
        share = min(1.0, math.log(sigma / low) / math.log(high / low))
        noisy, inside = pad_to_multiple(x, ratio)
        change = coarse(block_mean(noisy, ratio), sigma / ratio) - block_mean(pad_to_multiple(x0, ratio)[0], ratio)
        return x0 + share * enlarged(change, ratio)[inside]

    return denoise


def block_mean(x: Float[Tensor, "batch rows columns"], ratio: int) -> Float[Tensor, "batch coarse_rows coarse_columns"]:
    """Means over blocks of `ratio` x `ratio` pixels; what is left over at the far ends is dropped."""
    return F.avg_pool2d(x, ratio)


def enlarged(means: Float[Tensor, "batch rows columns"], ratio: int) -> Float[Tensor, "batch fine_rows fine_columns"]:
    """On pixels `ratio` times smaller, linear between the middles of blocks, constant beyond the outer ones."""
    return F.interpolate(means[:, None], scale_factor=ratio, mode="bilinear", align_corners=False)[:, 0]
