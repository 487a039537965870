"""The thin grid keeps the field of view; W knows where it lies and when it is safe to invert."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from forward_models import Box, Gaussian, InputRefused, SliceGrid, slice_selection, thin_grid_for


@given(
    count=st.integers(4, 100),
    spacing=st.floats(1.5, 12.0),
    thin=st.floats(0.3, 1.4),
    middle=st.floats(-100, 100),
)
def test_thin_grids_keep_the_field_of_view_and_its_middle(count, spacing, thin, middle):
    thick = SliceGrid(count, spacing, middle)
    grid = thin_grid_for(thick, thin)
    assert grid.spacing_mm == thin
    assert abs(grid.field_of_view_mm - thick.field_of_view_mm) <= thin * (0.5 + 1e-3 + 1e-9)
    assert grid.centres_mm.mean() == pytest.approx(thick.centres_mm.mean(), abs=1e-9)


def test_half_a_sample_rounds_down_whatever_the_header_rounded():
    for spacing in (6.5, 6.5 * (1 + 2e-7), 6.5 * (1 - 2e-7)):  # 162.5 mm
        assert thin_grid_for(SliceGrid(25, spacing), 1.0).count == 162


@pytest.mark.parametrize("spacing", [0.0, -1.0, 5.0, 6.0, float("nan")])
def test_thin_slices_must_be_thinner(spacing):
    with pytest.raises(InputRefused, match="pass a spacing between 0 and 5"):
        thin_grid_for(SliceGrid(10, 5.0), spacing)


@pytest.mark.parametrize(
    ("thickness", "gap", "low", "high"),
    [(2, 0, 1.0, 1.8), (5, 0, 1.0, 1.8), (4, 1, 1.0, 1.8), (7, 2.5, 1.0, 1.8), (5, -2.5, 10, 50)],
)
def test_w_is_well_conditioned_unless_slices_overlap(thickness, gap, low, high):
    thick = SliceGrid(36, thickness + gap)
    assert low <= slice_selection(thick, thin_grid_for(thick, 1.0), Gaussian(thickness)).condition <= high


def test_separate_box_slices_have_condition_one():
    thick = SliceGrid(20, 8.0)
    assert slice_selection(thick, thin_grid_for(thick, 1.0), Box(4.0)).condition == pytest.approx(1.0, abs=1e-6)


def test_a_flipped_volume_gives_flipped_slices():
    operator = slice_selection(SliceGrid(9, 4.4), SliceGrid(40, 1.0), Gaussian(4.4))
    x = torch.randn(3, 4, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.allclose(operator.apply(x.flip(-1)), operator.apply(x).flip(-1), atol=1e-12)


def test_damping_tends_to_the_exact_inverse():
    operator = slice_selection(SliceGrid(10, 4.0), SliceGrid(40, 1.0), Gaussian(5.0))
    y = torch.randn(10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    distance = [float((operator.damped_inverse(y, d) - operator.smooth_inverse(y)).norm()) for d in (1e-2, 1e-5, 1e-9)]
    assert distance == sorted(distance, reverse=True)
    assert distance[-1] < 1e-6 * float(operator.smooth_inverse(y).norm())


@pytest.mark.parametrize(("thickness", "spacing"), [(3, 3), (4, 5), (5, 6.5), (8, 8), (1.5, 1.5), (4.4, 4.4), (5, 4)])
def test_consistent_explains_the_scan_to_its_stated_damping(thickness, spacing):
    thick = SliceGrid(12, spacing)
    operator = slice_selection(thick, thin_grid_for(thick, 1.0), Gaussian(thickness))
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(5, operator.thin.count, generator=generator, dtype=torch.float64)
    y = torch.randn(5, operator.thick.count, generator=generator, dtype=torch.float64)
    before, after = (y - operator.apply(z) for z in (x, operator.consistent(x, y)))
    assert after.norm() <= (operator.mismatch_left + 1e-12) * before.norm()
    assert (operator.mismatch_left == 0) == (thickness <= spacing)
    assert operator.mismatch_left < 0.1


def test_consistent_leaves_a_consistent_volume_alone():
    operator = slice_selection(SliceGrid(9, 4.0), SliceGrid(36, 1.0), Gaussian(4.0))
    x = torch.randn(3, 36, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.allclose(operator.consistent(x, operator.apply(x)), x, atol=1e-12)


def jagged(n: int) -> torch.Tensor:
    """Lines of air and tissue with sharp edges, of different brightness."""
    generator = torch.Generator().manual_seed(3)
    tissue = torch.rand(200, n, generator=generator, dtype=torch.float64) > 0.15
    blocks = torch.repeat_interleave(torch.rand(200, n // 6 + 1, generator=generator, dtype=torch.float64), 6, dim=1)
    return tissue * (blocks[:, :n] - 0.5).clamp(min=0)


@pytest.mark.parametrize(("thickness", "spacing"), [(4, 4), (4, 5), (3, 6)])
def test_less_negative_explains_the_scan_and_comes_no_farther_from_the_truth(thickness, spacing):
    thick = SliceGrid(16, spacing)
    operator = slice_selection(thick, thin_grid_for(thick, 1.0), Gaussian(thickness))
    truth = jagged(operator.thin.count)
    y = operator.apply(truth)
    before = operator.smooth_inverse(y)
    after = operator.less_negative(before, y)
    assert (operator.apply(after) - y).norm() < 1e-10 * y.norm()
    assert after.clamp(max=0).norm() < 0.5 * before.clamp(max=0).norm()
    assert (after - truth).norm() < (before - truth).norm()
    clipped = before.clamp(min=0)  # the broken twin: nothing negative, but it explains another scan
    assert (operator.apply(clipped) - y).norm() > 1e-3 * y.norm()


def test_less_negative_leaves_alone_what_it_has_nothing_to_say_about():
    separate = slice_selection(SliceGrid(9, 4.0), SliceGrid(36, 1.0), Gaussian(4.0))
    overlapping = slice_selection(SliceGrid(9, 4.0), SliceGrid(36, 1.0), Gaussian(5.0))
    x = torch.randn(3, 36, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = separate.apply(x)
    assert separate.less_negative(x, y) is x  # a scan with negative values is no magnitude
    assert overlapping.less_negative(x, y.abs()) is x
    positive = x.abs()
    assert separate.less_negative(positive, separate.apply(positive)) is positive


def test_slices_outside_the_thin_volume_are_refused():
    with pytest.raises(InputRefused, match="same field of view"):
        slice_selection(SliceGrid(10, 5.0, middle_mm=20.0), SliceGrid(50, 1.0), Gaussian(5.0))


def test_a_shape_that_does_not_fit_is_named():
    operator = slice_selection(SliceGrid(9, 4.0), SliceGrid(36, 1.0), Gaussian(4.0))
    with pytest.raises(ValueError, match="has 35 samples, not 36"):
        operator.apply(torch.zeros(2, 35))


def test_repr_tells_the_story():
    operator = slice_selection(SliceGrid(40, 3.7), SliceGrid(148, 1.0), Box(3.0))
    assert repr(operator) == "SliceSelection(40 slices of 3 mm every 3.7 mm <- 148 of 1 mm, box)"


def test_weights_are_not_negative_for_separate_slices():
    """The linear continuation at the ends must not buy ramps with wild weights."""
    for spacing in (2.0, 5.0, 8.0):
        thick = SliceGrid(12, spacing)
        weights = slice_selection(thick, thin_grid_for(thick, 1.0), Gaussian(spacing)).weights
        assert float(weights.min()) > -1e-3
        assert np.allclose(weights.sum(dim=1), 1)
