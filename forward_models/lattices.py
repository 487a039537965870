"""Voxels placed in the world, and images carried from one such lattice to another, however they are turned."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from forward_models.errors import InputRefused
from forward_models.selection import along

CONTINUED = 4  # voxels that the line at either end is followed for, before its value stays
STRAIGHT = 1e-4  # voxels; lines that drift by less over the whole volume count as parallel
LEAST_COSINE = 0.5  # of the angle between axes that belong to one another
CHUNK = 1 << 18  # samples worked on at once: fits the cache


@dataclass(frozen=True, eq=False)
class Lattice:
    """Voxel centres in the world.

    Attributes:
        shape: voxels along each axis.
        affine: voxel indices to world mm, float64, axes at right angles.
    """

    shape: tuple[int, int, int]
    affine: Float64[np.ndarray, "4 4"]

    @property
    def voxel_mm(self) -> tuple[float, float, float]:
        a, b, c = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(a), float(b), float(c)

    @property
    def directions(self) -> Float64[np.ndarray, "3 3"]:
        """Unit vectors in the world along each axis, as columns."""
        return self.affine[:3, :3] / self.voxel_mm

    @property
    def middle(self) -> Float64[np.ndarray, " 3"]:
        """Of the field of view, in world mm."""
        return self.affine[:3, :3] @ ((np.array(self.shape) - 1) / 2) + self.affine[:3, 3]

    def moved(self, motion: Float64[np.ndarray, "4 4"]) -> "Lattice":
        """The same voxels after a rigid motion of the world."""
        return Lattice(self.shape, motion @ self.affine)

    def respaced(self, counts: tuple[int, int, int], voxel_mm: tuple[float, float, float]) -> "Lattice":
        """Voxels of other numbers and sizes around the same middle."""
        affine = np.eye(4)
        affine[:3, :3] = self.directions * voxel_mm
        affine[:3, 3] = self.middle - affine[:3, :3] @ ((np.array(counts) - 1) / 2)
        return Lattice(counts, affine)


@dataclass(frozen=True, eq=False)
class LatticeResampling:
    """Cubic B-spline interpolation of an image on `source` at the voxel centres of `target`, as a linear operator.

    One pass per axis (Catmull and Smith 1980, here three), each a shift of lines by an amount that changes from line
    to line, so the adjoint is as cheap as the operator and as exact. Beyond the source its outermost samples are
    continued along a line for `CONTINUED` voxels; `inside` says where not to trust them.
    """

    source: Lattice
    target: Lattice

    def __post_init__(self) -> None:
        cosines = np.abs(self.source.directions.T @ self.target.directions)
        minor = np.linalg.inv(self._to_source[0])[0, 0] * self._to_source[0][0, 0]
        if min(cosines[axis, i] for i, axis in enumerate(self._axes)) < LEAST_COSINE or abs(minor) < LEAST_COSINE:
            raise InputRefused("turned against the first scan by about 45 degrees about two axes; resample it first")

    def apply(self, x: Float[Tensor, "*batch a b c"]) -> Float[Tensor, "*batch i j k"]:
        """The image read off at the target's voxel centres."""
        if x.dim() > 3:
            return torch.stack([self.apply(element) for element in x])
        x = x.permute(self._axes)
        for step in self._passes:
            x = step.apply(x)
        return x

    def adjoint(self, y: Float[Tensor, "*batch i j k"]) -> Float[Tensor, "*batch a b c"]:
        """The transpose of `apply`."""
        if y.dim() > 3:
            return torch.stack([self.adjoint(element) for element in y])
        for step in reversed(self._passes):
            y = step.adjoint(y)
        return y.permute(tuple(np.argsort(self._axes).tolist()))

    @cached_property
    def inside(self) -> Bool[Tensor, "i j k"]:
        """Which voxel centres of the target lie in the field of view of the source: half a voxel beyond its centres."""
        matrix, offset = self._to_source
        indices = [torch.arange(n, dtype=torch.float64) for n in self.target.shape]
        result = torch.ones(self.target.shape, dtype=torch.bool)
        for row, start, axis in zip(matrix, offset, self._axes, strict=True):
            i, j, k = (float(step) * index for step, index in zip(row, indices, strict=True))
            position = float(start) + i[:, None, None] + j[:, None] + k
            result &= (position >= -0.5 - STRAIGHT) & (position <= self.source.shape[axis] - 0.5 + STRAIGHT)
        return result

    @property
    def matching_mm(self) -> tuple[float, float, float]:
        """Voxel sizes of the source along those of its axes that are closest to the axes of the target."""
        first, second, third = (self.source.voxel_mm[axis] for axis in self._axes)
        return first, second, third

    @cached_property
    def _axes(self) -> tuple[int, int, int]:
        """Axes of the source in the order of those of the target that they are closest to."""
        cosines = np.abs(self.source.directions.T @ self.target.directions)
        orders = [(a, b, c) for a, b, c in permutations(range(3))]
        return max(orders, key=lambda axes: sum(cosines[axis, i] ** 2 for i, axis in enumerate(axes)))

    @cached_property
    def _to_source(self) -> tuple[Float64[np.ndarray, "3 3"], Float64[np.ndarray, " 3"]]:
        """Indices of the target to indices of the source, the latter in the order of `_axes`."""
        affine = np.linalg.solve(self.source.affine, self.target.affine)[[*self._axes]]
        return affine[:, :3], affine[:, 3]

    @cached_property
    def _passes(self) -> tuple["_Pass", "_Pass", "_Pass"]:
        """With s the indices of the source and t those of the target: s0(t0, s1, s2), s1(t0, t1, s2), s2(t0, t1, t2).

        All follow from s = M t + m by elimination.
        """
        m, offset = self._to_source
        inverse = np.linalg.inv(m)
        first = np.array([1.0, -inverse[0, 1], -inverse[0, 2]]) / inverse[0, 0]
        start = offset[0] - first[1:] @ offset[1:]
        second = np.array([*(m[1, :2] - m[1, 2] / m[2, 2] * m[2, :2]), m[1, 2] / m[2, 2]])
        sizes = [self.source.shape[axis] for axis in self._axes]
        rows = ((first, start), (second, offset[1] - second[2] * offset[2]), (m[2], offset[2]))
        return tuple(  # type: ignore[return-value]
            _Pass(axis, sizes[axis], self.target.shape[axis], tuple(row.tolist()), float(constant))
            for axis, (row, constant) in enumerate(rows)
        )


