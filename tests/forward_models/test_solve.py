"""The total-variation inverse explains the scan, sharpens edges, and leaves constants alone."""

import nibabel as nib
import numpy as np
import pytest
import torch

from forward_models import Gaussian, acquisition_of, simulate, truth_for, volume_from_image
from forward_models.resample import resampling_weights
from forward_models.selection import along
from forward_models.solve import difference, difference_adjoint, total_variation_inverse
from forward_models.stack import stack_of
from tests.conftest import head_phantom, oblique_affine


def case(data, thickness=4.0, gap=0.0):
    thin = volume_from_image(nib.Nifti1Image(data, oblique_affine((1, 1, 1))))
    thick = simulate(thin, Gaussian(thickness), gap, axis=2)
    stack = stack_of(thick, acquisition_of(thick, thickness_mm=thickness), 1.0)
    return stack, truth_for(thin, Gaussian(thickness), gap, axis=2).data


@pytest.mark.parametrize(("thickness", "gap"), [(4, 0), (3, 1), (4, -1)])
def test_the_scan_is_explained(thickness, gap):
    stack, _ = case(head_phantom(), thickness, gap)
    solution = total_variation_inverse(stack)
    start = stack.slices - stack.selection.apply(
        along(-1, resampling_weights(stack.selection.thick, stack.selection.thin), stack.slices)
    )
    residual = stack.slices - stack.selection.apply(solution.x)
    assert residual.norm() <= (stack.selection.mismatch_left + 1e-6) * max(start.norm(), stack.slices.norm())


def test_it_beats_the_spline_on_sharp_tissue():
    stack, truth = case(head_phantom())
    spline = along(-1, resampling_weights(stack.selection.thick, stack.selection.thin), stack.slices)
    error = [np.linalg.norm(stack.in_file_order(x) - truth) for x in (spline, total_variation_inverse(stack).x)]
    assert error[1] < 0.85 * error[0]


def test_a_constant_stays_constant():
    stack, truth = case(np.full((16, 17, 18), 640.0, np.float32))
    solution = total_variation_inverse(stack)
    assert stack.in_file_order(solution.x) == pytest.approx(truth, rel=1e-5)


def test_it_lowers_total_variation_and_comes_to_rest():
    stack, _ = case(head_phantom())
    after = [total_variation_inverse(stack, iterations=n) for n in (1, 20, 60)]
    variation = [sum(float(s.x.diff(dim=axis).abs().sum()) for axis in range(3)) for s in after]
    assert variation == sorted(variation, reverse=True)
    assert [s.iterations for s in after] == [1, 20, 60]
    assert after[2].change < 0.2 * after[1].change


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_difference_and_its_adjoint(axis):
    generator = torch.Generator().manual_seed(0)
    x, p = (torch.randn(4, 5, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    forward, backward = (difference(x, axis, 0.7) * p).sum(), (x * difference_adjoint(p, axis, 0.7)).sum()
    assert float(forward) == pytest.approx(float(backward), rel=1e-12)
