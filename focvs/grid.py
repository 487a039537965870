"""The grid that a prior works on, and the way back to the scan's own."""

from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from focvs.consistency import Consistency, smooth
from forward_models import SliceGrid, along, resampling_weights, same_field_of_view, slice_selection
from forward_models.stack import Stack

NEAR = 1.2  # voxels up to this many times larger or smaller than the prior's are used as they are
ALIKE = 1.1  # ... if their longest side is at most this many times the shortest


@dataclass(frozen=True, eq=False)
class PriorGrid:
    """A scan as it is (`own`), and the same scan on the grid of a prior (`stack`)."""

    own: Stack
    stack: Stack

    @property
    def is_own(self) -> bool:
        """Whether the prior works on the scan's own thin grid."""
        return self.stack is self.own

    def carried(
        self, x: Float[Tensor, "a b thin"], consistency: Consistency = smooth, noise_sd: float = 0.0
    ) -> Float[Tensor, "A B Thin"]:
        """From the prior's grid to the scan's own, where a last consistency step is made.

        What the prior's grid cannot hold comes from the scan alone: its finer in-plane detail is part of y - W x, which
        the consistency step spreads smoothly over the thin slices. Then less is negative than what that left.
        """
        y, selection = self.own.slices, self.own.selection

        def explain(x: Float[Tensor, "A B Thin"]) -> Float[Tensor, "A B Thin"]:
            return consistency(x, y, selection, 0.0, noise_sd)

        if not self.is_own:
            for axis, (new, own) in enumerate(zip(thin_grids(self.stack), thin_grids(self.own), strict=True)):
                x = along(axis, resampling_weights(new, own), x)
            x = explain(x)
        return selection.less_negative(x, y, explain)


def prior_grid(stack: Stack, spacing_mm: float) -> PriorGrid:
    """Where a prior of voxels of `spacing_mm` shall work on a scan.

    On the scan's own thin grid where its voxels are much like the prior's, else on one of `spacing_mm` that keeps the
    field of view: then the scan is resampled in plane, and W leads from thin slices of `spacing_mm`.
    """
    spacings = (*stack.in_plane_mm, stack.selection.thin.spacing_mm)
    near = all(1 / NEAR <= own / spacing_mm <= NEAR for own in spacings)
    if near and max(spacings) <= ALIKE * min(spacings):
        return PriorGrid(stack, stack)
    slices = stack.slices
    for axis, own in enumerate(thin_grids(stack)[:2]):
        slices = along(axis, resampling_weights(own, same_field_of_view(own, spacing_mm)), slices)
    thin = same_field_of_view(stack.selection.thin, spacing_mm)
    selection = slice_selection(stack.selection.thick, thin, stack.selection.profile)
    resolved = tuple(min(kept, n) for kept, n in zip(stack.resolved, slices.shape[:2], strict=True))
    there = replace(
        stack,
        slices=slices,
        in_plane_mm=(spacing_mm, spacing_mm),
        selection=selection,
        resolved=(resolved[0], resolved[1]),
    )
    return PriorGrid(stack, there)


def thin_grids(stack: Stack) -> tuple[SliceGrid, SliceGrid, SliceGrid]:
    """Of the thin volume, along a, b and z."""
    a, b = (SliceGrid(n, mm) for n, mm in zip(stack.slices.shape[:2], stack.in_plane_mm, strict=True))
    return a, b, stack.selection.thin
