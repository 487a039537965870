"""How well a thin volume explains the scan, for voxels as they are stored."""

from typing import Any

import numpy as np
from jaxtyping import Float64, Shaped

from forward_models import SliceSelection


def left_over(
    thin: Shaped[np.ndarray, "a b c"], scan: Shaped[np.ndarray, "i j k"], selection: SliceSelection
) -> Float64[np.ndarray, "i j k"]:
    """W x - y in float64. Row by row, so that x is never held in float64 as a whole."""
    x, y = (np.moveaxis(data, selection.axis, -1) for data in (thin, scan))
    adjoint = selection.weights.numpy().T
    left = np.empty(y.shape)
    for row in range(len(y)):
        left[row] = x[row].astype(np.float64) @ adjoint - y[row]
    return np.moveaxis(left, -1, selection.axis)


def residual_record(
    left: Float64[np.ndarray, "i j k"], scan: Shaped[np.ndarray, "i j k"], noise: float, selection: SliceSelection
) -> dict[str, Any]:
    """Root mean square of W x - y in image units, relative to the scan and to its noise; what W is like."""
    return {
        **size_record(left, scan, noise),
        "condition_of_w": selection.condition,
        "damping": selection.damping,
        "mismatch_left_at_most": selection.mismatch_left,
    }


def size_record(
    left: Float64[np.ndarray, "..."], scan: Shaped[np.ndarray, "..."], noise: float
) -> dict[str, float | None]:
    """Root mean square of W x - y in image units, relative to the scan and to its noise."""
    rms = root_mean_square(left)
    return {
        "rms": rms,
        "relative_to_scan": rms / root_mean_square(scan),
        "noise_sd": noise,
        "relative_to_noise": rms / noise if noise else None,
    }


def root_mean_square(data: Shaped[np.ndarray, "..."]) -> float:
    """In float64."""
    return float(np.sqrt(np.mean(np.square(data, dtype=np.float64))))
