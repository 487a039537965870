"""Preconditioning has the limits that define it; conversions are undone by their inverses."""

import pytest
import torch

from priors.noise import (
    NoiseLevels,
    Preconditioning,
    alpha_from_sigma,
    noise_from_x0,
    sigma_from_alpha,
    sigma_from_time,
    time_from_sigma,
    x0_from_noise,
)

EDM = Preconditioning(mean=0.35, sigma_data=0.4)
SIGMAS = torch.tensor([0.003, 0.1, 0.4, 2.0, 40.0], dtype=torch.float64)


def gaussian(count=200_000, seed=0):
    return EDM.mean + EDM.sigma_data * torch.randn(
        count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


@pytest.mark.parametrize("sigma", SIGMAS.tolist())
def test_a_silent_network_is_the_exact_denoiser_of_a_gaussian(sigma):
    x0 = gaussian()
    noise = torch.randn(x0.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x, s = x0 + sigma * noise, torch.tensor(sigma, dtype=torch.float64)
    error = EDM.mean + EDM.c_skip(s) * (x - EDM.mean) - x0
    posterior_variance = 1 / (1 / EDM.sigma_data**2 + 1 / sigma**2)
    standard_error = posterior_variance * (2 / len(x0)) ** 0.5
    assert abs(float(error.pow(2).mean()) - posterior_variance) < 4 * standard_error


@pytest.mark.parametrize("sigma", SIGMAS.tolist())
def test_network_input_and_target_have_unit_variance_at_every_noise_level(sigma):
    x0 = gaussian()
    noise = torch.randn(x0.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    s = torch.tensor(sigma, dtype=torch.float64)
    centred = x0 + sigma * noise - EDM.mean
    target = (x0 - EDM.mean - EDM.c_skip(s) * centred) / EDM.c_out(s)
    tolerance = 4 * (2 / len(x0)) ** 0.5  # four standard errors of a variance
    assert abs(float((EDM.c_in(s) * centred).var()) - 1) < tolerance
    assert abs(float(target.var()) - 1) < tolerance


def test_preconditioning_without_the_mean_is_not_exact():
    """The check above rejects its broken twin."""
    x0, sigma = gaussian(), torch.tensor(0.4, dtype=torch.float64)
    x = x0 + sigma * torch.randn(x0.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    error = (EDM.c_skip(sigma) * x - x0).pow(2).mean()
    posterior_variance = 1 / (1 / EDM.sigma_data**2 + 1 / float(sigma) ** 2)
    assert float(error) > 1.1 * posterior_variance


def test_loss_weight_is_the_inverse_square_of_c_out():
    torch.testing.assert_close(EDM.loss_weight(SIGMAS) * EDM.c_out(SIGMAS) ** 2, torch.ones_like(SIGMAS))


@pytest.mark.parametrize("sigma", [0.01, 1.0, 30.0])
def test_noise_and_x0_are_each_others_inverse(sigma):
    x, x0 = torch.randn(2, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(x0_from_noise(x, noise_from_x0(x, x0, sigma), sigma), x0)


@pytest.mark.parametrize("sigma", [0.003, 1.0, 40.0])
def test_schedules_convert_back_and_forth(sigma):
    assert sigma_from_alpha(alpha_from_sigma(sigma)) == pytest.approx(sigma, rel=1e-9)
    assert sigma_from_time(time_from_sigma(sigma)) == pytest.approx(sigma, rel=1e-12)


def test_noise_levels_keep_to_their_ranges_and_shares():
    levels, generator = NoiseLevels(share_beyond=0.25), torch.Generator().manual_seed(0)
    drawn = torch.tensor([levels.draw(generator=generator) for _ in range(4000)])
    assert drawn.min() >= levels.least
    assert drawn.max() <= levels.most
    beyond = float((drawn > levels.useful).float().mean())
    assert abs(beyond - 0.25) < 4 * (0.25 * 0.75 / 4000) ** 0.5
    below_median = float((drawn < levels.median).float().mean())
    assert abs(below_median - 0.5 * 0.75) < 4 * (0.25 / 4000) ** 0.5


def test_noise_levels_out_of_order_are_refused():
    with pytest.raises(ValueError, match="expected 0 < least < median < useful < most"):
        NoiseLevels(least=1.0, useful=0.5)
