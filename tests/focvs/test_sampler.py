"""The sampler where the posterior is known, and in its limits."""

from itertools import pairwise

import pytest
import torch

from focvs import exact, noise_aware, noise_levels, noise_matched, sample, smooth, unmeasured
from tests.focvs.conftest import GaussianPrior, check_posterior, measured, selection_for

DRAWS = 400
LEVELS = noise_levels(250, 20.0, 0.01)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- a Gaussian prior ----


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_mean_and_spread_are_those_of_the_posterior(prior, selection, eta):
    y = measured(selection, DRAWS)
    draws = sample([prior.denoise], exact, y, selection, LEVELS, generator=seeded(), eta=eta)
    assert (selection.apply(draws) - y).abs().max() < 1e-10
    check_posterior(draws, prior, y, selection)


def test_the_check_rejects_zeros(prior, selection):
    y = measured(selection, DRAWS)
    with pytest.raises(AssertionError):
        check_posterior(torch.zeros(DRAWS, 1, selection.thin.count, dtype=torch.float64), prior, y, selection)


def test_the_check_rejects_the_posterior_mean(prior, selection):
    y = measured(selection, DRAWS)
    with pytest.raises(AssertionError, match="variance over the null space"):
        check_posterior(prior.posterior_mean(y[0, 0], selection).expand(DRAWS, 1, -1), prior, y, selection)


def test_the_check_rejects_the_mixing_rule_of_the_published_code(prior, selection):
    """DDNM's code keeps sqrt(1 - eta^2) of the network's noise and adds eta of fresh noise, whatever the step."""
    y, generator, eta = measured(selection, DRAWS), seeded(), 0.85
    x = LEVELS[0] * torch.randn(DRAWS, 1, selection.thin.count, generator=generator, dtype=torch.float64)
    for sigma, sigma_next in pairwise(LEVELS):
        denoised = prior.denoise(x, sigma)
        x0 = exact(denoised, y, selection, sigma, 0.0)
        fresh = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        x = x0 + sigma_next * ((1 - eta**2) ** 0.5 * (x - denoised) / sigma + eta * fresh)
    with pytest.raises(AssertionError, match="variance over the null space"):
        check_posterior(x, prior, y, selection)


def test_a_noisy_scan_is_explained_to_its_noise(selection):
    """A wide prior and a noisy scan: W x - y of a draw is as large as the noise, its mean the posterior's."""
    prior, noise_sd, y = GaussianPrior(sd=1.0), 0.05, measured(selection, 500, noise_sd=0.05)
    levels = noise_levels(250, 10.0, 0.005)
    draws = sample([prior.denoise], noise_aware(prior.sd), y, selection, levels, generator=seeded(), noise_sd=noise_sd)
    left = selection.apply(draws) - y
    assert abs(float(left.square().mean().sqrt()) / noise_sd - 1) < 0.05
    covariance = prior.posterior_covariance(selection, noise_sd)
    off = draws[:, 0].mean(dim=0) - prior.posterior_mean(y[0, 0], selection, noise_sd)
    assert (off.abs() / (covariance.diagonal() / len(draws)).sqrt()).max() < 4
    spread = float(torch.cov(draws[:, 0].mT).diagonal().sum() / covariance.diagonal().sum())
    assert abs(spread - 1) < 0.05


@pytest.mark.parametrize("sd", [0.2, 1.0])
def test_noise_matched_explains_a_noisy_scan_to_its_noise_whatever_the_prior(selection, sd):
    """It is not the posterior of a Gaussian prior, but its mean is near: within a tenth of the prior's spread."""
    prior, noise_sd = GaussianPrior(sd=sd), 0.05
    y = measured(selection, 100, noise_sd=noise_sd)
    draws = sample(
        [prior.denoise],
        noise_matched,
        y,
        selection,
        noise_levels(50, 5.0, 0.01),
        generator=seeded(),
        noise_sd=noise_sd,
    )
    assert abs(float((selection.apply(draws) - y).square().mean().sqrt()) / noise_sd - 1) < 0.05
    off = draws[:, 0].mean(dim=0) - prior.posterior_mean(y[0, 0], selection, noise_sd)
    assert float(off.square().mean().sqrt()) < 0.15 * sd


