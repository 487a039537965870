"""Slice profiles are told from isotropic texture, and said to be untold where they are."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from eclare import ProfileConfig, estimate_profile
from eclare.profile_estimation import lags_for, noise_power
from forward_models import Box, Gaussian, InputRefused, Volume, simulate, slr, volume_from_image
from tests.conftest import nib_image

SHAPE = (64, 72, 96)


def texture(shape=SHAPE, power=3.0, seed=0) -> np.ndarray:
    """A random field without preferred direction, rough as heads are: power falls as frequency ** -power."""
    rng = np.random.default_rng(seed)
    frequency = np.sqrt(sum(f**2 for f in np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij")))
    amplitude = np.maximum(frequency, 0.03) ** (-power / 2)
    field = np.fft.ifftn(np.fft.fftn(rng.normal(size=shape)) * amplitude).real
    return (500 + 100 * field / field.std()).astype(np.float32)


@pytest.fixture(scope="module")
def thin() -> Volume:
    return volume_from_image(nib_image(texture()), None)


@pytest.fixture(scope="module")
def scan(thin) -> Volume:
    return simulate(thin, slr(4.0), 0.0, axis=2)


@pytest.mark.parametrize(("fwhm_mm", "spacing_mm"), [(3.0, 2.0), (4.0, 3.0), (5.0, 4.0), (6.0, 4.0)])
def test_recovers_a_known_width(thin, fwhm_mm, spacing_mm):
    scan = simulate(thin, slr(fwhm_mm), spacing_mm - fwhm_mm, axis=2)
    profile, trace = estimate_profile(scan)
    assert profile.fwhm_mm == pytest.approx(fwhm_mm, rel=0.2)  # the shape is unknown
    assert trace.informative


@pytest.mark.parametrize("profile", [Gaussian(4.0), slr(4.0), Box(5.0)], ids=["gaussian", "slr", "box"])
def test_recovers_the_standard_deviation_whatever_the_shape(thin, profile):
    scan = simulate(thin, profile, 4.0 - profile.fwhm_mm, axis=2)
    _, trace = estimate_profile(scan)
    assert trace.sd_mm == pytest.approx(np.sqrt(profile.variance_mm2), rel=0.15)


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_noise_does_not_make_slices_thinner(thin, share):
    """Noise differs between slices as thin slices do; 0.3 of the texture's standard deviation read 3.1 before."""
    clean = simulate(thin, slr(4.0), 0.0, axis=2)
    noise = np.random.default_rng(0).normal(size=clean.data.shape) * share * clean.data.std()
    noisy = replace(clean, data=(clean.data + noise).astype(np.float32))
    assert estimate_profile(noisy)[1].fwhm_mm == pytest.approx(estimate_profile(clean)[1].fwhm_mm, rel=0.1)


def test_the_noise_power_of_white_noise_is_its_variance_per_sample():
    noise = np.random.default_rng(0).normal(size=(3, 64, 80)) * np.array([1.0, 2.0, 0.0])[:, None, None]
    power = np.abs(np.fft.fft2(noise)) ** 2 / (64 * 80)
    assert noise_power(power)[:, 0, 0] == pytest.approx([1.0, 4.0, 0.0], rel=0.4)  # Monte Carlo, some 50 samples


def test_wider_slices_give_wider_estimates(thin):
    widths = [estimate_profile(simulate(thin, slr(mm), 4.0 - mm, axis=2))[1].fwhm_mm for mm in (2.5, 4.0, 6.0)]
    assert widths[0] < widths[1] < widths[2]


def test_the_profile_is_positive_symmetric_and_sums_to_one(scan):
    profile, trace = estimate_profile(scan)
    assert profile.weights.min() >= 0
    assert profile.weights.sum() == pytest.approx(1.0)
    assert np.array_equal(profile.weights, profile.weights[::-1])
    assert profile.fwhm_mm == pytest.approx(trace.fwhm_mm)
    assert profile.variance_mm2 == pytest.approx(trace.sd_mm**2)


