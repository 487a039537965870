"""Training pairs from the scan itself: in-plane patches, and what thick slices would make of them."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from forward_models import InputRefused, SliceGrid, extended_weights, margin_for, resample, thin_grid_for
from forward_models.stack import Stack

MIN_PATCH_SLICES = 4
SAME_SPACING = 0.01  # relative; closer in-plane voxels and thin slices count as equal
GRADIENT_WINDOW = 5


@dataclass(frozen=True, eq=False)
class Patches:
    """Pairs of patches: thick slices made from in-plane voxels, and those voxels.

    Attributes:
        thick: (batch, 1, patch_slices, width), input of the network.
        thin: (batch, 1, n, width), what it should give.
    """

    thick: Float[Tensor, "batch 1 thick width"]
    thin: Float[Tensor, "batch 1 thin width"]


class PatchSource:
    """Draws patches from the in-plane slices of a stack.

    Both in-plane axes take the part of the slice normal in turn. The thick half of a pair is made by the operator that
    relates the scan to its thin volume, W, on voxels extended by the margin that the slice profile reaches.
    """

    def __init__(self, stack: Stack, indices: Int64[Tensor, " slices"], patch_slices: int, width: int) -> None:
        selection = stack.selection
        images = stack.slices.movedim(-1, 0)[indices]  # (slice, a, b)
        along_a, along_b = (
            _at_thin_spacing(image, spacing, selection.thin.spacing_mm)
            for image, spacing in zip((images, images.mT), stack.in_plane_mm, strict=True)
        )
        self.thick = patch_grid((along_a, along_b), selection.thick.spacing_mm, selection.thin.spacing_mm, patch_slices)
        self.thin = thin_grid_for(self.thick, selection.thin.spacing_mm)
        self._margin = margin_for(selection.profile, self.thin.spacing_mm)
        weights = extended_weights(self.thick, self.thin, selection.profile, self._margin)
        self._weights = torch.from_numpy(weights).to(images)
        self._width = min(width, along_a.shape[2], along_b.shape[2])
        self._directions = [self._prepared(image) for image in (along_a, along_b)]

    def draw(self, batch: int, *, generator: torch.Generator) -> Patches:
        """A batch of pairs, half of them along each in-plane axis, flipped at random both ways."""
        extended = torch.stack(
            [
                window
                for direction, images in enumerate(self._directions)
                for window in self._windows(*images, (batch + direction) // 2, generator)
            ]
        )
        flips = torch.rand(batch, 2, generator=generator).to(extended.device) < 0.5
        for axis in (1, 2):
            flip = flips[:, axis - 1, None, None]
            extended = torch.where(flip, extended.flip(axis), extended)
        thin = extended[:, self._margin : self._margin + self.thin.count]
        return Patches(thick=(self._weights @ extended)[:, None], thin=thin[:, None])

    def _prepared(self, images: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Images extended by the margin, the cumulative weight of every window, and how many fit along each axis."""
        strength = _gradient_strength(images)[:, None]
        weight = F.avg_pool2d(strength, (self.thin.count, self._width), stride=1)[:, 0]
        cumulative = weight.flatten().double().cumsum(0).cpu()
        if cumulative[-1] <= 0:  # a constant image: every window is as good as any other
            cumulative = torch.arange(1, cumulative.numel() + 1, dtype=torch.float64)
        extended = F.pad(images[:, None], (0, 0, self._margin, self._margin), mode="replicate")[:, 0]
        return extended, cumulative, (weight.shape[1], weight.shape[2])

    def _windows(
        self, images: Tensor, cumulative: Tensor, fits: tuple[int, int], count: int, generator: torch.Generator
    ) -> list[Tensor]:
        """`count` windows, drawn in proportion to their weight."""
        drawn = torch.rand(count, generator=generator, dtype=torch.float64) * cumulative[-1]
        places = torch.searchsorted(cumulative, drawn, right=True).clamp_max(cumulative.numel() - 1)
        length = self.thin.count + 2 * self._margin
        windows = []
        for place in places.tolist():
            image, start = divmod(place, fits[0] * fits[1])
            row, column = divmod(start, fits[1])
            windows.append(images[image, row : row + length, column : column + self._width])
        return windows


def patch_grid(
    images: tuple[Float[Tensor, "slice a b"], Float[Tensor, "slice b a"]],
    spacing_mm: float,
    thin_mm: float,
    patch_slices: int,
) -> SliceGrid:
    """The thick slices of one patch: `patch_slices`, or as many as fit into the image.

    Raises:
        InputRefused: fewer than four slices fit.
    """
    extent = min(image.shape[1] for image in images) * thin_mm
    fitting = min(patch_slices, int(extent / spacing_mm))
    while fitting >= MIN_PATCH_SLICES:
        grid = SliceGrid(fitting, spacing_mm)
        if thin_grid_for(grid, thin_mm).count * thin_mm <= extent + 1e-6:
            return grid
        fitting -= 1
    raise InputRefused(
        f"slices measure {extent:.4g} mm in plane, less than {MIN_PATCH_SLICES} slice spacings of {spacing_mm:.4g} mm; "
        "too little for eclare to learn from; use --method inverse or cubic"
    )


def _at_thin_spacing(
    images: Float[Tensor, "slice length width"], spacing_mm: float, thin_mm: float
) -> Float[Tensor, "slice n width"]:
    """In-plane voxels along the axis to be degraded, at the spacing of the thin slices they stand for."""
    if abs(spacing_mm / thin_mm - 1) < SAME_SPACING:
        return images
    return resample(images, spacing_mm, thin_mm, axis=1)


def _gradient_strength(images: Float[Tensor, "slice n width"]) -> Float[Tensor, "slice n width"]:
    """Square root of the gradient magnitude of the smoothed image: where there is something to learn."""
    smooth = F.avg_pool2d(images[:, None], GRADIENT_WINDOW, stride=1, padding=GRADIENT_WINDOW // 2)[:, 0]
    rows, columns = (smooth.diff(dim=axis, append=smooth.narrow(axis, -1, 1)) for axis in (1, 2))
    return torch.hypot(rows, columns).sqrt()
