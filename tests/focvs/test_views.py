"""Volumes as slices of a plane."""

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
import torch

from focvs import by_slices, view_of
from tests.conftest import oblique_affine, placed_image

DIRECTIONS = ["".join(letters) for pairs in permutations(("RL", "AP", "SI")) for letters in product(*pairs)]


@pytest.mark.parametrize("world_axis", [0, 1, 2])
@pytest.mark.parametrize("directions", DIRECTIONS)
def test_slices_are_those_of_the_same_image_in_ras(directions, world_axis):
    """nibabel is the oracle: reorient the volume to RAS and take slices there."""
    volume = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    turn = nib.orientations.axcodes2ornt(tuple(directions))
    ras = nib.orientations.apply_orientation(volume, turn)
    slices = view_of(directions, world_axis).slices(torch.from_numpy(volume))
    assert np.array_equal(slices.numpy(), np.moveaxis(ras, world_axis, 0))


@pytest.mark.parametrize("world_axis", [0, 1, 2])
@pytest.mark.parametrize("directions", DIRECTIONS)
def test_there_and_back(directions, world_axis):
    volume = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    view = view_of(directions, world_axis)
    assert torch.equal(view.volume(view.slices(volume)), volume)
    slices = torch.randn(view.slices(volume).shape, generator=torch.Generator().manual_seed(1))
    assert torch.equal(view.slices(view.volume(slices)), slices)


@pytest.mark.parametrize("directions", ["RAA", "RA", "ras", "XYZ", "RLS"])
def test_directions_that_are_none_are_refused(directions):
    with pytest.raises(ValueError, match="one letter each of RL, AP and SI"):
        view_of(directions, 0)


def test_a_stack_knows_where_its_axes_point():
    from forward_models import acquisition_of, volume_from_image
    from forward_models.stack import stack_of

    data = np.zeros((8, 9, 10), np.float32)
    data[5, 2, 3] = 1  # off centre, so that every axis has a fuller half
    affine = oblique_affine((1.0, 3.0, 1.0)) @ np.diag([-1, 1, 1, 1])
    volume = volume_from_image(placed_image(data, affine))
    stack = stack_of(volume, acquisition_of(volume), 1.0)
    brightest = np.unravel_index(int(stack.slices.argmax()), stack.slices.shape)
    places = [(n - 1) / 2 - i for n, i in zip(stack.slices.shape, brightest, strict=True)]
    world = volume.affine[:3, :3] @ (np.array([5, 2, 3]) - (np.array(data.shape) - 1) / 2)
    for letter, place in zip(stack.directions, places, strict=True):
        axis = next(i for i, pair in enumerate(("RL", "AP", "SI")) if letter in pair)
        towards = 1 if letter in "RAS" else -1
        assert np.sign(-place * towards) == np.sign(world[axis])


@pytest.mark.parametrize("at_once", [1, 3 * 20, 10**9])
def test_batches_change_nothing(at_once):
    volume = torch.randn(7, 4, 5, generator=torch.Generator().manual_seed(0))
    seen = []

    def denoise(x, sigma):
        seen.append(len(x))
        return x * sigma + x.mean(dim=(1, 2), keepdim=True)

    x0 = by_slices(denoise, view_of("RAS", 0), at_once)(volume, 0.5)
    assert torch.allclose(x0, 0.5 * volume + volume.mean(dim=(1, 2), keepdim=True))
    assert sum(seen) == 7
    assert len(seen) == {1: 7, 60: 3}.get(at_once, 1)


def test_gradients_pass_through_batches():
    volume = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    x0 = by_slices(lambda x, sigma: sigma * x**2, view_of("LIP", 2), 20)(volume, 0.5)
    (slope,) = torch.autograd.grad(x0.sum(), volume)
    assert torch.allclose(slope, volume)
