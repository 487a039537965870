"""Three classes of known intensity: found where they are, and lost where borders move."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from throughplane.studies.tissue import tissue_dice, tissue_limits

SHAPE = (48, 48, 48)
LEVELS = np.array([200.0, 500.0, 800.0])
LABELS = (np.hypot(*(np.indices(SHAPE)[:2] - 23.5)) // 8 + np.indices(SHAPE)[2] // 12).astype(int) % 3
MASK = np.ones(SHAPE, bool)
NOISE = np.random.default_rng(0).normal(0, 1, SHAPE)
TRUTH = (LEVELS[LABELS] + 40 * NOISE).astype(np.float32)


def mean_dice(result: np.ndarray) -> float:
    return tissue_dice(TRUTH, result.astype(np.float32), MASK)["mean"]


def test_limits_lie_midway_between_classes_of_equal_width():
    limits = tissue_limits(TRUTH, MASK)
    assert (limits.dark_middle, limits.middle_bright) == pytest.approx((350, 650), abs=15)
    np.testing.assert_array_equal(limits.classes(LEVELS[LABELS]), LABELS)


def test_limits_are_the_same_every_time_and_blind_outside_the_mask():
    mask = MASK.copy()
    mask[:6] = False
    spoilt = TRUTH.copy()
    spoilt[:6] = 1e5
    assert tissue_limits(TRUTH, mask) == tissue_limits(TRUTH, mask) == tissue_limits(spoilt, mask)


def test_identical_is_one_and_classes_are_named_by_their_intensity():
    assert tissue_dice(TRUTH, TRUTH, MASK) == {"dark": 1, "middle": 1, "bright": 1, "mean": 1}
    without_dark = tissue_dice(TRUTH, np.maximum(TRUTH, 500), MASK)
    assert without_dark["dark"] == 0
    assert without_dark["bright"] == 1


def test_dice_is_that_of_the_overlap():
    """A third of the bright class turned middle: 2 (2/3) / (2/3 + 1) = 0.8."""
    bright = np.flatnonzero(LABELS.ravel() == 2)
    result = TRUTH.ravel().copy()
    result[bright[::3]] -= 300
    assert tissue_dice(TRUTH, result.reshape(SHAPE), MASK)["bright"] == pytest.approx(0.8, abs=0.005)


@pytest.mark.parametrize(
    "worse",
    [
        [np.roll(TRUTH, by, axis=2) for by in (1, 2, 4)],
        [gaussian_filter1d(TRUTH, sd, axis=2) for sd in (2, 4, 8)],
        [TRUTH + sd * NOISE[::-1] for sd in (50, 100, 200)],
    ],
    ids=["shift", "blur", "noise"],
)
def test_borders_that_move_cost(worse):
    values = [1.0, *map(mean_dice, worse)]
    assert values == sorted(values, reverse=True)
    assert values[1] < 0.99


def test_a_twin_that_fits_the_result_anew_would_miss_a_change_of_contrast():
    """Classes of the result's own limits agree; those of the truth's do not."""
    faded = (0.6 * TRUTH).astype(np.float32)
    own, truths = (tissue_limits(image, MASK) for image in (faded, TRUTH))
    assert (own.classes(faded) == truths.classes(TRUTH)).mean() > 0.99
    assert mean_dice(faded) < 0.7
