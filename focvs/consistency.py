"""Consistency steps: what a denoised volume becomes in the light of the scan.

Each is a function (x0, y, selection, sigma, noise_sd) -> x0: x0 is what the denoiser made of a state of noise level
sigma, y the scan, noise_sd the standard deviation of the noise in it; all intensities in the units of x0. The sampler
works on the grid of its prior and ends on the scan's own, so it asks for the step of a stack (`StepOn`).
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from forward_models import SliceSelection, along
from forward_models.joint import ITERATIONS, Measured, jointly_consistent
from forward_models.stack import Stack

BISECTIONS = 60  # of an interval of 80, to the rounding of float64
ON_THE_WAY = 1  # conjugate gradients per step while noise is still to come; see docs/experiments-focvs.md

Consistency = Callable[[Tensor, Tensor, SliceSelection, float, float], Tensor]

StepOn = Callable[[Stack], Consistency]
"""The consistency step for a scan, on the grid that it is given on."""


def alone(step: Consistency) -> StepOn:
    """The same step on every grid: that of a scan which nothing else is known beside."""
    return lambda _stack: step


def exact(
    x0: Float[Tensor, "..."], y: Float[Tensor, "..."], selection: SliceSelection, sigma: float, noise_sd: float
) -> Float[Tensor, "..."]:
    """x0 + W+ (y - W x0): the closest volume with W x = y (DDNM, Wang et al. 2022, equation 13)."""
    del sigma, noise_sd
    return x0 + selection.pseudo_inverse(y - selection.apply(x0))


def smooth(
    x0: Float[Tensor, "..."], y: Float[Tensor, "..."], selection: SliceSelection, sigma: float, noise_sd: float
) -> Float[Tensor, "..."]:
    """x0 + S (y - W x0), S = C W^T (W C W^T)^-1: as exact, the correction spread smoothly over one slice spacing.

    Damped where slices overlap, as in `SliceSelection.consistent`.
    """
    del sigma, noise_sd
    return selection.consistent(x0, y)


def unmeasured(
    x0: Float[Tensor, "..."], y: Float[Tensor, "..."], selection: SliceSelection, sigma: float, noise_sd: float
) -> Float[Tensor, "..."]:
    """x0 as it is: sampling from the prior alone."""
    del y, selection, sigma, noise_sd
    return x0


def explaining_all(others: Sequence[Measured], in_full_at: float) -> Consistency:
    """What `smooth` makes of x0, changed as little as makes it explain other scans too (`jointly_consistent`).

    While the state is noisier than `in_full_at`, x0 is a guess that will be made again, and `ON_THE_WAY` conjugate
    gradients have to do.

    Args:
        others: what further scans measured of x0, on the grid of x0.
        in_full_at: noise level at and below which the problem is solved; that of the last step, or higher.
    """

    def step(
        x0: Float[Tensor, "..."], y: Float[Tensor, "..."], selection: SliceSelection, sigma: float, noise_sd: float
    ) -> Float[Tensor, "..."]:
        del noise_sd
        iterations = ON_THE_WAY if sigma > in_full_at else ITERATIONS
        return jointly_consistent(x0, y, selection, others, iterations=iterations).x

    return step


def noise_aware(spread: float) -> Consistency:
    """E[x0 | x, y] for a noisy scan: x0 + W^T (W W^T + (noise_sd / r)^2)^-1 (y - W x0).

    r(sigma) is how far the truth lies from what the denoiser says: r^2 = spread^2 sigma^2 / (spread^2 + sigma^2), exact
    for a prior N(m, spread^2) and the rule of Pi-GDM (Song et al. 2023) otherwise. Per singular value s of W the
    correction is W+ times s^2 / (s^2 + (noise_sd / r)^2): all of it while the state is noisier than the scan, nothing
    of it later on, and singular values that amplify noise, which overlapping slices have, are let go first (the idea of
    DDRM and DDNM+). Without noise it is `exact`.
    """
    if not spread > 0:
        raise ValueError(f"spread is {spread}; expected the prior's standard deviation")

    def step(
        x0: Float[Tensor, "..."], y: Float[Tensor, "..."], selection: SliceSelection, sigma: float, noise_sd: float
    ) -> Float[Tensor, "..."]:
        if noise_sd == 0:
            return exact(x0, y, selection, sigma, noise_sd)
        if sigma == 0:
            return x0
        r_squared = (spread * sigma) ** 2 / (spread**2 + sigma**2)
        return proximal(x0, y, selection, noise_sd**2 / r_squared)

    return step


def noise_matched(
    x0: Float[Tensor, "..."], y: Float[Tensor, "..."], selection: SliceSelection, sigma: float, noise_sd: float
) -> Float[Tensor, "..."]:
    """The proximal step whose root mean square of W x - y is `noise_sd`: x0 as it is where it is less already.

    Morozov's discrepancy principle: the scan is believed as far as its noise allows, whatever the prior's spread. The
    truth itself is off by the noise, and so is every sample of the posterior, in expectation. Singular value s of W
    keeps the share p / (s^2 + p) of the mismatch, one p for all. Without noise it is `exact`.
    """
    if noise_sd == 0:
        return exact(x0, y, selection, sigma, noise_sd)
    values, modes = torch.linalg.eigh(selection.weights @ selection.weights.mT)
    mismatch = along(selection.axis, modes.mT, y - selection.apply(x0)).movedim(selection.axis, -1)
    energy = mismatch.reshape(-1, len(values)).double().square().mean(dim=0).cpu()
    if energy.mean() <= noise_sd**2:
        return x0
    low, high = -40.0, 40.0  # logarithm of p; what is left rises with it
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        kept = math.exp(middle) / (values + math.exp(middle))
        low, high = (middle, high) if (energy * kept**2).mean() < noise_sd**2 else (low, middle)
    return proximal(x0, y, selection, math.exp(low))


def proximal(
    x0: Float[Tensor, "..."], y: Float[Tensor, "..."], selection: SliceSelection, penalty: float
) -> Float[Tensor, "..."]:
    """argmin over x of |y - W x|^2 + penalty |x - x0|^2."""
    weights = selection.weights
    gram = weights @ weights.mT + penalty * torch.eye(len(weights), dtype=weights.dtype)
    gain = torch.linalg.solve(gram, weights).mT  # W^T gram^-1, gram being symmetric
    return x0 + along(selection.axis, gain, y - selection.apply(x0))
