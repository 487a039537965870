"""Spectra along the slice axis of images whose transfer function is known."""

import numpy as np
import pytest

from throughplane.studies.spectra import Spectra, spectra_along

VOXEL_MM = 0.8
SHAPE = (20, 24, 128)
TRUTH = np.random.default_rng(0).normal(0, 1, SHAPE)
EVERYWHERE = np.ones(SHAPE, bool)


def blurred(fwhm_mm: float, axis: int = 2) -> np.ndarray:
    """By the transfer function itself, periodic."""
    f = np.fft.fftfreq(SHAPE[axis], VOXEL_MM)
    transfer = np.exp(-2 * (np.pi * fwhm_mm / 2.354820 * f) ** 2)
    return np.fft.ifft(
        np.fft.fft(TRUTH, axis=axis) * np.expand_dims(transfer, [i for i in range(3) if i != axis]), axis=axis
    ).real


def spectra(result: np.ndarray, mask: np.ndarray = EVERYWHERE, axis: int = 2) -> Spectra:
    return spectra_along(axis, VOXEL_MM, TRUTH, result, mask)


@pytest.mark.parametrize("fwhm_mm", [3.0, 4.0, 6.0])
def test_transfer_of_a_gaussian_blur_halves_where_its_formula_says(fwhm_mm):
    """exp(-2 pi^2 sd^2 f^2) = 1/2 at f = 2 ln 2 / pi / FWHM = 0.4413 / FWHM."""
    seen = spectra(blurred(fwhm_mm))
    assert seen.half_of(seen.transfer) == pytest.approx(0.4413 / fwhm_mm, rel=0.04)  # bins are 0.01 per mm wide


def test_log_distance_of_a_gaussian_blur_is_that_of_its_formula():
    f = np.arange(1, 65) / 128 / VOXEL_MM
    sd = 2.0 / 2.354820
    above = f > 0.2
    expected = np.sqrt(np.mean((10 * np.log10(np.exp(-((2 * np.pi * sd * f[above]) ** 2)))) ** 2))
    assert spectra(blurred(2.0)).log_distance_db(0.2) == pytest.approx(expected, rel=0.02)


def test_a_blur_does_not_lower_the_ring_correlation_but_noise_does():
    """White noise of the truth's own variance: correlation 1 / sqrt(2); of three times its sd: 1 / sqrt(10)."""
    assert spectra(blurred(2.0)).ring_correlation.min() > 0.99
    noise = np.random.default_rng(1).normal(0, 1, SHAPE)
    for sd, expected in ((1, 2**-0.5), (3, 10**-0.5)):
        got = spectra(TRUTH + sd * noise).ring_correlation
        assert np.abs(got - expected).max() < 5 / np.sqrt(SHAPE[0] * SHAPE[1])  # 5 standard errors of a correlation


def test_transfer_does_not_reward_noise():
    noisy = spectra(TRUTH + np.random.default_rng(1).normal(0, 1, SHAPE))
    assert noisy.transfer == pytest.approx(np.ones(64), abs=5 / np.sqrt(SHAPE[0] * SHAPE[1]))


def test_power_is_the_variance_and_the_error_that_of_the_difference():
    seen = spectra(0.5 * TRUTH)
    assert seen.truth.mean() == pytest.approx(1, rel=0.03)
    assert seen.result == pytest.approx(0.25 * seen.truth)
    assert seen.error == pytest.approx(0.25 * seen.truth)


def test_a_perfect_result_reaches_nyquist_at_no_distance():
    seen = spectra(TRUTH)
    assert seen.half_of(seen.ring_correlation) == seen.half_of(seen.transfer) == 0.5 / VOXEL_MM
    assert seen.log_distance_db(0.1) == 0
    assert seen.log_distance_db(0.5 / VOXEL_MM) is None


def test_a_shift_by_one_voxel_halves_the_transfer_at_a_sixth_of_the_sampling_rate():
    """Re(exp(-2 pi i f h)) = cos(2 pi f h) = 1/2 at f h = 1/6."""
    shifted = spectra(np.roll(TRUTH, 1, axis=2))
    assert shifted.half_of(shifted.transfer) == pytest.approx(1 / 6 / VOXEL_MM, rel=0.05)


def test_only_lines_that_cross_the_mask_count_and_only_along_the_axis():
    mask = np.zeros(SHAPE, bool)
    mask[4:12, 5:20, 10:110] = True
    spoilt = blurred(3.0)
    spoilt[:4] = 100
    assert spectra(spoilt, mask).result.max() < 2
    across = spectra(blurred(3.0, axis=0))
    assert across.transfer == pytest.approx(np.full(64, across.transfer.mean()), abs=0.25)
    assert across.half_of(across.transfer) < 0.1  # lines across lose alike at every frequency
