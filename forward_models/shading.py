"""Smooth shading between two scans of one head, as coils and positions leave it, and what differs beside it.

Slices that lie between those of the first scan hardly see a comb at the slice spacing: a gaussian of 4 mm every 4.8 mm
passes 8 % of it. So to explain one per cent of shading, consistency would add a comb of ten.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from scipy.ndimage import gaussian_filter, map_coordinates
from torch import Tensor

from forward_models.alignment import common_head, comparable, head_of, places, world_points
from forward_models.lattices import Lattice
from forward_models.placed import PlacedStack
from forward_models.profiles import FWHM_PER_SIGMA

# full width over the larger slice spacing: 4 % of half a cycle per spacing passes, profiles included
BLUR_SPACINGS = 1.5
SMOOTH_MM = 20.0  # full width over which shading is averaged; 40 leaves bands, 12 begins to follow anatomy
ROUNDS = 2  # once more on what is left (twicing, Tukey 1977): at the edge of the head a mean leans inwards
BACKGROUND = 0.05  # of the intensity of the head: with this much, outside, the ratio tends to 1


@dataclass(frozen=True, eq=False)
class Shading:
    """How the intensities of another scan differ from those of the first, one gain aside.

    Attributes:
        field: factor at every voxel of the other scan.
        strength: its standard deviation in the head.
        disagreement: root mean square of what differs in the head beside it, in the units of the other scan's file.
        share: the same, relative to the root mean square of the head.
    """

    field: Float[Tensor, "i j thick"]
    strength: float
    disagreement: float
    share: float

    def undone(self, slices: Float[Tensor, "i j thick"]) -> Float[Tensor, "i j thick"]:
        """The other scan with the shading of the first."""
        return slices / self.field.to(slices)


def shading(first: PlacedStack, other: PlacedStack, gain: float) -> Shading:
    """The ratio of local means, other / (gain * first), over the head that both see, each blurred to what both hold.

    Means do not mind noise, nor small misplacement, as the slope of one scan on the other would.

    Raises:
        InputRefused: the fields of view hardly overlap.
    """
    spacing_mm = max(each.stack.selection.thick.spacing_mm for each in (first, other))
    fixed, moving = comparable(first, other, BLUR_SPACINGS * spacing_mm)
    index, inside = places(fixed.lattice, world_points(moving.lattice))
    own, seen = gain * map_coordinates(fixed.data, index, order=1, mode="nearest"), moving.data.ravel()
    both = common_head(head_of(own), seen, inside, moving.lattice)
    level = BACKGROUND * own[both].mean()
    local = _local_mean(np.where(both, seen, 0.0), moving.lattice) + level
    field = np.ones(moving.lattice.shape)
    for _ in range(ROUNDS):
        expected = _local_mean(np.where(both, field.ravel() * own, 0.0), moving.lattice)
        field = field * local / (expected + level)
    inner = field.ravel()[both]
    left = float(np.sqrt(np.mean((seen[both] / inner - own[both]) ** 2)))
    at_slices, _ = places(moving.lattice, world_points(other.slices))
    ratio = map_coordinates(field, at_slices, order=1, mode="nearest").reshape(other.slices.shape)
    share = left / float(np.sqrt(np.mean(own[both] ** 2)))
    return Shading(torch.from_numpy(ratio).float(), float(inner.std()), left, share)


def _local_mean(values: Float64[np.ndarray, " n"], lattice: Lattice) -> Float64[np.ndarray, "a b z"]:
    """Over `SMOOTH_MM`; nothing lies beyond the edges."""
    sigmas = [SMOOTH_MM / FWHM_PER_SIGMA / mm for mm in lattice.voxel_mm]
    return gaussian_filter(values.reshape(lattice.shape), sigmas, mode="constant")
