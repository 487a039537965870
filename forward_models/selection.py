"""The slice-selection operator y = W x and its inverses.

W acts along one axis and is small, so it is held as a dense float64 matrix; no inverse needs iteration.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from forward_models.errors import InputRefused
from forward_models.grids import SliceGrid
from forward_models.profiles import SliceProfile, integrate, thin_to_thick

OVERLAP_DAMPING = 1e-3  # relative to the largest eigenvalue of W C W^T
NEGATIVE_ROUNDS = 4  # the first one does most
NO_MAGNITUDE = 1e-3  # of the largest value, below zero; the linear continuation of W leaves less

Explain = Callable[[Tensor], Tensor]


def along(axis: int, matrix: Float[Tensor, "m n"], x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Multiply every line of `x` along `axis` by `matrix`, in the dtype and on the device of `x`."""
    if x.shape[axis] != matrix.shape[1]:
        raise ValueError(f"axis {axis} of shape {tuple(x.shape)} has {x.shape[axis]} samples, not {matrix.shape[1]}")
    lines = x.movedim(axis, -1)
    return (lines @ matrix.to(x).mT).movedim(-1, axis)


@dataclass(frozen=True, eq=False)
class SliceSelection:
    """Thick slices from thin ones: y = W x along `axis`, nothing in plane.

    Attributes:
        weights: W, (n_thick, n_thin), dimensionless, rows sum to one.
        axis: the axis of x and y along which slices are stacked.
        thick, thin: where rows and columns lie.
        profile: what one thick slice sees of the head.
    """

    weights: Float64[Tensor, "thick thin"]
    thick: SliceGrid
    thin: SliceGrid
    profile: SliceProfile
    axis: int = -1

    def __repr__(self) -> str:
        return (
            f"SliceSelection({self.thick.count} slices of {self.profile.fwhm_mm:.3g} mm every "
            f"{self.thick.spacing_mm:.3g} mm <- {self.thin.count} of {self.thin.spacing_mm:.3g} mm, "
            f"{self.profile.name})"
        )

    def domain_shape(self, thick_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of x for a y of shape `thick_shape`."""
        shape = list(thick_shape)
        shape[self.axis] = self.thin.count
        return tuple(shape)

    def apply(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """y = W x: what the scanner would measure of the thin volume x."""
        return along(self.axis, self.weights, x)

    def adjoint(self, y: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """W^T y."""
        return along(self.axis, self.weights.mT, y)

    def pseudo_inverse(self, y: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """W+ y, the smallest x with W x = y (Moore-Penrose)."""
        return along(self.axis, self._pseudo_inverse, y)

    def smooth_inverse(self, y: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """S y, the smoothest x with W x = y.

        S = C W^T (W C W^T)^-1 minimises ||x||^2 + l^2 ||x'||^2 subject to W x = y, with l one slice spacing. Exactly as
        consistent as W+, but it does not leave the gaps between slices empty.
        """
        return along(self.axis, self._smooth_inverse, y)

    def damped_inverse(self, y: Float[Tensor, "..."], damping: float) -> Float[Tensor, "..."]:
        """C W^T (W C W^T + damping * s I)^-1 y, with s the largest eigenvalue of W C W^T.

        Tends to `smooth_inverse` as `damping` tends to zero; keeps noise bounded where slices overlap.
        """
        return along(self.axis, self._smoothed_adjoint_over(damping), y)

    def consistent(self, x: Float[Tensor, "..."], y: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """x + S (y - W x): keeps what the scan says nothing about, replaces what it measured.

        The result satisfies W x = y to rounding. Where slices overlap, S is damped (`damping`), and at most the share
        `mismatch_left` of the mismatch y - W x stays.
        """
        return x + along(self.axis, self._consistency_inverse, y - self.apply(x))

    def less_negative(
        self, x: Float[Tensor, "..."], y: Float[Tensor, "..."], explain: Explain | None = None
    ) -> Float[Tensor, "..."]:
        """x, which explains y, with less of it below zero where y, being a magnitude, is not.

        Projections onto x >= 0 and onto what explains y take turns, the latter last (von Neumann): y stays explained,
        and what explaining it needs below zero stays too. The truth lies in both sets, so the result is no farther from
        it, but for the metric of S. x as it is where y is no magnitude, and where slices overlap: there every round
        would undo some of the damping.

        Args:
            x: a thin volume.
            y: the scan.
            explain: makes a thin volume explain y; `consistent` by default.
        """
        if self.damping or y.min() < -NO_MAGNITUDE * y.max():
            return x
        for _ in range(NEGATIVE_ROUNDS):
            if x.min() >= 0:
                break
            x = x.clamp(min=0)
            x = self.consistent(x, y) if explain is None else explain(x)
        return x

    def null_space(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """(I - W+ W) x, the part of x that the scan says nothing about."""
        return x - self.pseudo_inverse(self.apply(x))

    @cached_property
    def condition(self) -> float:
        """Largest over smallest singular value of W: about 1 for separate slices, large when slices overlap."""
        return float(torch.linalg.cond(self.weights))

    @cached_property
    def measured_share(self) -> Float64[Tensor, " thin"]:
        """Of each thin slice, the share of variance that y fixes: the diagonal of W+ W, from 0 to 1.

        For thin slices that are taken to be unrelated; the mean is n_thick / n_thin.
        """
        return (self._pseudo_inverse @ self.weights).diagonal()

    @property
    def damping(self) -> float:
        """Damping of `consistent`: none for separate slices, `OVERLAP_DAMPING` for overlapping ones."""
        overlap = self.profile.fwhm_mm > self.thick.spacing_mm * (1 + 1e-3)
        return OVERLAP_DAMPING if overlap else 0.0

    @cached_property
    def mismatch_left(self) -> float:
        """Largest share of y - W x that `consistent` leaves, over all patterns along the stack: 0 without damping."""
        left = torch.eye(self.thick.count, dtype=torch.float64) - self.weights @ self._consistency_inverse
        return float(torch.linalg.matrix_norm(left, ord=2)) if self.damping else 0.0

    @cached_property
    def _pseudo_inverse(self) -> Float64[Tensor, "thin thick"]:
        return torch.linalg.pinv(self.weights)

    @cached_property
    def _smooth_inverse(self) -> Float64[Tensor, "thin thick"]:
        return self._smoothed_adjoint_over(damping=0.0)

    @cached_property
    def _consistency_inverse(self) -> Float64[Tensor, "thin thick"]:
        return self._smoothed_adjoint_over(self.damping)

    def _smoothed_adjoint_over(self, damping: float) -> Float64[Tensor, "thin thick"]:
        smoothed_adjoint = torch.linalg.solve(self._roughness, self.weights.mT)  # C W^T
        gram = self.weights @ smoothed_adjoint
        strength = damping * torch.linalg.eigvalsh(gram)[-1]
        identity = torch.eye(self.thick.count, dtype=torch.float64)
        return torch.linalg.solve(gram + strength * identity, smoothed_adjoint, left=False)

    @cached_property
    def _roughness(self) -> Float64[Tensor, "thin thin"]:
        """C^-1 = I + l^2 D'D, D the first difference."""
        length = self.thick.spacing_mm / self.thin.spacing_mm
        difference = torch.from_numpy(np.diff(np.eye(self.thin.count), axis=0))
        return torch.eye(self.thin.count, dtype=torch.float64) + length**2 * difference.mT @ difference


def slice_selection(thick: SliceGrid, thin: SliceGrid, profile: SliceProfile, axis: int = -1) -> SliceSelection:
    """W for thick slices on `thick`, acting on the thin samples of `thin`.

    Profiles that reach past the ends of the thin grid see its linear continuation (the line fitted to the outermost
    slice thickness), folded into the outer columns. So W needs nothing but the voxels in the file, and constants and
    ramps in mm survive at the ends too.

    Raises:
        InputRefused: a slice centre lies outside the thin grid's field of view, or there are fewer than 2 thin slices.
    """
    if thin.count < 2:
        raise InputRefused(f"at least 2 thin slices are needed, got {thin.count}")
    outside = max(np.abs(thick.centres_mm - thin.middle_mm)) - thin.field_of_view_mm / 2
    if outside > 1e-6:
        raise InputRefused(
            f"slice centres lie up to {outside:.3g} mm outside the {thin.field_of_view_mm:g} mm of the thin volume; "
            "both must cover the same field of view"
        )
    margin = margin_for(profile, thin.spacing_mm)
    fitted = max(2, round(profile.fwhm_mm / thin.spacing_mm))
    weights = extended_weights(thick, thin, profile, margin) @ linear_continuation(thin.count, margin, fitted)
    return SliceSelection(torch.from_numpy(weights), thick, thin, profile, axis)


def margin_for(profile: SliceProfile, thin_mm: float) -> int:
    """Thin samples needed beyond the field of view so that the outermost slice sees its whole profile."""
    return int(np.ceil(profile.half_width_mm / thin_mm)) + 1


def extended_weights(
    thick: SliceGrid, thin: SliceGrid, profile: SliceProfile, margin: int
) -> Float[np.ndarray, "thick extended"]:
    """W on the thin grid extended by `margin` real samples at either end, for patches cut out of a larger image."""
    kernel = thin_to_thick(profile, thin.spacing_mm)
    return integrate(kernel, thick.centres_mm, thin.extended(margin).centres_mm)


def linear_continuation(n: int, margin: int, fitted: int) -> Float[np.ndarray, "extended n"]:
    """Matrix that continues n samples by `margin` at either end, along the line fitted to the outer `fitted`."""
    outer = np.arange(min(fitted, n))
    fit = np.linalg.pinv(np.stack([np.ones(outer.size), outer], axis=1))  # samples -> (level, slope) at the outermost
    beyond = np.zeros((margin, n))
    beyond[:, outer] = fit[0] - np.arange(margin, 0, -1)[:, None] * fit[1]
    return np.concatenate([beyond, np.eye(n), beyond[::-1, ::-1]])
