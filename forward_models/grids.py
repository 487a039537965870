"""Where slices lie along the slice normal, in millimetres."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from forward_models.errors import InputRefused

MOST_SLICES = 4096  # thin ones; W and its inverses are dense matrices of so many columns
ROUNDING = 1e-3  # samples; spacings in headers are rounded to float32


@dataclass(frozen=True)
class SliceGrid:
    """Evenly spaced slices: `count` centres, `spacing_mm` apart, the stack's middle at `middle_mm`.

    The field of view reaches half a spacing beyond the outer centres.
    """

    count: int
    spacing_mm: float
    middle_mm: float = 0.0

    def __post_init__(self) -> None:
        if self.count < 1 or not self.spacing_mm > 0:
            raise ValueError(f"a grid needs slices and a positive spacing, got {self.count} of {self.spacing_mm} mm")

    @property
    def first_mm(self) -> float:
        return self.middle_mm - (self.count - 1) / 2 * self.spacing_mm

    @property
    def field_of_view_mm(self) -> float:
        return self.count * self.spacing_mm

    @property
    def centres_mm(self) -> Float[np.ndarray, " count"]:
        return self.first_mm + self.spacing_mm * np.arange(self.count)

    def extended(self, margin: int) -> "SliceGrid":
        """The same grid with `margin` more slices at either end."""
        return SliceGrid(self.count + 2 * margin, self.spacing_mm, self.middle_mm)


def same_field_of_view(grid: SliceGrid, spacing_mm: float) -> SliceGrid:
    """The grid of `spacing_mm` that keeps the field of view of `grid`: N = round(K * spacing / h) samples.

    Both fields of view share their middle, so they differ by at most h / 2 in all, a quarter of a sample at either
    end. Half a sample rounds down, also when a header's rounding has made it a little more.
    """
    count = int(np.floor(grid.field_of_view_mm / spacing_mm + 0.5 - ROUNDING))
    return SliceGrid(max(count, 1), spacing_mm, grid.middle_mm)


def thin_grid_for(thick: SliceGrid, spacing_mm: float) -> SliceGrid:
    """The thin grid with slices of exactly `spacing_mm` that keeps the field of view of the thick stack.

    Raises:
        InputRefused: `spacing_mm` is not positive, not smaller than the spacing of the thick slices, or so small that
            the thin slices could not be counted out.
    """
    if not 0 < spacing_mm < thick.spacing_mm:
        raise InputRefused(
            f"thin slices of {spacing_mm:g} mm asked for slices every {thick.spacing_mm:g} mm; "
            f"pass a spacing between 0 and {thick.spacing_mm:g} mm"
        )
    if thick.field_of_view_mm / spacing_mm > MOST_SLICES:
        raise InputRefused(
            f"thin slices of {spacing_mm:g} mm would be {thick.field_of_view_mm / spacing_mm:.0f} of them; expected at "
            f"most {MOST_SLICES}; pass a larger spacing"
        )
    return same_field_of_view(thick, spacing_mm)
