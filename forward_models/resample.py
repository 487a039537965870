"""Resampling along one axis that keeps the field of view, in either direction."""

import numpy as np
import torch
from jaxtyping import Float, Float64
from scipy.fft import dct
from scipy.interpolate import make_interp_spline
from torch import Tensor

from forward_models.grids import SliceGrid, same_field_of_view
from forward_models.selection import along, linear_continuation

CONTINUED_SAMPLES = 12  # the influence of a cubic spline's end conditions falls by 0.27 per sample


def resample(x: Float[Tensor, "..."], spacing_mm: float, new_spacing_mm: float, axis: int = -1) -> Float[Tensor, "..."]:
    """Resample `x` along `axis` from `spacing_mm` to `new_spacing_mm`, keeping the field of view and its middle."""
    source = SliceGrid(x.shape[axis], spacing_mm)
    return along(axis, resampling_weights(source, same_field_of_view(source, new_spacing_mm)), x)


def resampling_weights(source: SliceGrid, target: SliceGrid) -> Float64[Tensor, "target source"]:
    """Matrix from samples on `source` to samples on `target`; constants and ramps in mm are kept exactly.

    Towards finer samples: cubic B-spline interpolation at the true positions. Towards coarser ones: the least-squares
    inverse of that interpolation, the coarse samples whose spline comes closest to the fine ones, which is the sharpest
    filter against aliasing that cubic splines allow.
    """
    if source.count == 1:
        raise ValueError("resampling needs at least 2 samples along the axis")
    if target.spacing_mm <= source.spacing_mm:
        return _spline_weights(source, target)
    return torch.linalg.pinv(_spline_weights(target, source))


def band_limited_weights(source: int, target: int) -> Float64[Tensor, "target source"]:
    """Matrix from `source` to `target` samples of the same field of view that keeps what frequencies they share.

    To fewer samples it cuts k-space, to more it fills k-space with zeros: the two undo one another, exactly for images
    that were filled up before. Frequencies are those of the cosine transform, that is of the image mirrored at its
    edges, so that opposite edges need not match.
    """
    shared = min(source, target)
    forward, back = (dct(np.eye(n), norm="ortho", axis=0)[:shared] for n in (source, target))
    return torch.from_numpy(np.sqrt(target / source) * back.T @ forward)


def _spline_weights(coarse: SliceGrid, fine: SliceGrid) -> Float64[Tensor, "fine coarse"]:
    """Cubic spline through the samples and their linear continuation, read off at the fine positions."""
    beyond = int(np.ceil(max(0.0, (fine.field_of_view_mm - coarse.field_of_view_mm) / 2) / coarse.spacing_mm))
    margin = CONTINUED_SAMPLES + beyond
    knots = coarse.extended(margin).centres_mm
    spline = make_interp_spline(knots, linear_continuation(coarse.count, margin, fitted=2), k=3)
    return torch.from_numpy(spline(fine.centres_mm))
