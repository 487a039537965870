"""HaarPSI against its definition, and on images whose order is known."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d
from scipy.signal import convolve2d

from tests.conftest import head_phantom
from throughplane.studies.perception import haarpsi, haarpsi_of_planes

TRUTH = head_phantom((40, 44, 48))
MASK = TRUTH > 0
WINDOW = (0.0, 900.0)


def by_definition(x: np.ndarray, y: np.ndarray) -> float:
    """Reisenhofer et al. 2018 with full 2-D convolutions, at half the size."""
    halved = [convolve2d(image, np.full((2, 2), 0.25))[1::2, 1::2] for image in (x, y)]
    similarity, weight = 0.0, 0.0
    for turned in (False, True):
        g = []
        for image in halved:
            scales = []
            for size in (2, 4, 8):
                step = np.repeat([1.0, -1.0], size // 2)[:, None] * np.ones(size) / size
                full = convolve2d(image, step.T if turned else step)
                scales.append(np.abs(full[size // 2 :, size // 2 :][: image.shape[0], : image.shape[1]]))
            g.append(scales)
        local = sum((2 * p * q + 30) / (p**2 + q**2 + 30) for p, q in zip(g[0][:2], g[1][:2], strict=True)) / 2
        heavy = np.maximum(g[0][2], g[1][2])
        similarity += (heavy / (1 + np.exp(-4.2 * local))).sum()
        weight += heavy.sum()
    share = similarity / weight
    return float((np.log(share / (1 - share)) / 4.2) ** 2)


@pytest.mark.parametrize("shape", [(32, 40), (33, 40), (31, 37)])
def test_haarpsi_is_its_definition(shape):
    rng = np.random.default_rng(3)
    x = rng.uniform(0, 255, shape)
    y = np.clip(x + rng.normal(0, 40, shape), 0, 255)
    got = float(haarpsi(torch.tensor(x)[None], torch.tensor(y)[None])[0])
    assert got == pytest.approx(by_definition(x, y), abs=1e-6)
    assert got < 0.95


def test_haarpsi_is_that_of_piq():
    """Regression: `piq.haarpsi(x[:, None], y[:, None], reduction="none", data_range=255)` of piq 0.8.0."""
    x = np.random.default_rng(1).uniform(0, 255, (3, 9, 10)).repeat(5, 1).repeat(4, 2)
    y = np.clip(x + np.random.default_rng(2).normal(0, 20, x.shape), 0, 255)
    got = haarpsi(torch.tensor(x), torch.tensor(y)).numpy()
    assert got == pytest.approx([0.616236905408, 0.627361279802, 0.629701488778], abs=1e-9)


def similarity(result: np.ndarray) -> float:
    return haarpsi_of_planes(TRUTH, result.astype(np.float32), MASK, 2, WINDOW)


def test_identical_is_one():
    assert similarity(TRUTH) == pytest.approx(1, abs=1e-9)


def test_blur_noise_and_shift_all_cost_and_more_costs_more():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1, TRUTH.shape)
    for worse in (
        [gaussian_filter1d(TRUTH, sd, axis=2) for sd in (1, 2, 4)],
        [TRUTH + sd * noise for sd in (20, 60, 180)],
        [np.roll(TRUTH, by, axis=2) for by in (1, 2, 4)],
    ):
        values = [1.0, *map(similarity, worse)]
        assert values == sorted(values, reverse=True)
        assert values[1] < 0.99


def test_what_lies_beyond_the_window_is_cut_off_as_on_a_display():
    bright = np.where(TRUTH > 600, 1e4, TRUTH)
    clipped = np.where(TRUTH > 600, 900, TRUTH)
    assert similarity(bright) == similarity(clipped)


def test_slices_that_do_not_cross_the_mask_do_not_count():
    mask = MASK.copy()
    mask[:20] = False
    mask[:, :20] = False
    spoilt = TRUTH.copy()
    spoilt[:20, :20] = 0
    assert haarpsi_of_planes(TRUTH, spoilt, mask, 2, WINDOW) == pytest.approx(1, abs=1e-9)
    assert similarity(spoilt) < 0.99
