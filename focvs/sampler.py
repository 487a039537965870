"""Sampling a prior under W x = y."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from focvs.consistency import Consistency
from focvs.denoising import VolumeDenoiser
from forward_models import SliceSelection

Told = Callable[[int, int], None]
"""Called with the steps done and the steps in all."""


def told_nobody(done: int, total: int) -> None:
    """Tell nobody."""


@torch.no_grad()
def sample(
    denoisers: Sequence[VolumeDenoiser],
    consistency: Consistency,
    y: Float[Tensor, "a b thick"],
    selection: SliceSelection,
    levels: Sequence[float],
    *,
    generator: torch.Generator,
    start: Float[Tensor, "a b thin"] | None = None,
    noise_sd: float = 0.0,
    eta: float = 1.0,
    repeats: int = 1,
    told: Told = told_nobody,
) -> Float[Tensor, "a b thin"]:
    """One draw from the prior that explains the scan: FOCVS, which is DDNM for slices in perpendicular planes.

    The state is x = x0 + sigma n. Since the last level is 0, the result is a corrected x0, and W x = y holds by
    construction wherever `consistency` makes it hold.

    Args:
        denoisers: D(x, sigma) -> x0, taking turns by step: coronal, sagittal, coronal... or one of volumes.
        consistency: (x0, y, selection, sigma, noise_sd) -> x0.
        y: the scan.
        selection: W.
        levels: of noise, falling, the last one 0.
        generator: of every draw.
        start: a first estimate, to which noise of the first level is added; None starts from noise alone.
        noise_sd: of the noise in y.
        eta: share of fresh noise, from 0 (none, DDIM) to 1 (ancestral, DDPM).
        repeats: how often each step is made, going back to its noise level in between (RePaint's time travel).
        told: after each step.
    """
    x = levels[0] * normal_like(y.new_empty(selection.domain_shape(y.shape)), generator)
    x = x if start is None else x + start
    total = (len(levels) - 1) * repeats
    done = 0
    for sigma, sigma_next in pairwise(levels):
        up, down = ancestral(sigma, sigma_next, eta)
        for repeat in range(repeats):
            x0 = denoisers[done % len(denoisers)](x, sigma)  # DDNM algorithm 1, line 3: E[x0 | x]
            x0 = consistency(x0, y, selection, sigma, noise_sd)  # line 4: now W x0 = y
            noise = (x - x0) / sigma  # what is noise in x, if x0 is right; from the corrected x0, as in DiffPIR
            x = x0 + down * noise  # line 5, with ancestral noise in place of the code's mixing rule
            if up:
                x = x + up * normal_like(x, generator)
            done += 1
            if repeat < repeats - 1:  # algorithm 2, time travel: back up to sigma
                x = x + (sigma**2 - sigma_next**2) ** 0.5 * normal_like(x, generator)
            told(done, total)
    return x


def ancestral(sigma: float, sigma_next: float, eta: float) -> tuple[float, float]:
    """Noise to draw afresh and noise to keep on the way from sigma to sigma_next; their squares add to its square.

    eta = 1 is the reverse of the forward process (DDPM): up = sigma_next sqrt(1 - sigma_next^2 / sigma^2).
    """
    up = eta * sigma_next * (1 - (sigma_next / sigma) ** 2) ** 0.5
    return up, (sigma_next**2 - up**2) ** 0.5


def normal_like(x: Float[Tensor, "..."], generator: torch.Generator) -> Float[Tensor, "..."]:
    """Drawn on the CPU, so that a seed means the same on every device."""
    return torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
