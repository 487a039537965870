"""Inverses of y = W x that need iteration."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from forward_models.joint import Measured, jointly_consistent
from forward_models.progress import Progress, silent
from forward_models.resample import resampling_weights
from forward_models.selection import along
from forward_models.stack import Stack
from forward_models.timing import seconds_of

ITERATIONS = 60
PULL = 0.3  # share of the dual step that other scans get; 0.5 and 0.8 leave total variation too little
TIMED_VOXELS = 9_000_000  # 36 MB: glibc hands out larger arrays untouched, every time, which takes longer
PRIMAL_STEP = 0.2  # in units of the scaled intensities; 0.1 to 0.3 converge equally fast


@dataclass(frozen=True, eq=False)
class Solution:
    """An iterative answer and how far it was from standing still.

    Attributes:
        x: (a, b, thin).
        iterations: made.
        change: of x in the last iteration, relative to x (Euclidean norms).
    """

    x: Float[Tensor, "a b thin"]
    iterations: int
    change: float


def total_variation_inverse(
    stack: Stack, others: Sequence[Measured] = (), *, iterations: int = ITERATIONS, progress: Progress = silent
) -> Solution:
    """A thin volume of low total variation that explains the scan, and `others` of the same head to their noise.

    TV is isotropic in millimetres. Primal-dual iteration (Chambolle and Pock 2011, algorithm 1) for min TV(x) subject
    to W x = y, started from the cubic spline made consistent. Each further scan adds a dual variable that pulls A_k x
    towards y_k until only its noise is left; because that pull is slow, `jointly_consistent` has the last word.

    Notes:
        A departure: x is made consistent by `SliceSelection.consistent`, one small matrix product, not by the
        Euclidean projection of the algorithm. So it ends where TV is 1 to 2 % above its least, and closer to the
        truth (docs/experiments.md). The number of iterations is fixed: the error is settled to 0.1 dB after it, long
        before the objective is.
    """
    y, selection = stack.slices, stack.selection
    weights = [selection.thin.spacing_mm / spacing for spacing in (*stack.in_plane_mm, selection.thin.spacing_mm)]
    pull_share = PULL if others else 0.0
    dual_step = (1 - pull_share) * 0.99 / (PRIMAL_STEP * 4 * sum(w * w for w in weights))
    pull_step = pull_share * 0.99 / (PRIMAL_STEP * sum(other.operator.squared_norm for other in others) or 1.0)
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
    return Solution(jointly_consistent(x, y, selection, others).x if others else x, iterations, change)


def total_variation_seconds(stack: Stack) -> float:
    """How long `total_variation_inverse` will take here, from a few iterations on a piece of the scan."""
    a, b, _ = stack.slices.shape
    piece = stack.rows(max(2, TIMED_VOXELS // (b * stack.selection.thin.count)))

    def lasting(iterations: int) -> float:
        return seconds_of(lambda: total_variation_inverse(piece, iterations=iterations), stack.slices.device)

    once, twice = lasting(1), lasting(2)
    return a / piece.slices.shape[0] * (once + (ITERATIONS - 1) * max(twice - once, 0.0))


def difference(x: Float[Tensor, "a b z"], axis: int, weight: float) -> Float[Tensor, "a b z"]:
    """Forward difference times `weight`, zero at the end."""
    result = torch.zeros_like(x)
    n = x.shape[axis]
    result.narrow(axis, 0, n - 1).copy_(x.narrow(axis, 1, n - 1) - x.narrow(axis, 0, n - 1)).mul_(weight)
    return result


def difference_adjoint(p: Float[Tensor, "a b z"], axis: int, weight: float) -> Float[Tensor, "a b z"]:
    result = torch.zeros_like(p)
    n = p.shape[axis]
    inner = weight * p.narrow(axis, 0, n - 1)
    result.narrow(axis, 0, n - 1).sub_(inner)
    result.narrow(axis, 1, n - 1).add_(inner)
    return result


def shrink_to_unit_balls(dual: list[Float[Tensor, "a b z"]]) -> None:
    norm = torch.zeros_like(dual[0])
    for p in dual:
        norm.addcmul_(p, p)
    norm.sqrt_().clamp_(min=1)
    for p in dual:
        p.div_(norm)
