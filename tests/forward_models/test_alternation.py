"""Brightness that alternates from slice to slice: found where it is, not where anatomy merely changes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forward_models.alternation import alternation
from forward_models.volume import volume_from_image
from tests.conftest import nib_image


def smooth_head(count: int = 24, seed: int = 0, noise: float = 0.02) -> np.ndarray:
    """An ellipsoid whose brightness changes along the slices, by a third over the stack, and noise."""
    a, b, k = np.meshgrid(*(np.linspace(-1, 1, n) for n in (48, 50, count)), indexing="ij")
    inside = (a / 0.9) ** 2 + (b / 0.95) ** 2 + (k / 1.6) ** 2 < 1
    grain = 1 + noise * np.random.default_rng(seed).standard_normal(a.shape)
    return 400 * inside * (1 + 0.3 * k + 0.2 * np.sin(4 * k + a)) * grain


def by_turns(slices: np.ndarray, log_gain: float) -> np.ndarray:
    return slices * np.exp(np.where(np.arange(slices.shape[-1]) % 2, -log_gain, log_gain))


@given(log_gain=st.floats(-0.1, 0.1), seed=st.integers(0, 9), count=st.integers(14, 40))
def test_the_gain_is_found_to_its_stated_error(log_gain, seed, count):
    found = alternation(by_turns(smooth_head(count, seed), log_gain))
    assert found.error < 0.01
    assert abs(found.log_gain - log_gain) < max(0.002, 4 * found.error)


def test_smooth_change_and_noise_are_no_alternation():
    for seed in range(10):
        assert not alternation(smooth_head(seed=seed, noise=0.1)).is_clear


def test_a_slow_wave_of_brightness_is_none_either():
    slices = smooth_head()
    assert not alternation(slices * (1 + 0.1 * np.sin(np.arange(slices.shape[-1]) * 2 * np.pi / 6))).is_clear


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_undone_leaves_none(axis):
    """And a twin that makes the brighter slices brighter still does not."""
    stack = by_turns(smooth_head(), 0.03)
    volume = volume_from_image(nib_image(np.moveaxis(stack, -1, axis).astype(np.float32)))
    found = alternation(stack)
    assert found.is_clear
    even = np.moveaxis(found.undone(volume, axis).data, axis, -1)
    assert abs(alternation(even).log_gain) < 1e-5
    assert alternation(by_turns(stack, found.log_gain)).log_gain > 0.05


@pytest.mark.parametrize("slices", [np.zeros((40, 40, 12)), smooth_head()[..., :9], -smooth_head()])
def test_what_cannot_be_compared_is_not_clear(slices):
    assert not alternation(slices).is_clear
    assert "nothing is undone" in str(alternation(slices).note(undone=True))
    assert alternation(slices).note(undone=False) is None
