"""Slices drawn from a prior alone, and how close they come to what it was trained on."""

from collections.abc import Callable, Iterable
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

COARSE = 4  # slices are compared on pixels this much larger
SHIFT = 2  # coarse pixels in every direction
Denoise = Callable[[Tensor, float], Tensor]


def noise_schedule(steps: int, least: float = 0.005, most: float = 40.0, rho: float = 7.0) -> list[float]:
    """`steps` noise levels from `most` to `least`, then 0: equation 5 of Karras et al. 2022."""
    high, low = most ** (1 / rho), least ** (1 / rho)
    return [(high + i / max(1, steps - 1) * (low - high)) ** rho for i in range(steps)] + [0.0]


def sample(
    denoise: Denoise,
    start: Float[Tensor, "batch rows columns"],
    sigmas: list[float],
    *,
    generator: torch.Generator,
) -> Float[Tensor, "batch rows columns"]:
    """Slices from noise, by Heun's method: algorithm 1 of Karras et al. 2022.

    Args:
        denoise: of one plane.
        start: what lies under the noise of the first level; air, 0, to draw from the prior alone.
        sigmas: falling, the last one 0.
        generator: of the noise to start from; nothing else is drawn.
    """
    x = start + sigmas[0] * torch.randn(start.shape, generator=generator)
    for sigma, sigma_next in pairwise(sigmas):
        slope = (x - denoise(x, sigma)) / sigma  # 4  dx / dsigma
        ahead = x + (sigma_next - sigma) * slope  # 5  Euler step
        if sigma_next > 0:
            slope_ahead = (ahead - denoise(ahead, sigma_next)) / sigma_next  # 7
            ahead = x + (sigma_next - sigma) * (slope + slope_ahead) / 2  # 8  second-order correction
        x = ahead
    return x


def nearest(
    slices: Float[Tensor, "batch rows columns"], known: Iterable[Float[Tensor, "known_rows known_columns"]]
) -> tuple[Float[Tensor, " batch"], list[int]]:
    """For every slice the largest correlation with any known slice, and which one that is.

    Normalised correlation at 4 mm, over shifts of up to 8 mm in every direction and, for each shift, only where both
    slices are defined. Known slices are cropped or padded with air, around their middles, to the size of `slices`.
    """
    rows, columns = slices.shape[1:]
    wanted = _standardised(_coarse(slices)[:, SHIFT:-SHIFT, SHIFT:-SHIFT])
    best, which = torch.full((len(slices),), -1.0), [-1] * len(slices)
    for index, image in enumerate(known):
        coarse = _coarse(fitted(image, rows, columns)[None])
        shifted = coarse.unfold(1, wanted.shape[1], 1).unfold(2, wanted.shape[2], 1).flatten(0, 2)
        found = (_standardised(shifted).flatten(1) @ wanted.flatten(1).T).amax(dim=0)
        for i in (found > best).nonzero().flatten().tolist():
            best[i], which[i] = found[i], index
    return best, which


def _coarse(slices: Float[Tensor, "batch rows columns"]) -> Float[Tensor, "batch coarse_rows coarse_columns"]:
    return F.avg_pool2d(slices[:, None], COARSE)[:, 0]


def _standardised(slices: Float[Tensor, "batch rows columns"]) -> Float[Tensor, "batch rows columns"]:
    """Mean 0, norm 1; a constant slice becomes 0."""
    centred = slices - slices.mean(dim=(1, 2), keepdim=True)
    return F.normalize(centred.flatten(1), dim=1).reshape(centred.shape)


def fitted(image: Float[Tensor, "r c"], rows: int, columns: int) -> Float[Tensor, "rows columns"]:
    """Cropped or padded with air, around its middle."""
    missing = [columns - image.shape[1], rows - image.shape[0]]
    return F.pad(image, [p for m in missing for p in (m // 2, m - m // 2)])  # negative padding crops
