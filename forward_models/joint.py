"""Thin volumes that explain several scans of one head at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from forward_models.elsewhere import ScanElsewhere
from forward_models.progress import Progress, silent
from forward_models.resample import resampling_weights
from forward_models.selection import SliceSelection, along
from forward_models.solve import PRIMAL_STEP, Solution, difference, difference_adjoint, shrink_to_unit_balls
from forward_models.stack import Stack

ITERATIONS = 20
TV_ITERATIONS = 60
PULL = 0.3  # share of the dual step that other scans get; 0.5 and 0.8 leave total variation too little
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


def joint_total_variation(
    stack: Stack, others: Sequence[Measured], *, iterations: int = TV_ITERATIONS, progress: Progress = silent
) -> Solution:
    """The thin volume of least total variation that explains every scan: `total_variation_inverse` for several.

    Each further scan adds a dual variable that pulls A_k x towards y_k until only its noise is left; the first scan
    stays a projection. Because the pull is slow, `jointly_consistent` has the last word.
    """
    y, selection = stack.slices, stack.selection
    weights = [selection.thin.spacing_mm / spacing for spacing in (*stack.in_plane_mm, selection.thin.spacing_mm)]
    dual_step = (1 - PULL) * 0.99 / (PRIMAL_STEP * 4 * sum(w * w for w in weights))
    pull_step = PULL * 0.99 / (PRIMAL_STEP * sum(other.operator.squared_norm for other in others))
    x = selection.consistent(along(-1, resampling_weights(selection.thick, selection.thin), y), y)
    dual = [torch.zeros_like(x) for _ in weights]
    pulls = [torch.zeros_like(other.slices) for other in others]
    ahead, previous = x, x
    for iteration in range(1, iterations + 1):
        for axis, weight in enumerate(weights):
            dual[axis] += dual_step * difference(ahead, axis, weight)
        shrink_to_unit_balls(dual)
        for pull, other in zip(pulls, others, strict=True):
            pull -= pull_step * other.mismatch(ahead)
            pull *= max(0.0, 1 - pull_step * other.tolerance / max(float(pull.norm()), torch.finfo(pull.dtype).tiny))
        steps = [difference_adjoint(dual[axis], axis, weight) for axis, weight in enumerate(weights)]
        steps += [other.operator.adjoint(pull) for pull, other in zip(pulls, others, strict=True)]
        previous, x = x, selection.consistent(x - PRIMAL_STEP * sum(steps), y)
        ahead = 2 * x - previous
        progress("inverse", iteration, iterations)
    change = float((x - previous).norm() / x.norm().clamp_min(torch.finfo(x.dtype).tiny))
    return Solution(jointly_consistent(x, y, selection, others).x, iterations, change)
