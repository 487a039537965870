"""A scan of the same head with other slices, as an operator on the thin volume of the first scan."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from forward_models.grids import SliceGrid, same_field_of_view
from forward_models.lattices import Lattice, LatticeResampling
from forward_models.profiles import Gaussian, SliceProfile
from forward_models.selection import along, slice_selection

COVERED = 0.98  # share of a voxel's weight that must lie in the field of view of the thin volume
COARSER = 1.1  # in-plane voxels up to this many times those of the thin volume are read off as they are
NORM_MARGIN = 2.5  # interpolation beyond an oblique edge amplifies: up to twofold for 30 voxels, less for more

Weights = tuple[Float64[Tensor, "i u"] | None, Float64[Tensor, "j v"] | None, Float64[Tensor, "thick thin"]]


@dataclass(frozen=True, eq=False)
class ScanElsewhere:
    """Slices of another scan from the thin volume x of the first: y = M P W R x.

    R interpolates x (cubic B-splines, world mm) at thin samples along the other scan's own axes; W is its slice
    selection, P the same in plane where its voxels are larger than those of x. M leaves out, as zeros, every voxel of
    the other scan that sees more than 2 % of its weight outside the field of view of x: nothing is known there.

    Attributes:
        resampling: R.
        weights: P along the first two axes of the other scan, None where its voxels are fine enough; then W.
        counted: M, 1 or 0 for every voxel of the other scan.
    """

    resampling: LatticeResampling
    weights: Weights
    counted: Float[Tensor, "i j thick"]

    def domain_shape(self, range_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of x for a y of shape `range_shape`, batch dimensions included."""
        if range_shape[-3:] != tuple(self.counted.shape):
            raise ValueError(f"slices of shape {range_shape} are not the {tuple(self.counted.shape)} of this scan")
        return (*range_shape[:-3], *self.resampling.source.shape)

    def apply(self, x: Float[Tensor, "*batch a b thin"]) -> Float[Tensor, "*batch i j thick"]:
        """What the other scan would measure of the thin volume x."""
        return self.counted.to(x) * selected(self.weights, self.resampling.apply(x))

    def adjoint(self, y: Float[Tensor, "*batch i j thick"]) -> Float[Tensor, "*batch a b thin"]:
        """The transpose of `apply`."""
        y = self.counted.to(y) * y
        for axis, weights in zip((-3, -2, -1), self.weights, strict=True):
            y = y if weights is None else along(axis, weights.mT, y)
        return self.resampling.adjoint(y)

    @property
    def share_counted(self) -> float:
        """Of the voxels of the other scan, those that the thin volume can explain."""
        return float(self.counted.mean())

    @cached_property
    def squared_norm(self) -> float:
        """At least the largest eigenvalue of the operator's adjoint times itself."""
        volume, fine = (math.prod(each.voxel_mm) for each in (self.resampling.source, self.resampling.target))
        norms = [float(torch.linalg.matrix_norm(weights, ord=2)) for weights in self.weights if weights is not None]
        return NORM_MARGIN * volume / fine * math.prod(norms) ** 2


def scan_elsewhere(
    thin: Lattice, slices: Lattice, profile: SliceProfile, resolved_mm: tuple[float, float] | None = None
) -> ScanElsewhere:
    """The operator from a thin volume on `thin` to the thick slices on `slices`, which are stacked along its last axis.

    Args:
        thin: of the first scan.
        slices: voxels of the other scan.
        profile: of its slices.
        resolved_mm: its true voxel sizes in plane, where the scanner interpolated.

    Raises:
        InputRefused: the two are turned against each other in a way that cannot be resampled in three passes.
    """
    sizes = LatticeResampling(thin, slices).matching_mm
    grids = [SliceGrid(count, mm) for count, mm in zip(slices.shape, slices.voxel_mm, strict=True)]
    true_mm = resolved_mm or slices.voxel_mm[:2]
    fine, weights = [], []
    for grid, size, own in zip(grids[:2], sizes[:2], true_mm, strict=True):
        coarser = own > COARSER * size
        fine.append(same_field_of_view(grid, size).extended(1) if coarser else grid)
        weights.append(slice_selection(grid, fine[-1], Gaussian(own)).weights if coarser else None)
    thick = grids[2]
    fine.append(same_field_of_view(thick, min(sizes[2], thick.spacing_mm / 2)))
    selection = slice_selection(thick, fine[-1], profile)
    i, j, k = fine
    sampled = slices.respaced((i.count, j.count, k.count), (i.spacing_mm, j.spacing_mm, k.spacing_mm))
    resampling = LatticeResampling(thin, sampled)
    every = (weights[0], weights[1], selection.weights)
    return ScanElsewhere(resampling, every, _counted(resampling, every))


def selected(weights: Weights, fine: Float[Tensor, "*batch u v w"]) -> Float[Tensor, "*batch i j thick"]:
    """P W of samples along the axes of the other scan."""
    for axis, matrix in zip((-1, -2, -3), reversed(weights), strict=True):
        fine = fine if matrix is None else along(axis, matrix, fine)
    return fine


def _counted(resampling: LatticeResampling, weights: Weights) -> Float[Tensor, "i j thick"]:
    """1 where at least the share `COVERED` of the absolute weights lies inside."""
    i, j, k = weights
    absolute = (None if i is None else i.abs(), None if j is None else j.abs(), k.abs())
    inside = resampling.inside.float()
    covered, whole = (selected(absolute, x) for x in (inside, torch.ones_like(inside)))
    return (covered >= COVERED * whole).float()
