"""Noise levels."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from focvs import noise_levels


@given(steps=st.integers(2, 200), least=st.floats(1e-3, 0.1), ratio=st.floats(1.5, 1e4), rho=st.floats(1, 10))
def test_they_fall_from_most_to_least_and_end_at_zero(steps, least, ratio, rho):
    levels = noise_levels(steps, ratio * least, least, rho)
    assert len(levels) == steps + 1
    assert (levels[0], levels[-2], levels[-1]) == (ratio * least, least, 0)
    assert all(a > b for a, b in pairwise(levels))


def test_rho_one_is_even():
    assert noise_levels(4, 4.0, 1.0, rho=1) == pytest.approx((4, 3, 2, 1, 0))


def test_one_step_goes_straight_to_zero():
    assert noise_levels(1, 2.0, 0.1) == (2.0, 0.0)


@pytest.mark.parametrize("wrong", [(0, 1.0, 0.1), (5, 0.1, 1.0), (5, 1.0, 0.0), (5, 1.0, 0.1, 0.0)])
def test_levels_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match="expected steps >= 1"):
        noise_levels(*wrong)
