"""Resampling keeps the field of view, constants and ramps, and does not alias."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from forward_models import SliceGrid, resample, resampling_weights, same_field_of_view

RATIOS = [(1.0, 0.37), (5.0, 1.0), (1.0, 1.0), (0.9, 1.0), (0.43, 1.1), (1.0, 2.3), (3.3, 0.9)]


@pytest.mark.parametrize(("old", "new"), RATIOS)
@pytest.mark.parametrize("count", [9, 24])
def test_constants_and_ramps_survive(old, new, count):
    source = SliceGrid(count, old, middle_mm=2.5)
    target = same_field_of_view(source, new)
    weights = resampling_weights(source, target).numpy()
    assert weights.sum(axis=1) == pytest.approx(np.ones(target.count), abs=1e-10)
    assert weights @ source.centres_mm == pytest.approx(target.centres_mm, abs=1e-9)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_any_axis_gives_the_same(axis):
    x = torch.randn(12, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = resample(x.movedim(axis, 0), 4.0, 1.5, axis=0).movedim(0, axis)
    assert torch.allclose(resample(x, 4.0, 1.5, axis=axis), expected)


def test_interpolation_agrees_with_scipy_away_from_the_ends():
    """Independent oracle: scipy's B-spline at the same positions."""
    x = np.random.default_rng(0).normal(size=40)
    source, target = SliceGrid(40, 3.0), same_field_of_view(SliceGrid(40, 3.0), 0.8)
    ours = resampling_weights(source, target).numpy() @ x
    theirs = ndimage.map_coordinates(x, [(target.centres_mm - source.first_mm) / 3.0], order=3, mode="mirror")
    inner = slice(45, -45)
    assert ours[inner] == pytest.approx(theirs[inner], abs=1e-6)


def test_a_flip_commutes():
    x = torch.randn(5, 17, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.allclose(resample(x.flip(-1), 1.0, 2.3), resample(x, 1.0, 2.3).flip(-1))


def test_going_down_after_going_up_returns_the_samples():
    x = torch.randn(3, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.allclose(resample(resample(x, 2.0, 0.5), 0.5, 2.0), x)


def test_going_down_does_not_alias():
    """A wave of 1.3 mm cannot live on a 1 mm grid; sampling it as it is would fold it to 4.3 mm."""
    z = SliceGrid(400, 0.1).centres_mm
    wave, slow = np.sin(2 * np.pi * z / 1.3), np.sin(2 * np.pi * z / 8.0)
    kept = resample(torch.from_numpy(np.stack([wave, slow])), 0.1, 1.0)[:, 4:-4]
    assert float(kept[0].square().mean().sqrt()) < 0.1 * np.sqrt(0.5)
    assert float(kept[1].square().mean().sqrt()) == pytest.approx(np.sqrt(0.5), rel=0.05)


def test_one_sample_cannot_be_resampled():
    with pytest.raises(ValueError, match="at least 2 samples"):
        resample(torch.zeros(1), 1.0, 0.5)
