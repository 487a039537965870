"""Every measure of a study on one small case: present under its name, best for the truth, worse for what is worse."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from forward_models import InputRefused, volume_from_image
from tests.conftest import head_phantom, oblique_affine, placed_image
from throughplane.studies.cases import Case, case_of
from throughplane.studies.measures import Curves, measure
from throughplane.studies.records import Degradation

SHAPE = (40, 44, 52)
AFFINE = oblique_affine((1.0, 1.0, 1.0))
HEAD = head_phantom(SHAPE)
BRAIN = head_phantom(SHAPE) > 400
RANGE = "p0.1-99.9"


def lesion_mask() -> np.ndarray:
    """A few blobs in the brain."""
    places = np.argwhere(BRAIN)[np.random.default_rng(5).integers(0, BRAIN.sum(), 8)]
    index = np.indices(SHAPE)
    return np.any([sum((i - c) ** 2 for i, c in zip(index, at, strict=True)) <= 4 for at in places], axis=0) & BRAIN


LESIONS = lesion_mask()


def case(noise_sd: float = 0.0, masks: bool = True) -> Case:
    data = HEAD + 400 * LESIONS + np.random.default_rng(0).normal(0, 8, SHAPE) * BRAIN
    thin, brain, lesions = (
        volume_from_image(placed_image(np.asarray(part, np.float32), AFFINE))
        for part in (np.maximum(data, 0), BRAIN, LESIONS)
    )
    outlines = {"brain": brain, "lesions": lesions} if masks else {}
    return case_of(thin, Degradation(4.0, 0.0, "gaussian", noise_sd), **outlines)


CASE = case()
TRUTH = np.asarray(CASE.truth.data, np.float32)


def values(data: np.ndarray, of: Case = CASE) -> dict[str, float]:
    return dict(measure(of, replace(of.truth, data=data.astype(np.float32)))[0])


@pytest.fixture(scope="module")
def both() -> tuple[dict[str, float], Curves]:
    measures, curves = measure(CASE, replace(CASE.truth, data=TRUTH.copy()))
    return dict(measures), curves


@pytest.fixture(scope="module")
def perfect(both) -> dict[str, float]:
    return both[0]


@pytest.fixture(scope="module")
def blurred() -> dict[str, float]:
    return values(gaussian_filter1d(TRUTH, 2.0, axis=CASE.axis))


@pytest.fixture(scope="module")
def noisy() -> dict[str, float]:
    noise = np.random.default_rng(1).normal(0, 0.05 * CASE.data_range, TRUTH.shape)
    return values(TRUTH + noise)


@pytest.fixture(scope="module")
def shifted() -> dict[str, float]:
    return values(np.roll(TRUTH, 1, axis=CASE.axis))


BEST = {
    f"ssim/head/{RANGE}": 1,
    f"ssim/whole/{RANGE}": 1,
    f"ssim/brain/{RANGE}": 1,
    f"haarpsi/head/{RANGE}": 1,
    "gradient_distance/head": 0,
    "gradient_distance_through_plane/head": 0,
    "transfer_half_per_mm/head": 0.5,
    "ring_correlation_half_per_mm/head": 0.5,
    "log_spectral_distance_db/head": 0,
    "dice_dark/brain": 1,
    "dice_middle/brain": 1,
    "dice_bright/brain": 1,
    "dice_mean/brain": 1,
    "lesions_kept_ratio/lesions": 1,
    "false_spots_per_litre/brain": 0,
}


@pytest.mark.parametrize(("name", "best"), BEST.items(), ids=list(BEST))
def test_the_truth_measures_best(perfect, name, best):
    assert perfect[name] == pytest.approx(best, abs=1e-6)


def test_psnr_of_the_truth_is_left_out_because_it_is_infinite(perfect, noisy):
    assert not any(name.startswith("psnr") for name in perfect)
    assert noisy[f"psnr_db/whole/{RANGE}"] == pytest.approx(-20 * np.log10(0.05), abs=0.05)  # Monte Carlo


NOTICED = [name for name in BEST if name.startswith(("ssim", "haarpsi", "gradient", "log", "dice"))]


@pytest.mark.parametrize("worse", ["blurred", "noisy", "shifted"])
def test_blur_noise_and_shift_are_all_noticed(request, perfect, worse):
    """Except that a shift has the gradients of the truth."""
    got = request.getfixturevalue(worse)
    blind = {name for name in NOTICED if abs(got[name] - perfect[name]) < 0.01}
    assert blind == (
        {"gradient_distance/head", "gradient_distance_through_plane/head"} if worse == "shifted" else set()
    )
    assert all((got[name] < perfect[name]) == (BEST[name] == 1) for name in set(NOTICED) - blind)


def test_blur_lowers_what_comes_back_but_noise_does_not(blurred, noisy):
    """FWHM 4.71 mm: 0.4413 / FWHM."""
    assert blurred["transfer_half_per_mm/head"] == pytest.approx(0.4413 / 4.71, rel=0.15)  # bins of 0.02 per mm
    assert noisy["transfer_half_per_mm/head"] == pytest.approx(0.5)


def test_whole_volume_is_scikit_images(noisy):
    noise = np.random.default_rng(1).normal(0, 0.05 * CASE.data_range, TRUTH.shape)
    found = (TRUTH + noise).astype(np.float32).astype(float)
    truth = TRUTH.astype(float)
    psnr = peak_signal_noise_ratio(truth, found, data_range=CASE.data_range)
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    ssim = structural_similarity(truth, found, data_range=CASE.data_range, **window)
    assert noisy[f"psnr_db/whole/{RANGE}"] == pytest.approx(psnr, abs=1e-6)
    assert noisy[f"ssim/whole/{RANGE}"] == pytest.approx(ssim, abs=1e-6)
    masked = peak_signal_noise_ratio(truth[CASE.mask], found[CASE.mask], data_range=CASE.data_range)
    assert noisy[f"psnr_db/head/{RANGE}"] == pytest.approx(masked, abs=1e-6)


def test_a_residual_as_large_as_the_noise_has_ratio_one(perfect):
    """The truth explains the scan to its noise; where there is none, there is no ratio."""
    got = values(TRUTH, case(noise_sd=0.03, masks=False))
    assert got["residual_to_noise/scan"] == pytest.approx(1)
    assert got["residual/scan"] == got["residual_of_truth/scan"] > 0.01
    assert "residual_to_noise/scan" not in perfect


def test_what_does_not_explain_the_scan_has_a_residual(perfect, blurred):
    assert perfect["residual/scan"] < 0.01 < 0.05 < blurred["residual/scan"]


def test_without_masks_tissue_is_that_of_the_head_and_lesions_are_left_out():
    got = values(TRUTH, case(masks=False))
    assert got["dice_mean/head"] == 1
    assert not any("brain" in name or "lesion" in name or "spots" in name for name in got)


def test_curves_have_columns_of_equal_length(both):
    (spectrum,) = both[1].values()
    assert {len(column) for column in spectrum.values()} == {len(spectrum["cycles_per_mm"])}
    assert next(iter(spectrum)) == "cycles_per_mm"
    assert spectrum["error_power"] == [0] * len(spectrum["cycles_per_mm"])


def test_a_result_on_another_grid_or_with_gaps_is_refused():
    with pytest.raises(InputRefused, match=r"has shape .* measures need one grid"):
        values(TRUTH[1:])
    with pytest.raises(InputRefused, match="not finite"):
        values(np.where(CASE.mask, np.nan, TRUTH))
