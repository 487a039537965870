"""Whether two volumes lie on one grid: at the same place, or stored in another order; nothing is resampled."""

from dataclasses import replace

import nibabel as nib
import numpy as np

from forward_models import Volume

PARALLEL = 1e-3  # largest cosine that counts as none
SAME_PLACE_MM = 1e-2  # far above the rounding of a header, far below what could be seen


def stored_like(volume: Volume, model: Volume) -> Volume | None:
    """`volume` with array axes permuted and flipped to run like those of `model`; None where they are not parallel."""
    directions = np.linalg.inv(volume.affine[:3, :3] / volume.voxel_mm) @ (model.affine[:3, :3] / model.voxel_mm)
    rounded = np.rint(directions)
    if np.abs(directions - rounded).max() >= PARALLEL or not np.array_equal(np.abs(rounded).sum(axis=0), [1, 1, 1]):
        return None
    axes = np.abs(rounded).argmax(axis=0)
    orientation = np.empty((3, 2))
    orientation[axes, 0] = np.arange(3)
    orientation[axes, 1] = rounded[axes, np.arange(3)]
    data = nib.orientations.apply_orientation(volume.data, orientation)
    affine = volume.affine @ nib.orientations.inv_ornt_aff(orientation, volume.data.shape)
    return replace(volume, data=np.ascontiguousarray(data), affine=affine)
