"""Training pairs from the scan itself: in-plane patches, and what thick slices would make of them."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from eclare.config import EclareConfig
from forward_models import InputRefused, SliceGrid, extended_weights, margin_for, resample, thin_grid_for
from forward_models.grids import same_field_of_view
from forward_models.stack import Stack

MIN_PATCH_SLICES = 4
SAME_SPACING = 0.01  # relative; voxels closer in size than this count as equal
GRADIENT_WINDOW = 5
STRIDE = 8  # voxels between the windows that are weighed; those drawn lie anywhere


@dataclass(frozen=True, eq=False)
class Patches:
    """Pairs of patches: thick slices made from in-plane voxels, and those voxels.

    Attributes:
        thick: (batch, 2 * neighbours + 1, patch_slices, width), input of the network; the patch itself in the middle.
        thin: (batch, 1, n, width), what it should give.
    """

    thick: Float[Tensor, "batch near thick width"]
    thin: Float[Tensor, "batch 1 thin width"]


@dataclass(frozen=True, eq=False)
class _Images:
    """Slices whose rows run along the axis to be degraded.

    Attributes:
        extended: (slice, rows + 2 * margin, width), edges repeated.
        windows: (slice, down, across), how many STRIDE-th windows there are.
        learned, judged: weight of every window, flat and on the CPU: to learn from, and to judge by.
    """

    extended: Float[Tensor, "slice rows width"]
    windows: tuple[int, int, int]
    learned: Float[Tensor, " window"]
    judged: Float[Tensor, " window"]


class PatchSource:
    """Draws patches from the in-plane slices of a volume.

    Both in-plane axes take the part of the slice normal in turn. The thick half of a pair is made by the operator that
    relates the scan to its thin volume, W, on voxels extended by the margin that the slice profile reaches. The slice
    normal takes the part of the in-plane axis: neighbouring slices are as far apart as its voxels.

    Args:
        volume: (a, b, slices), the slices of the scan itself or a thin volume made from them.
        slices: where they lie.
        stack: the scan, for voxel sizes and slice selection.
        config: sizes of a patch, and the share of slices that is held out.

    Raises:
        InputRefused: the slices are too small in plane to hold a patch.
    """

    def __init__(
        self, volume: Float[Tensor, "a b slices"], slices: SliceGrid, stack: Stack, config: EclareConfig
    ) -> None:
        selection, thin_mm = stack.selection, stack.selection.thin.spacing_mm
        images = [
            _turned(rows_and_width, spacing_mm, slices, thin_mm, config.neighbours)
            for rows_and_width, spacing_mm in zip((volume, volume.transpose(0, 1)), stack.in_plane_mm, strict=True)
        ]
        extent = min(image.shape[1] for image, _ in images) * thin_mm
        self.thick = patch_grid(extent, selection.thick.spacing_mm, thin_mm, config.patch_slices)
        self.thin = thin_grid_for(self.thick, thin_mm)
        self._neighbours = config.neighbours
        self._width = min(config.patch_width, *volume.shape[:2])
        self._margin = margin_for(selection.profile, thin_mm)
        weights = extended_weights(self.thick, self.thin, selection.profile, self._margin)
        self._weights = torch.from_numpy(weights).to(volume)
        self._directions = [
            self._prepared(image, _held_out(grid, selection.thick, config.held_out)) for image, grid in images
        ]

    def draw(self, batch: int, *, generator: torch.Generator, held_out: bool = False) -> Patches:
        """A batch of pairs, half of them along each in-plane axis, flipped at random along all three axes."""
        extended = torch.stack(
            [
                window
                for direction, images in enumerate(self._directions)
                for window in self._windows(images, (batch + direction) // 2, held_out, generator)
            ]
        )
        flips = torch.rand(batch, 3, generator=generator).to(extended.device) < 0.5
        for axis in (1, 2, 3):
            extended = torch.where(flips[:, axis - 1, None, None, None], extended.flip(axis), extended)
        middle = extended[:, self._neighbours, None]
        thin = middle[:, :, self._margin : self._margin + self.thin.count]
        return Patches(thick=self._weights @ extended, thin=thin)

    def _prepared(self, image: Float[Tensor, "slice rows width"], held_out: Bool[Tensor, " slice"]) -> _Images:
        weight = _window_weights(image, self.thin.count, self._width).cpu()
        down, across = weight.shape[1:]
        return _Images(
            F.pad(image[:, None], (0, 0, self._margin, self._margin), mode="replicate")[:, 0],
            (len(weight), down, across),
            learned=_among(weight, ~held_out),
            judged=_among(weight, held_out),
        )

    def _windows(
        self, images: _Images, count: int, held_out: bool, generator: torch.Generator
    ) -> list[Float[Tensor, "near rows width"]]:
        """`count` windows with their neighbours, drawn in proportion to their weight."""
        weight = images.judged if held_out else images.learned
        drawn = torch.multinomial(weight, count, replacement=True, generator=generator)
        jitter = torch.randint(STRIDE, (count, 2), generator=generator)
        length, last = self.thin.count + 2 * self._margin, images.extended.shape[0] - 1
        windows = []
        for place, (down, across) in zip(drawn.tolist(), jitter.tolist(), strict=True):
            index, row, column = (int(i) for i in np.unravel_index(place, images.windows))
            row = min(row * STRIDE + down, images.extended.shape[1] - length)
            column = min(column * STRIDE + across, images.extended.shape[2] - self._width)
            near = [min(max(index + i, 0), last) for i in range(-self._neighbours, self._neighbours + 1)]
            windows.append(images.extended[near, row : row + length, column : column + self._width])
        return windows


def patch_grid(extent_mm: float, spacing_mm: float, thin_mm: float, patch_slices: int) -> SliceGrid:
    """The thick slices of one patch: `patch_slices`, or as many as fit into the image.

    Raises:
        InputRefused: fewer than four slices fit.
    """
    fitting = min(patch_slices, int(extent_mm / spacing_mm))
    while fitting >= MIN_PATCH_SLICES:
        grid = SliceGrid(fitting, spacing_mm)
        if thin_grid_for(grid, thin_mm).count * thin_mm <= extent_mm + 1e-6:
            return grid
        fitting -= 1
    raise InputRefused(
        f"slices measure {extent_mm:.4g} mm in plane, less than {MIN_PATCH_SLICES} slice spacings of "
        f"{spacing_mm:.4g} mm; too little for eclare to learn from; use --preset instant, or --method inverse or cubic"
    )


def _turned(
    volume: Float[Tensor, "rows width slices"], in_plane_mm: float, slices: SliceGrid, thin_mm: float, neighbours: int
) -> tuple[Float[Tensor, "slice n width"], SliceGrid]:
    """Slices with rows at the spacing of the thin slices they stand for, and where the slices lie.

    Where neighbours matter, the slices are as far apart as the voxels that they stand for.
    """
    if neighbours and not _same(slices.spacing_mm, in_plane_mm):
        volume, slices = resample(volume, slices.spacing_mm, in_plane_mm), same_field_of_view(slices, in_plane_mm)
    if not _same(in_plane_mm, thin_mm):
        volume = resample(volume, in_plane_mm, thin_mm, axis=0)
    return volume.movedim(-1, 0), slices


def _same(spacing_mm: float, other_mm: float) -> bool:
    return abs(spacing_mm / other_mm - 1) < SAME_SPACING


def _held_out(slices: SliceGrid, thick: SliceGrid, share: float) -> Bool[Tensor, " slice"]:
    """Which slices belong to the thick ones that are kept from training, spread over the stack."""
    kept = round(share * thick.count)
    chosen = ((np.arange(kept) + 0.5) * thick.count / max(kept, 1)).astype(int)
    nearest = np.floor((slices.centres_mm - thick.first_mm) / thick.spacing_mm + 0.5)
    return torch.from_numpy(np.isin(nearest, chosen))


def _window_weights(
    images: Float[Tensor, "slice rows width"], length: int, width: int
) -> Float[Tensor, "slice down across"]:
    """Mean gradient strength of every STRIDE-th window of `length` x `width`."""
    return torch.stack(
        [F.avg_pool2d(_gradient_strength(image)[None], (length, width), stride=STRIDE)[0] for image in images]
    )


def _among(weight: Float[Tensor, "slice down across"], allowed: Bool[Tensor, " slice"]) -> Float[Tensor, " window"]:
    """The weights of windows in allowed slices, 0 elsewhere, flat."""
    if not allowed.any():  # nothing is held out: judged by what it learns from
        allowed = ~allowed
    among = weight * allowed[:, None, None]
    if among.sum() <= 0:  # constant slices: every window is as good as any other
        among = allowed[:, None, None].expand_as(weight).float()
    return among.flatten()


def _gradient_strength(image: Float[Tensor, "rows width"]) -> Float[Tensor, "rows width"]:
    """Square root of the gradient magnitude of the smoothed image: where there is something to learn."""
    smooth = F.avg_pool2d(image[None], GRADIENT_WINDOW, stride=1, padding=GRADIENT_WINDOW // 2)[0]
    rows, columns = (smooth.diff(dim=axis, append=smooth.narrow(axis, -1, 1)) for axis in (0, 1))
    return torch.hypot(rows, columns).sqrt()
