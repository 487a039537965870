"""Thin volumes that explain several scans of one head at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from forward_models.elsewhere import ScanElsewhere
from forward_models.selection import SliceSelection

ITERATIONS = 20
DAMPING = 5e-3  # relative to the bound on the largest eigenvalue
SETTLED = 1e-3  # of the gradient, relative to what it was at the start


@dataclass(frozen=True, eq=False)
class Measured:
    """What another scan measured, as consistency sees it.

    Attributes:
        operator: from the thin volume of the first scan.
        slices: of the other one, in the units of the thin volume; voxels that are not counted do not matter.
        noise_sd: standard deviation of their noise, in the same units: closer than that they need not be explained.
    """

    operator: ScanElsewhere
    slices: Float[Tensor, "i j thick"]
    noise_sd: float = 0.0

    @property
    def tolerance(self) -> float:
        """Euclidean norm of the noise in all voxels that count."""
        return self.noise_sd * float(self.operator.counted.sum()) ** 0.5

    def mismatch(self, x: Float[Tensor, "a b thin"]) -> Float[Tensor, "i j thick"]:
        """y - A x where it counts, 0 elsewhere."""
        return self.operator.counted.to(x) * self.slices - self.operator.apply(x)


@dataclass(frozen=True, eq=False)
class JointSolution:
    """A thin volume, and how it was reached.

    Attributes:
        x: (a, b, thin).
        iterations: of conjugate gradients.
        gradient: what is left of it, relative to the start.
    """

    x: Float[Tensor, "a b thin"]
    iterations: int
    gradient: float


def jointly_consistent(
    x: Float[Tensor, "a b thin"],
    y: Float[Tensor, "a b thick"],
    selection: SliceSelection,
    others: Sequence[Measured],
    *,
    iterations: int = ITERATIONS,
    damping: float = DAMPING,
) -> JointSolution:
    """x + d, with the smallest d in the null space of W that makes x explain the other scans too.

    First x is made consistent with the first scan, in closed form. Then N = I - W+ W keeps that, and d minimises
    sum |y_k - A_k (x + N d)|^2 + damping * s |d|^2, s the bound on the norm of sum A_k^T A_k (`squared_norm`), by
    conjugate gradients (Hestenes and Stiefel 1952), until every other scan is explained to its noise (Morozov's
    discrepancy principle), the gradient has fallen to `SETTLED`, or `iterations` are over. The last step is closed form
    again: the first scan stays explained as after `SliceSelection.consistent`. The others are explained as well as
    noise, damping and interpolation between the two lattices allow, which is not exactly.
    """
    x = selection.consistent(x, y)
    strength = damping * sum(other.operator.squared_norm for other in others)

    misses = [other.mismatch(x) for other in others]
    right = sum(other.operator.adjoint(miss) for other, miss in zip(others, misses, strict=True))
    residual = selection.null_space(torch.as_tensor(right))
    energy = start = residual.square().sum()
    d, direction, done = torch.zeros_like(x), residual, 0
    while done < iterations and energy > SETTLED**2 * start and not _explained(misses, others):
        seen = [other.operator.apply(selection.null_space(direction)) for other in others]
        pulled = sum(other.operator.adjoint(part) for other, part in zip(others, seen, strict=True))
        ahead = selection.null_space(torch.as_tensor(pulled)) + strength * direction
        step = energy / (direction * ahead).sum()
        misses = [miss - step * part for miss, part in zip(misses, seen, strict=True)]
        d = d + step * direction
        residual = residual - step * ahead
        energy, previous = residual.square().sum(), energy
        direction = residual + energy / previous * direction
        done += 1
    left = float((energy / start).sqrt()) if start > 0 else 0.0
    return JointSolution(selection.consistent(x + selection.null_space(d), y), done, left)


def _explained(misses: Sequence[Float[Tensor, "..."]], others: Sequence[Measured]) -> bool:
    """Whether no scan is missed by more than its noise."""
    return all(float(miss.norm()) <= other.tolerance for miss, other in zip(misses, others, strict=True))
