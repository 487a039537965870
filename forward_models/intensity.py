"""Intensity scaling that can be undone exactly, and the noise level of a scan."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

RANGE_PERCENTILE = 99.0
SAMPLES = 1_000_000  # a percentile of this many voxels is exact enough, and quick
MAD_PER_SIGMA = 0.6744897501960817


def intensity_scale(x: Float[Tensor, "..."]) -> float:
    """Divide by this to bring the signal's robust maximum to between 0.7 and 1.4.

    The 99th percentile of the non-zero magnitudes, rounded to a power of two: dividing and multiplying by it changes
    no bit of a floating-point mantissa, so scaling is inverted exactly and nothing is clipped.
    """
    magnitudes = x[x != 0].abs()
    if magnitudes.numel() == 0:
        return 1.0
    stride = max(1, magnitudes.numel() // SAMPLES)
    robust_maximum = np.percentile(magnitudes[::stride].numpy(force=True), RANGE_PERCENTILE)
    return float(2.0 ** np.round(np.log2(robust_maximum)))


def noise_sd(slices: Float[Tensor, "a b k"]) -> float:
    """Standard deviation of the noise within slices, in the units of the image.

    Median absolute deviation of the diagonal Haar coefficients over voxels that hold signal (Donoho and Johnstone
    1994). Low where the scanner interpolated in plane, because interpolation makes neighbouring noise alike.
    """
    a, b = slices.shape[0] // 2 * 2, slices.shape[1] // 2 * 2
    corners = [slices[i:a:2, j:b:2] for i in (0, 1) for j in (0, 1)]
    diagonal = (corners[0] - corners[1] - corners[2] + corners[3]) / 2
    signal = torch.stack([corner != 0 for corner in corners]).all(dim=0)
    if not signal.any():
        return 0.0
    return float(diagonal[signal].abs().median()) / MAD_PER_SIGMA
