"""Spectra of isotropic texture agree at the true slice profile and nowhere else; the estimate keeps its promises."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from eclare import estimate_from_spectra
from eclare.profile_estimation import FAMILIES
from eclare.profile_spectra import ALONG, WIDTHS, Spectra, spectra, transform
from forward_models import Box, Gaussian, InputRefused, SliceProfile, Volume, simulate, slr, volume_from_image
from tests.conftest import nib_image
from tests.eclare.test_profile_estimation import texture

SHAPE = (64, 72, 96)


@pytest.fixture(scope="module")
def thin() -> Volume:
    return volume_from_image(nib_image(texture(SHAPE)), None)


@pytest.fixture(scope="module")
def scan(thin) -> Volume:
    return simulate(thin, slr(4.0), 0.0, axis=2)


def mismatch(thin: Volume, truth: SliceProfile, family: str, width: float, spacing: float = 4.0) -> np.ndarray:
    """ln(through / within) of the candidate nearest to `width`, mean over axes and bands across, by band along."""
    scan = simulate(thin, truth, spacing - truth.fwhm_mm, axis=2)
    found = spectra(transform(scan.data, spacing), (1.0, 1.0), spacing, [(0, scan.data.shape[2])])[0]
    ratio, _ = found.log_ratio_and_power()
    nearest = int(np.abs(np.log(WIDTHS / width)).argmin())
    return ratio[list(FAMILIES).index(family) * len(WIDTHS) + nearest, :, :, 1:].mean(axis=(0, 2))


@pytest.mark.parametrize(
    ("truth", "family"), [(Gaussian(WIDTHS[13]), "gaussian"), (Box(WIDTHS[15]), "box")], ids=["gaussian", "box"]
)
def test_spectra_agree_at_the_truth_and_not_at_another_width(thin, truth, family):
    assert np.abs(mismatch(thin, truth, family, truth.fwhm_mm)[1:]).max() < 0.35  # sampling error of one small field
    assert mismatch(thin, truth, family, 1.5 * truth.fwhm_mm)[-1] > 0.6
    assert mismatch(thin, truth, family, truth.fwhm_mm / 1.5)[-2] < -0.35


def test_near_the_nyquist_frequency_a_gaussian_is_no_box_of_equal_variance(thin):
    truth = Gaussian(WIDTHS[15])
    box = np.sqrt(12 * truth.variance_mm2)
    right, wrong = mismatch(thin, truth, "gaussian", truth.fwhm_mm), mismatch(thin, truth, "box", box)
    assert np.abs(wrong - right)[0] < 0.1
    assert np.abs(wrong - right)[-1] > 0.8


def test_white_noise_is_taken_off_both_sides(thin):
    clean = simulate(thin, slr(4.0), 0.0, axis=2).data
    noisy = clean + np.random.default_rng(0).normal(size=clean.shape).astype(np.float32) * 0.1 * clean.std()
    first, second = (
        spectra(transform(slices, 4.0), (1.0, 1.0), 4.0, [(0, slices.shape[2])])[0].log_ratio_and_power()[0]
        for slices in (clean, noisy)
    )
    nearest = len(WIDTHS) + int(np.abs(np.log(WIDTHS / 4)).argmin())
    assert np.abs(first - second)[nearest].mean() < 0.15


@pytest.mark.parametrize(("fwhm_mm", "spacing_mm"), [(3.0, 2.0), (4.0, 3.0), (5.0, 4.0), (6.0, 4.0)])
def test_recovers_a_known_width(thin, fwhm_mm, spacing_mm):
    profile, _ = estimate_from_spectra(simulate(thin, slr(fwhm_mm), spacing_mm - fwhm_mm, axis=2))
    assert profile.fwhm_mm == pytest.approx(fwhm_mm, rel=0.2)  # the shape is hardly known


def test_the_profile_and_its_posterior_sum_to_one_and_bands_hold_the_estimate(scan):
    profile, trace = estimate_from_spectra(scan)
    assert profile.weights.min() >= 0
    assert profile.weights.sum() == pytest.approx(1.0)
    assert profile.fwhm_mm == pytest.approx(trace.fwhm_mm)
    assert trace.fit is not None
    assert sum(share.sum() for share in trace.fit.posterior.values()) == pytest.approx(1.0, abs=1e-5)
    assert trace.plausible_mm[0] < trace.fwhm_mm < trace.plausible_mm[1]
    assert trace.repeatability_mm[0] <= trace.fwhm_mm <= trace.repeatability_mm[1]


def test_scaling_flips_and_another_slice_axis_change_nothing(scan):
    usual = estimate_from_spectra(scan)[1].fwhm_mm
    scaled = replace(scan, data=scan.data * np.float32(37.3))
    flipped = replace(scan, data=np.ascontiguousarray(scan.data[::-1, :, ::-1]))
    moved = volume_from_image(nib_image(np.moveaxis(scan.data, 2, 0), (4.0, 1.0, 1.0)), None)
    for other in (scaled, flipped, moved):
        assert estimate_from_spectra(other)[1].fwhm_mm == pytest.approx(usual, rel=1e-3)


def test_lengths_scale_with_the_voxels(scan):
    small = volume_from_image(nib_image(scan.data, (0.5, 0.5, 2.0)), None)
    assert estimate_from_spectra(small)[1].fwhm_mm == pytest.approx(
        estimate_from_spectra(scan)[1].fwhm_mm / 2, rel=0.01
    )


def test_the_same_seed_gives_the_same_band(scan):
    first, second, other = (
        estimate_from_spectra(scan, generator=torch.Generator().manual_seed(seed))[1].repeatability_mm
        for seed in (1, 1, 2)
    )
    assert first == second
    assert first != other


def test_candidates_far_wider_than_the_spacing_get_nothing(scan):
    fit = estimate_from_spectra(scan)[1].fit
    assert fit is not None
    wide = fit.candidates_mm > 2.5 * 4.0
    assert all(share[wide].sum() < 1e-3 for share in fit.posterior.values())


@pytest.mark.parametrize(("stretch", "doubted"), [(1, False), (8, True)], ids=["isotropic", "columns"])
def test_objects_with_directions_of_their_own_are_doubted(stretch, doubted):
    """Columns across the slices look like wide slices at some frequencies and like thin ones at others."""
    field = np.repeat(texture((64, 64, 96), power=2.0)[:, :, : 96 // stretch], stretch, axis=2)
    scan = simulate(volume_from_image(nib_image(field), None), slr(3.0), 0.0, axis=2)
    assert any("directions of its own" in doubt for doubt in estimate_from_spectra(scan)[1].doubts) == doubted


def test_few_slices_are_refused(scan):
    few = volume_from_image(nib_image(scan.data[:, :, :7], (1.0, 1.0, 4.0)), None)
    with pytest.raises(InputRefused, match="7 slices; estimating a slice profile needs at least 8; pass --thickness"):
        estimate_from_spectra(few)


@pytest.mark.parametrize(
    "slices",
    [np.full((32, 32, 12), 7.0, np.float32), texture((64, 72, 16), power=0.0)],
    ids=["constant", "nothing but noise"],
)
def test_slices_without_structure_are_refused(slices):
    with pytest.raises(InputRefused, match="hold no structure"):
        estimate_from_spectra(volume_from_image(nib_image(slices, (1.0, 1.0, 6.0)), None))


def test_spectra_without_power_are_refused():
    nothing = np.zeros((3 * len(WIDTHS), 2, len(ALONG) - 1, 6))
    with pytest.raises(InputRefused, match="hold no structure"):
        Spectra(nothing, nothing).log_ratio_and_power()
