"""A world in which everything is known: a Gaussian prior with its exact denoiser, under a real W."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from forward_models import Gaussian, SliceGrid, SliceSelection, slice_selection, thin_grid_for


def selection_for(thickness_mm: float, gap_mm: float, slices: int, thin_mm: float = 1.0) -> SliceSelection:
    thick = SliceGrid(slices, thickness_mm + gap_mm)
    return slice_selection(thick, thin_grid_for(thick, thin_mm), Gaussian(thickness_mm))


@dataclass(frozen=True)
class GaussianPrior:
    """x0 ~ N(mean, sd^2), voxels independent."""

    mean: float = 0.4
    sd: float = 0.35

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """E[x0 | x]."""
        return self.mean + self.sd**2 / (self.sd**2 + sigma**2) * (x - self.mean)

    def posterior_mean(self, y: Tensor, selection: SliceSelection, noise_sd: float = 0.0) -> Tensor:
        """E[x0 | y], from the textbook: m + c^2 W^T (c^2 W W^T + noise^2)^-1 (y - W m)."""
        w = selection.weights
        gram = self.sd**2 * w @ w.mT + noise_sd**2 * torch.eye(len(w), dtype=w.dtype)
        return self.mean + (y - self.mean) @ torch.linalg.solve(gram, self.sd**2 * w)

    def posterior_covariance(self, selection: SliceSelection, noise_sd: float = 0.0) -> Tensor:
        w = selection.weights
        gram = self.sd**2 * w @ w.mT + noise_sd**2 * torch.eye(len(w), dtype=w.dtype)
        identity = torch.eye(w.shape[1], dtype=w.dtype)
        return self.sd**2 * (identity - w.mT @ torch.linalg.solve(gram, self.sd**2 * w))


@pytest.fixture
def prior() -> GaussianPrior:
    return GaussianPrior()


@pytest.fixture
def selection() -> SliceSelection:
    """4|1 mm, 6 slices from 30: 24 directions that the scan says nothing about."""
    return selection_for(4, 1, 6)


def measured(selection: SliceSelection, draws: int, seed: int = 1, noise_sd: float = 0.0) -> Tensor:
    """One scan line of a draw from the prior, `draws` times, as (draws, 1, thick)."""
    generator = torch.Generator().manual_seed(seed)
    truth = 0.4 + 0.35 * torch.randn(selection.thin.count, generator=generator, dtype=torch.float64)
    y = selection.apply(truth)
    y = y + noise_sd * torch.randn(y.shape, generator=generator, dtype=torch.float64)
    return y.expand(draws, 1, -1).contiguous()


def check_posterior(draws: Tensor, prior: GaussianPrior, y: Tensor, selection: SliceSelection) -> None:
    """Mean of every thin slice, and variance over the null space, within 4 standard errors. `draws`: (n, 1, thin)."""
    n = len(draws)
    lines = draws[:, 0]
    spread = prior.posterior_covariance(selection).diagonal().clamp_min(1e-12).sqrt()
    off = (lines.mean(dim=0) - prior.posterior_mean(y[0, 0], selection)).abs() / (spread / n**0.5)
    assert off.max() < 4, f"the mean of a slice is {off.max():.1f} standard errors off"
    unknown = torch.linalg.svd(selection.weights)[2][len(selection.weights) :]  # an orthonormal basis
    values = (lines - prior.posterior_mean(y[0, 0], selection)) @ unknown.mT
    ratio = float(values.square().mean() / prior.sd**2)
    error = (2 / values.numel()) ** 0.5
    assert abs(ratio - 1) < 4 * error, f"variance over the null space is {ratio:.3f} of the truth, +- {error:.3f}"


Draw = Callable[..., Tensor]
