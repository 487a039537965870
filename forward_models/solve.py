"""Inverses of y = W x that need iteration."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from forward_models.progress import Progress, silent
from forward_models.resample import resampling_weights
from forward_models.selection import along
from forward_models.stack import Stack
from forward_models.timing import seconds_of

ITERATIONS = 60
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


def total_variation_inverse(stack: Stack, *, iterations: int = ITERATIONS, progress: Progress = silent) -> Solution:
    """The thin volume of least total variation that the scan does not contradict: min TV(x) subject to W x = y.

    TV is isotropic in millimetres. Primal-dual iteration (Chambolle and Pock 2011, algorithm 1), started from the cubic
    spline made consistent; the constraint is one small matrix product (`SliceSelection.consistent`), relaxed to the
    stated damping where slices overlap. The number of iterations is fixed: the error against the truth is settled to
    0.05 dB after it (docs/experiments.md), long before the objective is.
    """
    y, selection = stack.slices, stack.selection
    weights = [selection.thin.spacing_mm / spacing for spacing in (*stack.in_plane_mm, selection.thin.spacing_mm)]
    dual_step = 0.99 / (PRIMAL_STEP * 4 * sum(w * w for w in weights))
    x = selection.consistent(along(-1, resampling_weights(selection.thick, selection.thin), y), y)
    dual = [torch.zeros_like(x) for _ in weights]
    ahead, previous = x, x
    for iteration in range(1, iterations + 1):
        for axis, weight in enumerate(weights):
            dual[axis] += dual_step * difference(ahead, axis, weight)
        shrink_to_unit_balls(dual)
        step = sum(difference_adjoint(dual[axis], axis, weight) for axis, weight in enumerate(weights))
        previous, x = x, selection.consistent(x - PRIMAL_STEP * step, y)
        ahead = 2 * x - previous
        progress("inverse", iteration, iterations)
    change = float((x - previous).norm() / x.norm().clamp_min(torch.finfo(x.dtype).tiny))
    return Solution(x, iterations, change)


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
