"""Scores on cases whose value is known, and against independent formulas."""

from dataclasses import astuple

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from tests.conftest import head_phantom
from throughplane.metrics import Scores, data_range_of, gradient_distances, head_mask, score, similarity_map

TRUTH = head_phantom((28, 30, 26))
MASK = TRUTH > 0
EVERYWHERE = np.ones(TRUTH.shape, bool)
RANGE = 900.0


def noise(sd: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, sd, TRUTH.shape).astype(np.float32)


def test_identical_images_score_infinity_and_one():
    assert astuple(score(TRUTH, TRUTH.copy(), MASK, RANGE)) == (float("inf"), 1.0)


@pytest.mark.parametrize("offset", [1.0, -30.0])
def test_a_constant_offset_has_the_psnr_of_its_square(offset):
    """Also where a signed mean would say otherwise: half the voxels off by plus, half by minus the offset."""
    signs = np.where(np.indices(TRUTH.shape).sum(axis=0) % 2, 1, -1)
    expected = 20 * np.log10(RANGE / abs(offset))
    for error in (offset, offset * signs):
        got = score(TRUTH, (TRUTH + error).astype(np.float32), MASK, RANGE).psnr_db
        assert got == pytest.approx(expected, abs=1e-3)  # float32 images: 3e-5 of an offset of 1 in 900


@pytest.mark.parametrize("sd", [9.0, 90.0])
def test_noise_has_the_psnr_of_its_variance(sd):
    expected = 20 * np.log10(RANGE / sd)
    four_standard_errors = 4 * 10 / np.log(10) * np.sqrt(2 / MASK.sum())
    assert score(TRUTH, TRUTH + noise(sd), MASK, RANGE).psnr_db == pytest.approx(expected, abs=four_standard_errors)


def test_ten_percent_more_noise_is_not_within_monte_carlo_error():
    four_standard_errors = 4 * 10 / np.log(10) * np.sqrt(2 / MASK.sum())
    got = score(TRUTH, TRUTH + noise(1.1 * 9.0), MASK, RANGE).psnr_db
    assert abs(got - 20 * np.log10(RANGE / 9.0)) > four_standard_errors


def test_psnr_is_scikit_images_where_the_mask_is_everything():
    image = TRUTH + noise(20)
    expected = peak_signal_noise_ratio(TRUTH.astype(np.float64), image.astype(np.float64), data_range=RANGE)
    assert score(TRUTH, image, EVERYWHERE, RANGE).psnr_db == pytest.approx(expected, rel=1e-6)


def test_ssim_is_scikit_images_where_the_mask_is_all_that_it_averages():
    """scikit-image leaves out windows that reach over the border: 5 voxels for a window of 1.5 cut off at 3.5."""
    image = TRUTH + noise(20)
    expected = structural_similarity(
        TRUTH, image, data_range=RANGE, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    inside = np.zeros(TRUTH.shape, bool)
    inside[5:-5, 5:-5, 5:-5] = True
    assert score(TRUTH, image, inside, RANGE).ssim == pytest.approx(expected, abs=1e-6)


def ssim_by_definition(truth: np.ndarray, image: np.ndarray, data_range: float) -> np.ndarray:
    """Wang et al. 2004, equation 13, with their K1 = 0.01 and K2 = 0.03; float64."""
    x, y = truth.astype(np.float64), image.astype(np.float64)
    mean = lambda v: gaussian_filter(v, 1.5, truncate=3.5, mode="reflect")  # noqa: E731
    var_x, var_y, covariance = mean(x * x) - mean(x) ** 2, mean(y * y) - mean(y) ** 2, mean(x * y) - mean(x) * mean(y)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * mean(x) * mean(y) + c1) / (mean(x) ** 2 + mean(y) ** 2 + c1)
    return luminance * (2 * covariance + c2) / (var_x + var_y + c2)


def test_ssim_is_its_definition_averaged_over_the_mask():
    image = TRUTH + noise(20)
    expected = ssim_by_definition(TRUTH, image, RANGE)[MASK].mean()
    assert score(TRUTH, image, MASK, RANGE).ssim == pytest.approx(expected, abs=1e-6)
    assert abs(ssim_by_definition(TRUTH, image, RANGE).mean() - expected) > 1e-2  # the mask matters


def test_errors_outside_the_mask_do_not_count_for_psnr():
    spoilt = np.where(MASK, TRUTH + noise(10), 500).astype(np.float32)
    expected = score(TRUTH, TRUTH + noise(10), MASK, RANGE)
    assert score(TRUTH, spoilt, MASK, RANGE).psnr_db == expected.psnr_db
    assert score(TRUTH, spoilt, EVERYWHERE, RANGE).psnr_db < expected.psnr_db - 10


