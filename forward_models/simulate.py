"""Thick-slice scans made from thin ones, by the operator that every reconstruction inverts."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from forward_models.errors import InputRefused
from forward_models.grids import SliceGrid, thin_grid_for
from forward_models.profiles import SliceProfile
from forward_models.selection import slice_selection
from forward_models.volume import Volume


def simulate(
    thin: Volume,
    profile: SliceProfile,
    gap_mm: float,
    *,
    axis: int,
    noise_sd: float = 0.0,
    generator: torch.Generator | None = None,
) -> Volume:
    """The scan that slices with `profile`, `gap_mm` apart along `axis`, would give of the thin volume.

    As many slices as fit are placed so that their thin grid (`thin_grid_for`) consists of voxels of `thin`:
    `matching_voxels` says which, and they are the truth that a reconstruction is compared with.

    Args:
        thin: the thin volume.
        profile: slice profile; its full width at half maximum is the thickness.
        gap_mm: distance between the edges of neighbouring slices; negative where they overlap.
        axis: array axis to stack slices along.
        noise_sd: standard deviation of the Gaussian noise in the real and the imaginary channel, in the units of the
            image; the magnitude is returned (Rician noise).
        generator: where the noise is drawn from; required if there is noise.

    Raises:
        InputRefused: slices as thin as the voxels, fewer than one slice fits, or Rician noise on negative values.
    """
    source = thin.slice_grid(axis)
    thick = thick_grid_within(source, profile.fwhm_mm, gap_mm)
    operator = slice_selection(thick, source, profile, axis)
    values = operator.apply(torch.from_numpy(np.asarray(thin.data, np.float64)))
    if noise_sd > 0:
        _require_magnitude(thin)
        values = _rician(values, noise_sd, generator)
    return thin.on_grid(values.numpy().astype(np.float32), axis, thick)


def thick_grid_within(thin: SliceGrid, thickness_mm: float, gap_mm: float) -> SliceGrid:
    """As many slices as fit into the field of view of `thin`, on the phase that `simulate` describes."""
    spacing = thickness_mm + gap_mm
    if thickness_mm < thin.spacing_mm or spacing <= thin.spacing_mm:
        raise InputRefused(
            f"slices of {thickness_mm:g} mm every {spacing:g} mm cannot be made from voxels of "
            f"{thin.spacing_mm:.4g} mm; thickness must not be smaller, spacing must be larger"
        )
    count = int(np.floor(thin.field_of_view_mm / spacing * (1 + 1e-9)))
    if count < 1:
        raise InputRefused(f"no slice every {spacing:g} mm fits into {thin.field_of_view_mm:g} mm")
    voxels = _matching_voxels(thin, SliceGrid(count, spacing))
    middle = thin.first_mm + (voxels.start + voxels.stop - 1) / 2 * thin.spacing_mm
    return SliceGrid(count, spacing, middle)


def matching_voxels(thin: SliceGrid, thickness_mm: float, gap_mm: float) -> slice:
    """The voxels of `thin` that a reconstruction of `simulate`'s scan covers, at the same spacing."""
    return _matching_voxels(thin, thick_grid_within(thin, thickness_mm, gap_mm))


def truth_for(thin: Volume, profile: SliceProfile, gap_mm: float, axis: int) -> Volume:
    """The part of `thin` that a reconstruction of `simulate(thin, profile, gap_mm, axis=axis)` should equal."""
    source = thin.slice_grid(axis)
    voxels = matching_voxels(source, profile.fwhm_mm, gap_mm)
    index = tuple(voxels if i == axis else slice(None) for i in range(3))
    middle = source.first_mm + (voxels.start + voxels.stop - 1) / 2 * source.spacing_mm
    kept = SliceGrid(voxels.stop - voxels.start, source.spacing_mm, middle)
    return replace(thin.on_grid(thin.data[index], axis, kept), sha256=thin.sha256)


def _matching_voxels(thin: SliceGrid, thick: SliceGrid) -> slice:
    count = thin_grid_for(thick, thin.spacing_mm).count
    start = (thin.count - count) // 2
    return slice(start, start + count)


def _require_magnitude(thin: Volume) -> None:
    if thin.data.min() < 0:
        raise InputRefused(
            f"the thin volume holds negative values (down to {float(thin.data.min()):g}); Rician noise belongs to "
            "magnitude images; leave --noise out or take the magnitude first"
        )


def _rician(values: Float[Tensor, "..."], noise_sd: float, generator: torch.Generator | None) -> Float[Tensor, "..."]:
    if generator is None:
        raise ValueError("noise needs a generator")
    real, imaginary = (noise_sd * torch.randn(values.shape, generator=generator, dtype=values.dtype) for _ in range(2))
    return torch.hypot(values + real, imaginary)
