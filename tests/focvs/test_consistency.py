"""Consistency steps."""

from dataclasses import replace

import pytest
import torch

from focvs import exact, noise_aware, noise_matched, smooth, unmeasured
from focvs.consistency import proximal
from tests.focvs.conftest import GaussianPrior, selection_for

ROUNDING = 1e-10


@pytest.fixture
def pair(selection):
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(3, 4, selection.thin.count, generator=generator, dtype=torch.float64)
    return x0, torch.randn(3, 4, selection.thick.count, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("step", [exact, smooth, noise_aware(0.35), noise_matched])
def test_without_noise_the_scan_is_explained(step, pair, selection):
    x0, y = pair
    left = selection.apply(step(x0, y, selection, 0.1, 0.0)) - y
    assert left.norm() <= ROUNDING * y.norm()


def test_unmeasured_lets_the_check_fail(pair, selection):
    x0, y = pair
    assert (selection.apply(unmeasured(x0, y, selection, 0.1, 0.0)) - y).norm() > y.norm()


@pytest.mark.parametrize("step", [exact, smooth, noise_aware(0.35), noise_matched])
def test_what_explains_the_scan_already_is_left_alone(step, pair, selection):
    x0, _ = pair
    assert torch.allclose(step(x0, selection.apply(x0), selection, 0.1, 0.02), x0, atol=ROUNDING)


def test_exact_is_the_closest_volume(pair, selection):
    """No change can be smaller: it lies in the row space of W."""
    x0, y = pair
    change = exact(x0, y, selection, 0.1, 0.0) - x0
    assert selection.null_space(change).norm() <= ROUNDING * change.norm()


@pytest.mark.parametrize("noise_sd", [0.3, 0.1, 0.03, 0.01, 0.001])
def test_noise_aware_tends_to_exact_as_noise_tends_to_zero(noise_sd, pair, selection):
    x0, y = pair
    off = noise_aware(0.35)(x0, y, selection, 1.0, noise_sd) - exact(x0, y, selection, 1.0, 0.0)
    condition = float(torch.linalg.svdvals(selection.weights)[-1])
    assert off.norm() <= (noise_sd / 0.33 / condition) ** 2 * (y - selection.apply(x0)).norm() / condition


@pytest.mark.parametrize("sigma", [0.01, 0.1, 0.5, 3.0])
def test_noise_aware_is_the_conditional_mean_of_a_gaussian_prior(sigma, pair, selection):
    """E[x0 | x, y], against the textbook with x and y stacked into one measurement of x0."""
    prior, noise_sd = GaussianPrior(), 0.1
    x, y = (part.to(torch.float64) for part in pair)
    n = selection.thin.count
    w = torch.cat([torch.eye(n, dtype=torch.float64) / sigma, selection.weights / noise_sd])
    both = torch.cat([x / sigma, y / noise_sd], dim=-1)
    precision = w.mT @ w + torch.eye(n, dtype=torch.float64) / prior.sd**2
    expected = torch.linalg.solve(precision, w.mT @ both[..., None] + prior.mean / prior.sd**2)[..., 0]
    step = noise_aware(prior.sd)(prior.denoise(x, sigma), y, selection, sigma, noise_sd)
    assert torch.allclose(step, expected, atol=1e-9)


@pytest.mark.parametrize("noise_sd", [1e-4, 0.01, 0.3])
def test_noise_matched_leaves_a_residual_of_the_noise(noise_sd, pair, selection):
    x0, y = pair
    left = selection.apply(noise_matched(x0, y, selection, 0.1, noise_sd)) - y
    assert float(left.square().mean().sqrt()) == pytest.approx(noise_sd, rel=1e-6)


def test_noise_matched_leaves_alone_what_is_within_the_noise(pair, selection):
    x0, y = pair
    assert noise_matched(x0, y, selection, 0.1, 10.0) is x0


def test_noise_matched_works_along_any_axis_in_float32(pair, selection):
    x0, y = (part.movedim(-1, 0).float() for part in pair)
    turned = replace(selection, axis=0)
    left = turned.apply(noise_matched(x0, y, turned, 0.1, 0.2)) - y
    assert float(left.square().mean().sqrt()) == pytest.approx(0.2, rel=1e-4)


def test_the_proximal_step_minimises_what_it_says(pair, selection):
    x0, y = pair
    x = proximal(x0, y, selection, 0.3).requires_grad_(True)
    cost = ((y - selection.apply(x)) ** 2).sum() + 0.3 * ((x - x0) ** 2).sum()
    (slope,) = torch.autograd.grad(cost, x)
    assert slope.abs().max() < 1e-9


def test_overlapping_slices_do_not_amplify_noise():
    """5|-2.5: W+ multiplies noise many times over, the noise-aware step does not."""
    selection = selection_for(5, -2.5, 16)
    x0 = torch.zeros(1, 1, selection.thin.count, dtype=torch.float64)
    noise = 0.05 * torch.randn(1, 1, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    careful = noise_aware(0.35)(x0, noise, selection, 0.05, 0.05)
    assert careful.norm() < 0.5 * exact(x0, noise, selection, 0.05, 0.05).norm()


def test_a_prior_without_spread_is_refused():
    with pytest.raises(ValueError, match="expected the prior's standard deviation"):
        noise_aware(0.0)
