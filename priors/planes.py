"""Anatomical planes, and how their slices lie in an array of RAS orientation."""

from enum import Enum

from jaxtyping import Shaped
from torch import Tensor


class Plane(Enum):
    """The plane of a slice; the value is the axis of a (right, anterior, superior) array that runs along its normal.

    Rows and columns of a slice are the two other axes in their order: sagittal slices are (anterior, superior),
    coronal ones (right, superior), axial ones (right, anterior). The value is also the class label of the network.
    """

    SAGITTAL = 0
    CORONAL = 1
    AXIAL = 2

    @property
    def mirror_axis(self) -> int | None:
        """The axis of a slice that a left-right flip reverses; None where the mirror image is another slice."""
        return None if self is Plane.SAGITTAL else 0


def slice_of(voxels: Shaped[Tensor, "r a s"], plane: Plane, index: int) -> Shaped[Tensor, "rows columns"]:
    """Slice `index` of a RAS array, a view."""
    return voxels.select(plane.value, index)
