"""Other ways to use a denoiser for an inverse problem, over the same denoisers and the same W, for comparison.

None of them ends with a consistency step; what each does to a Gaussian prior, where everything is known, is said in its
docstring and tested in tests/focvs/test_comparison.py.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from focvs.consistency import proximal
from focvs.denoising import VolumeDenoiser
from focvs.sampler import Told, ancestral, normal_like, told_nobody
from forward_models import SliceSelection

LEAST_NOISE = 1e-3  # DiffPIR and its relatives divide by the noise of the scan


def dps(
    denoisers: Sequence[VolumeDenoiser],
    y: Float[Tensor, "a b thick"],
    selection: SliceSelection,
    levels: Sequence[float],
    *,
    generator: torch.Generator,
    start: Float[Tensor, "a b thin"] | None = None,
    strength: float = 1.0,
    eta: float = 1.0,
    told: Told = told_nobody,
) -> Float[Tensor, "a b thin"]:
    """Diffusion posterior sampling (Chung et al. 2023, algorithm 1): an unconditional step, then one down the misfit.

    x <- step(x) - strength / s^2 * grad_x |y - W D(x)|^2 / 2, s the largest singular value of W. The paper divides by
    |y - W D(x)| instead of s^2, which makes the step depend on how many voxels there are.

    Gaussian prior: null space as without measurement, which is right; W x tends to y but stays off it, the more the
    fewer the steps.
    """
    largest = float(torch.linalg.matrix_norm(selection.weights, ord=2))
    x = _first(y, selection, levels[0], start, generator)
    for done, (sigma, sigma_next) in enumerate(pairwise(levels)):
        x.requires_grad_(True)
        x0 = denoisers[done % len(denoisers)](x, sigma)
        misfit = ((y - selection.apply(x0)) ** 2).sum() / 2
        (slope,) = torch.autograd.grad(misfit, x)
        x, x0 = x.detach(), x0.detach()
        up, down = ancestral(sigma, sigma_next, eta)
        fresh = normal_like(x, generator)
        x = x0 + down * (x - x0) / sigma + up * fresh - strength / largest**2 * slope
        told(done + 1, len(levels) - 1)
    return x


@torch.no_grad()
def diffpir(
    denoisers: Sequence[VolumeDenoiser],
    y: Float[Tensor, "a b thick"],
    selection: SliceSelection,
    levels: Sequence[float],
    *,
    generator: torch.Generator,
    start: Float[Tensor, "a b thin"] | None = None,
    noise_sd: float = 0.0,
    weight: float = 1.0,
    zeta: float = 0.3,
    told: Told = told_nobody,
) -> Float[Tensor, "a b thin"]:
    """DiffPIR (Zhu et al. 2023, algorithm 1): a proximal step of penalty weight * noise_sd^2 / sigma^2, mixed noise.

    Gaussian prior: W x = y for a scan without noise, to `LEAST_NOISE`; the null space is under-dispersed by any
    zeta > 0 at any number of steps, as in DDNM's code.
    """
    noise_sd = max(noise_sd, LEAST_NOISE)
    x = _first(y, selection, levels[0], start, generator)
    for done, (sigma, sigma_next) in enumerate(pairwise(levels)):
        x0 = denoisers[done % len(denoisers)](x, sigma)
        x0 = proximal(x0, y, selection, weight * (noise_sd / sigma) ** 2)
        noise = (x - x0) / sigma
        x = x0 + sigma_next * ((1 - zeta) ** 0.5 * noise + zeta**0.5 * normal_like(x, generator))
        told(done + 1, len(levels) - 1)
    return x


@torch.no_grad()
def dds(
    denoisers: Sequence[VolumeDenoiser],
    y: Float[Tensor, "a b thick"],
    selection: SliceSelection,
    levels: Sequence[float],
    *,
    generator: torch.Generator,
    start: Float[Tensor, "a b thin"] | None = None,
    gamma: float = 100.0,
    iterations: int = 5,
    eta: float = 0.85,
    told: Told = told_nobody,
) -> Float[Tensor, "a b thin"]:
    """DDS (Chung et al. 2024, algorithm 1): conjugate gradients on (I + gamma W^T W) x = D(x) + gamma W^T y.

    Gaussian prior: null space as `sample` has it; where W measures, the mismatch of the prior is divided by
    1 + gamma s^2, s the singular value, however many steps are made.
    """
    x = _first(y, selection, levels[0], start, generator)
    measured = gamma * selection.adjoint(y)
    for done, (sigma, sigma_next) in enumerate(pairwise(levels)):
        x0 = denoisers[done % len(denoisers)](x, sigma)
        x0 = _conjugate_gradients(selection, gamma, x0 + measured, x0, iterations)
        up, down = ancestral(sigma, sigma_next, eta)
        x = x0 + down * (x - x0) / sigma + up * normal_like(x, generator)
        told(done + 1, len(levels) - 1)
    return x


@torch.no_grad()
def red_diff(
    denoisers: Sequence[VolumeDenoiser],
    y: Float[Tensor, "a b thick"],
    selection: SliceSelection,
    levels: Sequence[float],
    *,
    generator: torch.Generator,
    start: Float[Tensor, "a b thin"] | None = None,
    weight: float = 0.25,
    learning_rate: float = 0.02,
    told: Told = told_nobody,
) -> Float[Tensor, "a b thin"]:
    """RED-diff (Mardani et al. 2024, algorithm 1): Adam on |y - W mu|^2 / 2 + weight * sigma <stop(D's noise - n), mu>.

    Gaussian prior: a point, not a draw: every run ends near the posterior mean, and the null space has hardly any
    variance.
    """
    mu = (selection.smooth_inverse(y) if start is None else start).clone()
    optimiser = torch.optim.Adam([mu], lr=learning_rate, betas=(0.9, 0.99))
    for done, sigma in enumerate(levels[:-1]):
        noise = normal_like(mu, generator)
        x = mu + sigma * noise
        implied = (x - denoisers[done % len(denoisers)](x, sigma)) / sigma
        mu.grad = selection.adjoint(selection.apply(mu) - y) + weight * sigma * (implied - noise)
        optimiser.step()
        told(done + 1, len(levels) - 1)
    return mu


def _first(
    y: Float[Tensor, "..."],
    selection: SliceSelection,
    sigma: float,
    start: Float[Tensor, "..."] | None,
    generator: torch.Generator,
) -> Float[Tensor, "..."]:
    noise = sigma * normal_like(y.new_empty(selection.domain_shape(y.shape)), generator)
    return noise if start is None else start + noise


def _conjugate_gradients(
    selection: SliceSelection, gamma: float, right: Float[Tensor, "..."], x: Float[Tensor, "..."], iterations: int
) -> Float[Tensor, "..."]:
    """Hestenes and Stiefel 1952 for I + gamma W^T W, from x."""

    def operator(v: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return v + gamma * selection.adjoint(selection.apply(v))

    residual = right - operator(x)
    direction, energy = residual, (residual**2).sum()
    for _ in range(iterations):
        if energy == 0:
            break
        ahead = operator(direction)
        step = energy / (direction * ahead).sum()
        x = x + step * direction
        residual = residual - step * ahead
        energy, previous = (residual**2).sum(), energy
        direction = residual + energy / previous * direction
    return x