@pytest.mark.parametrize("factor", [1 / 1024, 64.0])
def test_scores_do_not_depend_on_units(factor):
    """Powers of two change no mantissa."""
    image, scale = TRUTH + noise(20), np.float32(factor)
    expected = score(TRUTH, image, MASK, RANGE)
    got = score(TRUTH * scale, image * scale, MASK, RANGE * factor)
    assert astuple(got) == pytest.approx(astuple(expected), rel=1e-6)


def test_doubling_the_data_range_adds_six_decibels():
    image = TRUTH + noise(20)
    one, two = (score(TRUTH, image, MASK, data_range) for data_range in (RANGE, 2 * RANGE))
    assert two.psnr_db - one.psnr_db == pytest.approx(20 * np.log10(2), abs=1e-9)
    assert two.ssim > one.ssim


def test_more_noise_scores_less():
    scores = [score(TRUTH, TRUTH + noise(sd), MASK, RANGE) for sd in (5, 20, 80)]
    assert scores == sorted(scores, key=lambda s: (s.psnr_db, s.ssim), reverse=True)
    assert isinstance(scores[0], Scores)


def test_the_data_range_leaves_out_a_thousandth_at_either_end():
    truth = np.arange(10_001, dtype=np.float32).reshape(1, 73, 137)
    assert data_range_of(truth, np.ones(truth.shape, bool)) == pytest.approx(0.998 * 10_000, rel=1e-6)


def test_the_data_range_is_that_of_the_mask():
    hot = TRUTH.copy()
    hot[~MASK] = 1e6
    assert data_range_of(hot, MASK) == data_range_of(TRUTH, MASK)


# ---- the head mask ----

BIG = head_phantom((48, 50, 46))


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Dice."""
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


def ellipsoid(shape: tuple[int, ...]) -> np.ndarray:
    """What `head_phantom` fills."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    return (x / 0.8) ** 2 + (y / 0.9) ** 2 + ((z + 0.05) / 0.85) ** 2 < 1


@pytest.mark.parametrize("sd", [0.0, 15.0])
def test_the_head_mask_is_the_head(sd):
    noisy = np.abs(BIG + np.random.default_rng(0).normal(0, sd, BIG.shape)).astype(np.float32)
    # smoothing by a voxel before the threshold moves the outline by about half of one
    assert overlap(head_mask(noisy), ellipsoid(BIG.shape)) > 0.95


def test_holes_belong_to_the_head():
    hollow = BIG.copy()
    hollow[20:28, 20:30, 18:26] = 0
    assert head_mask(hollow)[24, 25, 22]


def test_what_lies_beside_the_head_does_not_belong_to_it():
    beside = BIG.copy()
    beside[:3, :3, :3] = BIG.max()
    assert not head_mask(beside)[:4, :4, :4].any()
    assert overlap(head_mask(beside), head_mask(BIG)) > 0.99


def test_the_head_mask_does_not_depend_on_units():
    assert np.array_equal(head_mask(BIG / np.float32(1024)), head_mask(BIG))


@pytest.mark.parametrize("value", [0.0, -3.0])
def test_where_there_is_no_signal_there_is_no_head(value):
    assert not head_mask(np.full((8, 9, 10), value, np.float32)).any()


def test_slabs_leave_no_seam_in_ssim():
    """100 rows make three slabs; scikit-image sees them at once."""
    truth = head_phantom((100, 24, 22))
    image = truth + np.random.default_rng(1).normal(0, 20, truth.shape).astype(np.float32)
    _, expected = structural_similarity(
        truth.astype(float),
        image.astype(float),
        data_range=RANGE,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    np.testing.assert_allclose(similarity_map(truth, image, RANGE), expected, atol=1e-6)


def test_gradient_distance_of_scaled_contrast_is_the_relative_change():
    """All differences times 1.2: 0.2 of the mean difference, but for the outermost 0.5 % of the quantiles."""
    truth = np.random.default_rng(0).normal(0, 1, (40, 40, 40)).astype(np.float32)
    mask = np.ones(truth.shape, bool)
    assert gradient_distances(truth, 1.2 * truth, mask) == pytest.approx([0.2] * 3, rel=0.02)
    assert gradient_distances(truth, truth, mask) == (0, 0, 0)


def test_gradient_distance_tells_the_axis_of_a_blur():
    truth = np.random.default_rng(0).normal(0, 1, (30, 30, 30)).astype(np.float32)
    blurred = gaussian_filter(truth, (0, 0, 2), mode="wrap")
    a, b, c = gradient_distances(truth, blurred / blurred.std(), np.ones(truth.shape, bool))
    assert c > 10 * max(a, b)
