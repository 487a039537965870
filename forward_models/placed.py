"""Stacks in working order that know where they lie in the world."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from forward_models.elsewhere import ScanElsewhere, scan_elsewhere
from forward_models.lattices import Lattice
from forward_models.stack import Stack, WorkingOrder
from forward_models.volume import Volume


@dataclass(frozen=True, eq=False)
class PlacedStack:
    """A stack and its place.

    Attributes:
        stack: in working order.
        slices: where its thick voxels lie, in the same order.
    """

    stack: Stack
    slices: Lattice

    @property
    def thin(self) -> Lattice:
        """Where the voxels of its thin volume lie: around the same middle."""
        a, b, _ = self.slices.shape
        grid = self.stack.selection.thin
        return self.slices.respaced((a, b, grid.count), (*self.slices.voxel_mm[:2], grid.spacing_mm))

    @property
    def resolved_mm(self) -> tuple[float, float]:
        """True voxel sizes in plane."""
        a, b = (
            mm * n / kept
            for mm, n, kept in zip(self.slices.voxel_mm[:2], self.slices.shape[:2], self.stack.resolved, strict=True)
        )
        return a, b

    @property
    def normal(self) -> Float64[np.ndarray, " 3"]:
        """Of the slices, in the world."""
        return self.slices.directions[:, 2]

    def moved(self, motion: Float64[np.ndarray, "4 4"]) -> "PlacedStack":
        """The same stack after a rigid motion of the world."""
        return replace(self, slices=self.slices.moved(motion))

    def rows(self, count: int) -> "PlacedStack":
        """The first `count` rows, or all where there are fewer: a piece to time."""
        piece = self.stack.rows(count)
        a, b, z = piece.slices.shape
        return PlacedStack(piece, Lattice((a, b, z), self.slices.affine))

    def seen_from(self, thin: Lattice) -> ScanElsewhere:
        """The operator from a thin volume on `thin` to these slices."""
        return scan_elsewhere(thin, self.slices, self.stack.selection.profile, self.resolved_mm)


def placed(stack: Stack, volume: Volume) -> PlacedStack:
    """The stack of a volume, where its affine puts it."""
    i, j, k = volume.data.shape
    return PlacedStack(stack, lattice_in_order(Lattice((i, j, k), volume.affine), stack.order))


def placed_within(lattice: Lattice, stack: Stack) -> PlacedStack:
    """A stack in the field of view of `lattice`, whose voxels lie around the same middle in the same order."""
    a, b, z = stack.slices.shape
    return PlacedStack(stack, lattice.respaced((a, b, z), (*stack.in_plane_mm, stack.selection.thick.spacing_mm)))


def lattice_in_order(lattice: Lattice, order: WorkingOrder) -> Lattice:
    """The same voxels, counted in working order."""
    to_file = np.zeros((4, 4))
    to_file[3, 3] = 1
    for i, (axis, flipped) in enumerate(zip(order.axes, order.reversed, strict=True)):
        to_file[axis, i] = -1 if flipped else 1
        to_file[axis, 3] = lattice.shape[axis] - 1 if flipped else 0
    a, b, z = (lattice.shape[axis] for axis in order.axes)
    return Lattice((a, b, z), lattice.affine @ to_file)