@dataclass(frozen=True, eq=False)
class _Pass:
    """Resampling along one axis, at positions slope . (i, j, k) + offset in voxels; (i, j, k) counts the result."""

    axis: int
    source: int
    target: int
    slopes: tuple[float, float, float]
    offset: float

    def apply(self, x: Float[Tensor, "a b c"]) -> Float[Tensor, "i j k"]:
        if self._parallel(x.shape):
            return along(self.axis, self._matrix, x)
        lines = along(self.axis, self._coefficients, x).movedim(self.axis, -1)
        parts = []
        for rows in self._chunks(lines.shape[0], lines.shape[1]):
            first, weights = self._taps(rows, lines.shape[1])
            near = lines[rows.start : rows.stop]
            terms = [w.to(x) * near.gather(-1, (first + q).to(x.device)) for q, w in enumerate(weights)]
            parts.append(terms[0] + terms[1] + terms[2] + terms[3])
        return torch.cat(parts).movedim(-1, self.axis)

    def adjoint(self, y: Float[Tensor, "i j k"]) -> Float[Tensor, "a b c"]:
        if self._parallel(y.shape):
            return along(self.axis, self._matrix.mT, y)
        lines = y.movedim(self.axis, -1)
        spread = lines.new_zeros(*lines.shape[:2], self._coefficients.shape[0])
        for rows in self._chunks(lines.shape[0], lines.shape[1]):
            first, weights = self._taps(rows, lines.shape[1])
            near, to = lines[rows.start : rows.stop], spread[rows.start : rows.stop]
            for q, w in enumerate(weights):
                to.scatter_add_(-1, (first + q).to(y.device), w.to(y) * near)
        return along(self.axis, self._coefficients.mT, spread.movedim(-1, self.axis))

    def _parallel(self, shape: torch.Size) -> bool:
        """Whether all lines are read off at the same positions."""
        drift = sum(abs(self.slopes[i]) * shape[i] for i in range(3) if i != self.axis)
        return drift < STRAIGHT

    @cached_property
    def _matrix(self) -> Float64[Tensor, "target source"]:
        """The pass for parallel lines."""
        first, weights = self._taps(range(1), 1)
        read = torch.zeros(self.target, self._coefficients.shape[0], dtype=torch.float64)
        for q, w in enumerate(weights):
            read.scatter_(-1, first[0, 0, :, None] + q, w[0, 0, :, None])
        return read @ self._coefficients

    @cached_property
    def _coefficients(self) -> Float64[Tensor, "extended source"]:
        """From samples to the coefficients of the natural cubic B-spline through them and its straight continuation."""
        n = self.source
        basis = np.zeros((n + 2, n + 2))  # coefficients -1 .. n
        for k in range(n):
            basis[k + 1, k : k + 3] = 1 / 6, 4 / 6, 1 / 6
        basis[0, :3] = basis[-1, -3:] = 1, -2, 1  # no curvature at the ends
        inner = np.linalg.inv(basis)[:, 1:-1]
        steps = np.arange(1, CONTINUED + 1)[:, None]
        before = inner[:1] - steps[::-1] * (inner[1:2] - inner[:1])
        after = inner[-1:] + steps * (inner[-1:] - inner[-2:-1])
        return torch.from_numpy(np.concatenate([before, inner, after]))

    def _chunks(self, rows: int, lines: int) -> Iterator[range]:
        at_once = max(1, CHUNK // (lines * self.target))
        yield from (range(start, min(start + at_once, rows)) for start in range(0, rows, at_once))

    def _taps(
        self, rows: range, lines: int
    ) -> tuple[Int64[Tensor, "rows lines target"], tuple[Float64[Tensor, "rows lines target"], ...]]:
        """The first of four coefficients that count at every position, and their weights."""
        across = [slope for i, slope in enumerate(self.slopes) if i != self.axis]
        row, line, place = (torch.arange(n.start, n.stop).double() for n in (rows, range(lines), range(self.target)))
        drift = across[0] * row[:, None] + across[1] * line
        position = self.offset + drift[..., None] + self.slopes[self.axis] * place
        position = position.clamp(-CONTINUED, self.source - 1 + CONTINUED) + CONTINUED
        whole = position.floor().clamp_max(self.source - 2 + 2 * CONTINUED)
        t = position - whole
        s = 1 - t
        weights = (s**3 / 6, 2 / 3 - t**2 * (1 - t / 2), 2 / 3 - s**2 * (1 - s / 2), t**3 / 6)
        return whole.long(), weights
