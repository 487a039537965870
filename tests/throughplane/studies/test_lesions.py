"""Lesions kept, halved, erased and invented, in a phantom where each is known."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from throughplane.studies.lesions import Lesion, lesion_measures, lesions_in

SHAPE = (60, 60, 60)
VOXEL_MM = (1.0, 1.0, 1.0)
MASK = np.zeros(SHAPE, bool)
MASK[4:-4, 4:-4, 4:-4] = True
NOISE = gaussian_filter(np.random.default_rng(0).normal(0, 1, SHAPE), 0.6)
BACKGROUND = np.where(MASK, 500 + 20 * NOISE / NOISE.std(), 0)


def ball(centre: tuple[int, int, int], radius: float) -> np.ndarray:
    return sum((i - c) ** 2 for i, c in zip(np.indices(SHAPE), centre, strict=True)) <= radius**2


SMALL, MIDDLE, LARGE = ball((15, 15, 15), 1.5), ball((15, 42, 30), 2.3), ball((42, 20, 40), 4)  # 19, 57, 257 mm3
LESIONS = SMALL | MIDDLE | LARGE
ELSEWHERE = ball((42, 44, 14), 2)


def image(small: float = 1, middle: float = 1, large: float = 1, elsewhere: float = 0, contrast: float = 200):
    """The background, with these shares of the contrast."""
    shares = small * SMALL + middle * MIDDLE + large * LARGE + elsewhere * ELSEWHERE
    return (BACKGROUND + contrast * shares).astype(np.float32)


def measures(result: np.ndarray, truth: np.ndarray | None = None) -> dict[str, float]:
    return lesion_measures(image() if truth is None else truth, result, LESIONS, MASK, VOXEL_MM)


def test_identical_keeps_all_and_invents_nothing():
    assert measures(image()) == {
        "lesions_visible_count/lesions": 3,
        "lesions_kept_ratio/lesions": 1,
        "lesions_visible_count/lesions_under_30_mm3": 1,
        "lesions_kept_ratio/lesions_under_30_mm3": 1,
        "lesions_visible_count/lesions_30_to_100_mm3": 1,
        "lesions_kept_ratio/lesions_30_to_100_mm3": 1,
        "lesions_visible_count/lesions_from_100_mm3": 1,
        "lesions_kept_ratio/lesions_from_100_mm3": 1,
        "false_spots_per_litre": 0,
    }


@pytest.mark.parametrize(("share", "kept"), [(0.6, 1), (0.4, 0), (0.0, 0), (-1.0, 0)], ids=str)
def test_a_lesion_is_kept_with_half_its_contrast_and_lost_with_less(share, kept):
    got = measures(image(small=share))
    assert got["lesions_kept_ratio/lesions_under_30_mm3"] == kept
    assert got["lesions_kept_ratio/lesions"] == pytest.approx((2 + kept) / 3)
    assert got["lesions_kept_ratio/lesions_from_100_mm3"] == 1


def lesions(result: np.ndarray, voxel_mm: tuple[float, float, float] = VOXEL_MM) -> list[Lesion]:
    """Smallest first, on a background without texture."""
    flat = [(data - BACKGROUND).astype(np.float32) for data in (image(), result)]
    return sorted(lesions_in(*flat, LESIONS, MASK, voxel_mm), key=lambda lesion: lesion.volume_mm3)


def test_contrast_is_that_of_the_phantom():
    found = lesions(image(0.5, 0.25, 0))
    assert [lesion.volume_mm3 for lesion in found] == [19, 57, 257]
    assert [lesion.in_truth for lesion in found] == pytest.approx([200] * 3)
    assert [lesion.in_result for lesion in found] == pytest.approx([100, 50, 0], abs=1e-3)


def test_volumes_are_in_mm3():
    assert [lesion.volume_mm3 for lesion in lesions(image())] == [19, 57, 257]
    assert [lesion.volume_mm3 for lesion in lesions(image(), (0.5, 1.0, 1.2))] == pytest.approx([11.4, 34.2, 154.2])


def test_blur_along_the_slices_erases_small_lesions_first():
    got = measures(gaussian_filter1d(image(), 2.5, axis=2))
    assert got["lesions_kept_ratio/lesions_under_30_mm3"] == 0
    assert got["lesions_kept_ratio/lesions_from_100_mm3"] == 1
    assert got["false_spots_per_litre"] == 0


@pytest.mark.parametrize(("share", "spots"), [(1.2, 1), (0.4, 0), (-1.2, 0)], ids=str)
def test_an_invented_lesion_is_a_false_spot_a_faint_or_dark_one_is_none(share, spots):
    litres = MASK.sum() / 1e6
    got = measures(image(elsewhere=share))
    assert got["false_spots_per_litre"] == pytest.approx(spots / litres)
    assert got["lesions_kept_ratio/lesions"] == 1


def test_what_the_truth_shows_too_is_no_false_spot():
    assert measures(image(elsewhere=1.2), truth=image(elsewhere=0.9))["false_spots_per_litre"] == 0


def test_dark_lesions_are_measured_alike():
    """As on a T1-weighted image: the sign is that of the lesions."""
    truth, invented = image(contrast=-200), image(small=0, elsewhere=1.2, contrast=-200)
    got = measures(invented, truth)
    assert got["lesions_kept_ratio/lesions"] == pytest.approx(2 / 3)
    assert got["false_spots_per_litre"] > 0


def test_lesions_that_the_truth_does_not_show_are_not_asked_for():
    got = measures(image(small=0), truth=image(small=0.02))
    assert got["lesions_visible_count/lesions"] == 2
    assert "lesions_kept_ratio/lesions_under_30_mm3" not in got
    assert measures(image(), truth=BACKGROUND.astype(np.float32)) == {}


def test_a_twin_that_looks_at_brightness_instead_of_contrast_would_be_fooled():
    """Everything brighter by a lesion's contrast: erased lesions stay erased, and nothing is invented."""
    got = measures(image(0, 0, 0) + 200)
    assert got["lesions_kept_ratio/lesions"] == 0
    assert got["false_spots_per_litre"] == 0
