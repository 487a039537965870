"""Which slices of a head are shown to people, and how they are turned."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import nibabel as nib
import numpy as np
from jaxtyping import Bool, Shaped

from forward_models import Volume

Plane = Literal["sagittal", "coronal", "axial"]
PLANES: tuple[Plane, ...] = ("sagittal", "coronal", "axial")
ACROSS: Mapping[Plane, int] = MappingProxyType({"sagittal": 0, "coronal": 1, "axial": 2})


def right_anterior_superior(
    data: Shaped[np.ndarray, "i j k"], volume: Volume
) -> tuple[Shaped[np.ndarray, "r a s"], tuple[float, float, float]]:
    """Data on the grid of a volume with axes as the world's, as near as can be; voxel sizes in mm in that order."""
    orientation = nib.io_orientation(volume.affine)
    sizes = [0.0, 0.0, 0.0]
    for axis, size in zip(orientation[:, 0], volume.voxel_mm, strict=True):
        sizes[int(axis)] = size
    return nib.apply_orientation(data, orientation), (sizes[0], sizes[1], sizes[2])


def box_around(inside: Bool[np.ndarray, "i j k"], margin: int = 3) -> tuple[slice, slice, slice]:
    """What holds all of a mask, with a margin in voxels; everything where the mask is empty."""
    box = []
    for axis in range(3):
        places = np.flatnonzero(inside.any(axis=tuple(i for i in range(3) if i != axis)))
        first, last = (0, inside.shape[axis] - 1) if places.size == 0 else (int(places[0]), int(places[-1]))
        box.append(slice(max(first - margin, 0), last + margin + 1))
    return (box[0], box[1], box[2])


def places(shape: tuple[int, int, int]) -> Mapping[Plane, int]:
    """Where a head that fills a box is cut: sagittal a quarter of its width off the middle, where there is cortex."""
    return {"sagittal": shape[0] // 4, "coronal": shape[1] // 2, "axial": shape[2] // 2}


def cut(volume: Shaped[np.ndarray, "r a s"], plane: Plane, place: int) -> Shaped[np.ndarray, "v u"]:
    """A slice, its first axis superior or anterior, its second one anterior or right: neurological."""
    return np.take(volume, place, axis=ACROSS[plane]).T
