"""One thin volume for several scans: the smallest change, least total variation, and what they keep."""

import pytest
import torch

from forward_models import Gaussian, Sidecar, acquisition_of, simulate, volume_from_image
from forward_models.joint import DAMPING, Measured, jointly_consistent
from forward_models.placed import PlacedStack, placed
from forward_models.solve import total_variation_inverse
from forward_models.stack import stack_of
from tests import contracts
from tests.conftest import head_phantom, nib_image

EXACT = 1e-6  # of the scan, in float32


def two_scans(shape=(24, 25, 24), thickness_mm=3.0, gap_mm=1.0) -> tuple[torch.Tensor, PlacedStack, Measured]:
    """A phantom in the working order of its axial scan, that scan, and a sagittal one in its units."""
    thin = volume_from_image(nib_image(head_phantom(shape)))
    scans = []
    for axis in (2, 0):
        scan = simulate(thin, Gaussian(thickness_mm), gap_mm, axis=axis)
        acquisition = acquisition_of(scan, Sidecar(), axis=axis, thickness_mm=thickness_mm)
        scans.append(placed(stack_of(scan, acquisition, 1.0), scan))
    first, other = scans
    operator = other.seen_from(first.thin)
    truth = torch.from_numpy(first.stack.order.apply(thin.data).copy()) / first.stack.scale
    return truth, first, Measured(operator, other.stack.slices * (other.stack.scale / first.stack.scale))


TRUTH, FIRST, OTHER = two_scans()
Y, SELECTION = FIRST.stack.slices, FIRST.stack.selection


def error(x: torch.Tensor) -> float:
    return float((x - TRUTH).norm() / TRUTH.norm())


def mismatch(x: torch.Tensor, other: Measured = OTHER) -> float:
    return float(other.mismatch(x).norm() / (other.operator.counted * other.slices).norm())


def test_the_truth_explains_both_scans():
    """So the operator and the simulation of the other scan are one physics."""
    assert torch.allclose(SELECTION.apply(TRUTH), Y, atol=1e-5)
    assert mismatch(TRUTH) < 1e-5


def test_two_scans_tell_more_than_one():
    alone = SELECTION.smooth_inverse(Y)
    both = jointly_consistent(alone, Y, SELECTION, [OTHER])
    assert error(both.x) < 0.85 * error(alone)
    assert both.gradient < 1e-3
    assert mismatch(both.x) < 0.05 * mismatch(alone)


def test_the_first_scan_stays_explained_exactly():
    x = jointly_consistent(torch.zeros_like(TRUTH), Y, SELECTION, [OTHER]).x
    assert float((SELECTION.apply(x) - Y).norm() / Y.norm()) < EXACT


def test_the_change_is_the_smallest_there_is():
    """Against the dense solution of the same problem."""
    truth, first, other = two_scans((10, 5, 10), 2.0, 0.5)
    y, selection = first.stack.slices.double(), first.stack.selection
    other = Measured(other.operator, other.slices.double())
    start = selection.consistent(torch.zeros_like(truth).double(), y)
    got = jointly_consistent(start, y, selection, [other], iterations=200).x - start
    a = contracts.dense(other.operator, start)
    units = torch.eye(start.numel(), dtype=start.dtype).reshape(-1, *start.shape)
    projector = selection.null_space(units).flatten(1)
    restricted = a @ projector
    strength = DAMPING * other.operator.squared_norm
    gram = restricted @ restricted.mT + strength * torch.eye(len(a), dtype=a.dtype)
    expected = projector @ restricted.mT @ torch.linalg.solve(gram, other.mismatch(start).flatten())
    assert (got.flatten() - expected).norm() < 3e-3 * expected.norm()


def test_the_same_scan_twice_changes_nothing():
    again = Measured(FIRST.seen_from(FIRST.thin), Y)
    x = SELECTION.smooth_inverse(Y)
    assert torch.allclose(jointly_consistent(x, Y, SELECTION, [again]).x, x, atol=1e-4)


def test_what_lies_within_the_noise_is_not_explained():
    x = SELECTION.consistent(SELECTION.smooth_inverse(Y), Y)
    noise_sd = float(OTHER.mismatch(x).square().sum() / OTHER.operator.counted.sum()) ** 0.5
    left, pulled = (
        jointly_consistent(x, Y, SELECTION, [Measured(OTHER.operator, OTHER.slices, share * noise_sd)])
        for share in (1.01, 0.5)
    )
    assert left.iterations == 0
    assert torch.allclose(left.x, x, atol=1e-5)
    assert mismatch(pulled.x) <= 0.5 * mismatch(x)


def test_low_total_variation_of_two_scans_beats_the_smallest_change_of_none():
    both = total_variation_inverse(FIRST.stack, [OTHER], iterations=30).x
    change = jointly_consistent(SELECTION.smooth_inverse(Y), Y, SELECTION, [OTHER]).x
    assert error(both) < error(change)
    assert mismatch(both) < 0.01
    assert float((SELECTION.apply(both) - Y).norm() / Y.norm()) < EXACT


def test_a_constant_head_stays_constant():
    flat = torch.ones_like(TRUTH)
    stack = FIRST.stack.__class__(**{**vars(FIRST.stack), "slices": SELECTION.apply(flat)})
    other = Measured(OTHER.operator, OTHER.operator.apply(flat))
    assert torch.allclose(total_variation_inverse(stack, [other], iterations=10).x, flat, atol=1e-4)


@pytest.mark.parametrize("broken", [0.5, 2.0])
def test_another_gain_is_not_explained(broken):
    """So gains must be found first."""
    other = Measured(OTHER.operator, broken * OTHER.slices)
    x = jointly_consistent(SELECTION.smooth_inverse(Y), Y, SELECTION, [other]).x
    assert mismatch(x, other) > 0.1
