"""Two denoisers as one: exact where both are, seamless where they meet, and told the noise of the means."""

import pytest
import torch

from priors.two_scales import block_mean, enlarged, two_scales

MEAN, SD, RATIO = 0.35, 0.3, 4
CROSSOVER = (0.5, 2.0)


def drawn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exact_coarse(means, sigma):
    """The exact denoiser of independent pixels N(MEAN, SD^2)."""
    return MEAN + SD**2 / (SD**2 + sigma**2) * (means - MEAN)


def exact_fine(x, sigma):
    """The exact denoiser of slices that are constant in blocks, with block values N(MEAN, SD^2)."""
    blocks = exact_coarse(block_mean(x, RATIO), sigma / RATIO)
    return blocks.repeat_interleave(RATIO, 1).repeat_interleave(RATIO, 2)


def forgetful(fine, coarse, ratio, crossover):
    """The broken twin: means are said to be as noisy as pixels."""
    return two_scales(fine, lambda means, sigma: coarse(means, sigma * ratio), ratio, crossover)


def gap_to_exact(compose, sigma):
    x = drawn(0, 2, 24, 40)
    return float((compose(exact_fine, exact_coarse, RATIO, CROSSOVER)(x, sigma) - exact_fine(x, sigma)).abs().max())


@pytest.mark.parametrize("sigma", [0.1, 0.5, 0.9, 2.0, 10.0])
def test_two_exact_denoisers_make_the_exact_one(sigma):
    assert gap_to_exact(two_scales, sigma) < 1e-12


@pytest.mark.parametrize("sigma", [0.9, 2.0, 10.0])
def test_noise_that_is_not_divided_by_the_ratio_would_show(sigma):
    assert gap_to_exact(forgetful, sigma) > 0.01


def test_a_constant_that_both_keep_is_kept_at_any_size():
    def keep(x, _sigma):
        return x

    x = torch.full((1, 21, 30), 0.7)
    for sigma in (0.1, 1.0, 5.0):
        torch.testing.assert_close(two_scales(keep, keep, RATIO, CROSSOVER)(x, sigma), x)


def test_the_means_are_those_of_coarse_above_the_crossover_and_of_fine_below():
    denoise = two_scales(lambda x, _: 0 * x, lambda means, _: torch.ones_like(means), RATIO, CROSSOVER)
    x = drawn(1, 1, 20, 24)
    shares = {sigma: float(denoise(x, sigma).mean()) for sigma in (0.4, 0.5, 1.0, 2.0, 40.0)}
    assert shares == pytest.approx({0.4: 0, 0.5: 0, 1.0: 0.5, 2.0: 1, 40.0: 1})


@pytest.mark.parametrize("edge", CROSSOVER)
def test_nothing_jumps_at_the_crossover(edge):
    denoise = two_scales(lambda x, _: 0 * x, exact_coarse, RATIO, CROSSOVER)
    x = drawn(2, 1, 24, 24)
    before, after = denoise(x, edge * (1 - 1e-6)), denoise(x, edge * (1 + 1e-6))
    assert float((after - before).abs().max()) < 1e-5


def test_the_detail_of_fine_is_kept():
    detail = drawn(3, 1, 24, 24)
    flat = detail - block_mean(detail, RATIO).repeat_interleave(RATIO, 1).repeat_interleave(RATIO, 2)
    denoise = two_scales(lambda *_: flat, lambda means, _: torch.full_like(means, 0.2), RATIO, CROSSOVER)
    torch.testing.assert_close(denoise(flat, 4.0), flat + 0.2)


def test_the_noise_of_means_is_that_of_pixels_over_the_ratio():
    assert float(block_mean(drawn(4, 8, 128, 128), RATIO).std()) == pytest.approx(1 / RATIO, rel=0.05)


def test_enlarging_reproduces_a_ramp_between_the_middles_of_blocks():
    ramp = torch.arange(24.0)[None, :, None].expand(1, 24, 8)
    back = enlarged(block_mean(ramp, RATIO), RATIO)
    torch.testing.assert_close(back[:, RATIO:-RATIO], ramp[:, RATIO:-RATIO])


@pytest.mark.parametrize(("ratio", "crossover"), [(1, CROSSOVER), (4, (2.0, 0.5)), (4, (0.0, 1.0))])
def test_what_is_no_second_scale_is_refused(ratio, crossover):
    with pytest.raises(ValueError, match="expected at least 2, and 0 < low < high"):
        two_scales(exact_fine, exact_coarse, ratio, crossover)