def test_few_steps_are_under_dispersed(prior, selection):
    """Known bias: 25 steps from sigma 1 keep 80 to 100 % of the null-space variance, 8 steps less."""
    y = measured(selection, DRAWS)
    kept = []
    for steps in (8, 25):
        levels = noise_levels(steps, 1.0, 0.02)
        start = prior.mean + prior.sd * torch.randn(y.shape[0], 1, 30, generator=seeded(3), dtype=y.dtype)
        x = sample([prior.denoise], exact, y, selection, levels, generator=seeded(), eta=0.5, start=start)
        kept.append(float(selection.null_space(x - prior.mean).square().sum() / DRAWS / 24 / prior.sd**2))
    assert kept[0] < kept[1]
    assert 0.8 < kept[1] < 1


# ---- limits ----


@pytest.mark.parametrize("step", [exact, smooth])
def test_one_step_is_the_corrected_denoiser(step, prior, selection):
    y = measured(selection, 3)
    x = sample([prior.denoise], step, y, selection, (2.0, 0.0), generator=seeded())
    first = 2.0 * torch.randn(x.shape, generator=seeded(), dtype=x.dtype)
    assert torch.equal(x, step(prior.denoise(first, 2.0), y, selection, 2.0, 0.0))


def test_without_measurement_it_is_unconditional_sampling(prior, selection):
    """The ancestral sampler written out, with the same seed."""
    y, generator, levels = measured(selection, 3), seeded(5), noise_levels(10, 3.0, 0.1)
    x = levels[0] * torch.randn(3, 1, 30, generator=generator, dtype=torch.float64)
    for sigma, sigma_next in pairwise(levels):
        x0 = prior.denoise(x, sigma)
        up = (sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2) ** 0.5
        x = x0 + (sigma_next**2 - up**2) ** 0.5 * (x - x0) / sigma
        if up:
            x = x + up * torch.randn(x.shape, generator=generator, dtype=x.dtype)
    drawn = sample([prior.denoise], unmeasured, y, selection, levels, generator=seeded(5))
    assert torch.allclose(drawn, x, atol=1e-12)


def test_a_complete_scan_leaves_nothing_to_draw(prior):
    """W is invertible where there are as many thick slices as thin ones."""
    selection = selection_for(1.5, 0, 12, thin_mm=1.4999)
    y = measured(selection, 2)
    x = sample([prior.denoise], exact, y, selection, noise_levels(5, 2.0, 0.1), generator=seeded())
    assert torch.allclose(x, selection.pseudo_inverse(y), atol=1e-6)


def test_time_travel_forgets_a_wrong_start(prior, selection):
    y = measured(selection, 100)
    start = torch.full((100, 1, 30), prior.mean + 3 * prior.sd, dtype=torch.float64)
    levels, truth = noise_levels(12, 0.5, 0.02), prior.posterior_mean(y[0, 0], selection)
    off = []
    for repeats in (1, 4):
        x = sample([prior.denoise], exact, y, selection, levels, generator=seeded(), start=start, repeats=repeats)
        off.append(float((x[:, 0].mean(dim=0) - truth).norm()))
    assert off[1] < 0.5 * off[0]


# ---- the loop ----


def test_denoisers_take_turns_and_progress_is_told(prior, selection):
    asked, told = [], []

    def named(name):
        def denoise(x, sigma):
            asked.append((name, sigma))
            return prior.denoise(x, sigma)

        return denoise

    sample(
        [named("coronal"), named("sagittal")],
        smooth,
        measured(selection, 1),
        selection,
        (1.0, 0.5, 0.2, 0.0),
        generator=seeded(),
        told=lambda done, total: told.append((done, total)),
    )
    assert asked == [("coronal", 1.0), ("sagittal", 0.5), ("coronal", 0.2)]
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_start_is_noised_not_copied(prior, selection):
    y, levels = measured(selection, 1), noise_levels(4, 0.3, 0.05)
    start = selection.smooth_inverse(y)
    x = sample([prior.denoise], exact, y, selection, levels, generator=seeded(), start=start)
    again = sample([prior.denoise], exact, y, selection, levels, generator=seeded(), start=start)
    other = sample([prior.denoise], exact, y, selection, levels, generator=seeded(1), start=start)
    assert torch.equal(x, again)
    assert not torch.allclose(x, other)
    assert not torch.allclose(x, start)


def test_dtype_is_kept_and_the_start_left_alone(prior, selection):
    y = measured(selection, 1).float()
    start = selection.smooth_inverse(y)
    before = start.clone()
    x = sample([prior.denoise], smooth, y, selection, (0.5, 0.1, 0.0), generator=seeded(), start=start)
    assert x.dtype == torch.float32
    assert torch.equal(start, before)
