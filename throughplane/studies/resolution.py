"""How wide the slices of a thin volume really are, told by the volume alone."""

from dataclasses import replace

import numpy as np

from eclare import ProfileConfig, ProfileTrace, estimate_profile
from forward_models import Acquisition, Gaussian, InputRefused, Source, Volume
from forward_models.acquisition import Sources
from forward_models.profiles import FWHM_PER_SIGMA

COARSE_MM, FINE_MM = 4.0, 2.0  # between the slices that are compared
BLENDED = 1.5  # from the coarse step to this many times as much, the answer passes from one to the other
EXPECTED_VOXELS, EXPECTED_SD = 2.5, 1.5  # width, and of its logarithm: wide enough to leave the answer to the volume
SHARP_VOXELS = 2.0  # no wider than this is an answer, although the widths searched end near


def effective_fwhm_mm(volume: Volume, axis: int) -> float | None:
    """Full width at half maximum along `axis` of the Gaussian as wide as the slice profile found; None if none is.

    `estimate_profile` tells the standard deviation of a profile better than its shape, and widths of one to two slice
    spacings best. So it is shown a slice every 2 mm and every 4 mm, and the answers are blended, geometrically, where
    the coarse one finds 4 to 6 mm; narrower is left to the fine one, wider to the coarse one. Nothing below 1.3 voxels
    is searched: a volume that is sharper gets what the estimator says, about 1.1 voxels. Any other doubt makes None.
    """
    coarse = _estimate(volume, axis, COARSE_MM)
    if coarse is None:
        return None
    share = float(np.clip(np.log(coarse.fwhm_mm / COARSE_MM) / np.log(BLENDED), 0, 1))
    fine = _estimate(volume, axis, FINE_MM) if share < 1 else coarse
    sharp_mm = SHARP_VOXELS * max(volume.voxel_mm)
    if fine is None or any(t.doubts and t.plausible_mm[1] > sharp_mm for t in (coarse if share > 0 else fine, fine)):
        return None
    return FWHM_PER_SIGMA * fine.sd_mm ** (1 - share) * coarse.sd_mm**share


def _estimate(volume: Volume, axis: int, step_mm: float) -> ProfileTrace | None:
    keep_every = max(1, round(step_mm / volume.voxel_mm[axis]))
    affine = volume.affine.copy()
    affine[:, axis] *= keep_every
    index = tuple(slice(None, None, keep_every if i == axis else 1) for i in range(3))
    kept = replace(volume, data=np.asarray(volume.data)[index], affine=affine)
    grid = kept.slice_grid(axis)
    in_plane = tuple(size for i, size in enumerate(kept.voxel_mm) if i != axis)
    acquisition = Acquisition(
        axis=axis,
        slices=grid,
        in_plane_mm=(in_plane[0], in_plane[1]),
        profile=Gaussian(grid.spacing_mm),
        sources=Sources(Source.FLAG, Source.HEADER, Source.ASSUMPTION, Source.ASSUMPTION),
    )
    expected = EXPECTED_VOXELS * max(in_plane) / grid.spacing_mm
    try:
        return estimate_profile(kept, acquisition, ProfileConfig(prior_ratio=expected, prior_sd=EXPECTED_SD))[1]
    except InputRefused:
        return None
