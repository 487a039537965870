"""Working order and scaling are undone exactly; storage order does not change what a method sees."""

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
import torch

from forward_models import acquisition_of, intensity_scale, noise_sd, volume_from_image
from forward_models.stack import stack_of
from tests.conftest import head_phantom, oblique_affine

DATA = head_phantom((20, 22, 12))


def stack(data=DATA, affine=None, axis=None):
    volume = volume_from_image(nib.Nifti1Image(data, oblique_affine() if affine is None else affine))
    return stack_of(volume, acquisition_of(volume, thickness_mm=3.0, axis=axis), 0.9)


def test_file_order_and_units_come_back_to_the_bit():
    one = stack()
    assert np.array_equal(one.in_file_order(one.slices), DATA)


def test_the_same_head_stored_in_any_order_is_the_same_stack():
    image, expected = nib.Nifti1Image(DATA, oblique_affine()), stack()
    for axes, flips in product(permutations(range(3)), product((1, -1), repeat=3)):
        stored = image.as_reoriented(np.stack([axes, flips], axis=1))
        one = stack(np.asarray(stored.dataobj), stored.affine)
        assert torch.equal(one.slices, expected.slices)
        assert one.in_plane_mm == pytest.approx(expected.in_plane_mm)
        assert np.array_equal(one.in_file_order(one.slices), np.asarray(stored.dataobj))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mirrored_head_is_the_same_stack(axis):
    one = stack(np.flip(DATA, axis).copy())
    assert torch.equal(one.slices, stack().slices)
    assert np.array_equal(one.in_file_order(one.slices), np.flip(DATA, axis))


@pytest.mark.parametrize("factor", [1e-3, 1.0, 77.0, 1e5])
def test_scaling_is_a_power_of_two_near_the_signal(factor):
    x = torch.rand(50, 50, generator=torch.Generator().manual_seed(0)) * factor
    scale = intensity_scale(x)
    assert np.log2(scale) == round(np.log2(scale))
    assert 0.7 <= float(torch.quantile(x, 0.99)) / scale <= 1.42
    assert torch.equal(x / scale * scale, x)


def test_one_hot_voxel_does_not_set_the_scale():
    x = torch.rand(50, 50, generator=torch.Generator().manual_seed(0))
    hot = x.clone()
    hot[0, 0] = 1e6
    assert intensity_scale(hot) == intensity_scale(x)


def test_nothing_has_scale_one():
    assert intensity_scale(torch.zeros(4, 4)) == 1.0


@pytest.mark.parametrize("sd", [5.0, 20.0])
def test_noise_is_measured_within_structure(sd):
    generator = torch.Generator().manual_seed(0)
    head = torch.from_numpy(head_phantom((64, 64, 20)))
    noisy = torch.where(head > 0, head + sd * torch.randn(head.shape, generator=generator), head)
    assert noise_sd(noisy) == pytest.approx(sd, rel=0.15)  # edges add a little


def test_an_empty_image_has_no_noise():
    assert noise_sd(torch.zeros(8, 8, 3)) == 0.0
