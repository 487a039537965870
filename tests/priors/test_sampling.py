"""Samples of a prior that is known come out as it is; copies of training slices are found."""

import pytest
import torch

from priors.sampling import nearest, noise_schedule, sample

MEAN, SD = 0.35, 0.3
SHAPE = (4, 40, 50)
PIXELS = 4 * 40 * 50


def gaussian(sd):
    """The exact denoiser of pixels that are independent N(MEAN, sd^2)."""
    return lambda x, sigma: MEAN + sd**2 / (sd**2 + sigma**2) * (x - MEAN)


def drawn(denoise, steps=24, seed=0):
    return sample(denoise, torch.zeros(SHAPE), noise_schedule(steps), generator=torch.Generator().manual_seed(seed))


def matches(x):
    """Mean and spread within four standard errors; one per cent more for the spread, the step size of 24 levels."""
    off_mean, off_sd = abs(float(x.mean()) - MEAN), abs(float(x.std()) - SD)
    return off_mean < 4 * SD / PIXELS**0.5 and off_sd < 4 * SD / (2 * PIXELS) ** 0.5 + 0.01 * SD


def test_samples_of_a_gaussian_have_its_mean_and_spread():
    assert matches(drawn(gaussian(SD)))


@pytest.mark.parametrize("denoise", [gaussian(0.9 * SD), lambda x, _sigma: torch.full_like(x, MEAN)])
def test_another_spread_would_show(denoise):
    assert not matches(drawn(denoise))


def test_a_denoiser_that_knows_the_slice_is_followed_to_it():
    truth = torch.rand(SHAPE, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(drawn(lambda _x, _sigma: truth), truth)


def test_the_seed_alone_decides():
    assert torch.equal(drawn(gaussian(SD)), drawn(gaussian(SD)))
    assert not torch.equal(drawn(gaussian(SD)), drawn(gaussian(SD), seed=1))


def test_noise_levels_fall_from_most_to_least_and_then_to_zero():
    sigmas = noise_schedule(10, least=0.01, most=20.0)
    assert sigmas[0] == pytest.approx(20)
    assert sigmas[-2:] == [pytest.approx(0.01), 0.0]
    assert sigmas == sorted(sigmas, reverse=True)


def smooth(seed, size=(96, 80)):
    coarse = torch.rand((1, 1, 12, 10), generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=size, mode="bicubic")[0, 0]


def test_a_shifted_and_brightened_copy_is_found_and_a_stranger_is_not():
    known = [smooth(seed) for seed in range(5)]
    copy = 1.3 * known[3].roll((4, -8), (0, 1)) + 0.1
    correlation, which = nearest(torch.stack([copy, smooth(99)]), known)
    assert which[0] == 3
    assert float(correlation[0]) > 0.999
    assert float(correlation[1]) < 0.8


def test_beyond_the_search_range_a_copy_is_no_longer_found():
    known = [smooth(seed) for seed in range(5)]
    correlation, _ = nearest(known[3].roll(24, 0)[None], known)
    assert float(correlation) < 0.9


def test_known_slices_of_other_sizes_are_compared_around_their_middles():
    image = smooth(0)
    padded = torch.nn.functional.pad(image, (8, 8, 4, 4))
    for known in (padded, image):
        correlation, _ = nearest(image[None], [known])
        assert float(correlation) > 0.999