def test_the_posterior_sums_to_one_and_holds_the_estimate(scan):
    _, trace = estimate_profile(scan)
    assert trace.fit is not None
    assert sum(share.sum() for share in trace.fit.posterior.values()) == pytest.approx(1.0)
    assert trace.plausible_mm[0] < trace.fwhm_mm < trace.plausible_mm[1]
    assert trace.repeatability_mm[0] <= trace.repeatability_mm[1]


def test_variograms_agree_at_the_estimate(scan):
    fit = estimate_profile(scan)[1].fit
    assert fit is not None
    assert np.abs(np.log(fit.through_plane / fit.in_plane)).max() < 0.35  # sampling error of one small field


def test_intensity_scaling_changes_nothing(scan):
    scaled = replace(scan, data=scan.data * np.float32(37.3))
    assert estimate_profile(scaled)[1].fwhm_mm == pytest.approx(estimate_profile(scan)[1].fwhm_mm, rel=1e-3)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_flips_change_nothing(scan, axis):
    flipped = replace(scan, data=np.ascontiguousarray(np.flip(scan.data, axis)))
    assert estimate_profile(flipped)[1].fwhm_mm == pytest.approx(estimate_profile(scan)[1].fwhm_mm, rel=1e-6)


def test_any_slice_axis_gives_the_same(scan):
    moved = volume_from_image(nib_image(np.moveaxis(scan.data, 2, 0), (4.0, 1.0, 1.0)), None)
    assert estimate_profile(moved)[1].fwhm_mm == pytest.approx(estimate_profile(scan)[1].fwhm_mm, rel=1e-6)


def test_the_same_seed_gives_the_same_band(scan):
    first, second, other = (
        estimate_profile(scan, generator=torch.Generator().manual_seed(seed))[1].repeatability_mm for seed in (1, 1, 2)
    )
    assert first == second
    assert first != other


def test_the_input_stays_unchanged(scan):
    before = scan.data.copy()
    estimate_profile(scan)
    assert np.array_equal(scan.data, before)


def test_slices_that_have_nothing_in_common_tell_nothing():
    rough = volume_from_image(nib_image(texture(power=1.5)), None)
    _, trace = estimate_profile(simulate(rough, Gaussian(2.0), 6.0, axis=2))
    assert not trace.informative
    assert "too little information" in trace.doubts[0]
    assert trace.plausible_mm[1] / trace.plausible_mm[0] > 2


def test_slices_of_nothing_but_noise_are_refused():
    noise = volume_from_image(nib_image(texture((64, 72, 16), power=0.0), (1.0, 1.0, 6.0)), None)
    with pytest.raises(InputRefused, match="hold no structure"):
        estimate_profile(noise)


def test_an_estimate_at_the_end_of_the_range_is_not_trusted(scan):
    config = ProfileConfig(narrowest_ratio=0.9, widest_mm=1.8)
    _, trace = estimate_profile(scan, config=config)
    assert not trace.informative
    assert "end of the range searched" in trace.doubts[0]


def test_few_slices_are_refused(scan):
    few = volume_from_image(nib_image(scan.data[:, :, :7], (1.0, 1.0, 4.0)), None)
    with pytest.raises(InputRefused, match="7 slices; estimating a slice profile needs at least 8; pass --thickness"):
        estimate_profile(few)


def test_constant_slices_are_refused():
    constant = volume_from_image(nib_image(np.full((32, 32, 12), 7.0, np.float32), (1.0, 1.0, 4.0)), None)
    with pytest.raises(InputRefused, match="hold no structure"):
        estimate_profile(constant)


def test_lags_reach_as_far_as_asked_and_stay_within_the_stack():
    config = ProfileConfig()
    assert lags_for(100, 2.0, config).tolist() == [1, 2, 3, 4, 7, 12]
    assert lags_for(30, 8.0, config).tolist() == [1, 2, 3]
    assert lags_for(8, 2.0, config).max() <= 4
