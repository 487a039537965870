"""Adaptation learns the scan it is shown, leaves the prior alone, and depends on the generator only."""

from dataclasses import replace
from importlib import import_module

import nibabel as nib
import numpy as np
import pytest
import torch

from forward_models import InputRefused, volume_from_image
from priors.adapt import AdaptConfig, adapt, in_plane_slices, loss_on, pixel_mm_for, steps_within
from priors.denoiser import Prior, new_denoiser
from priors.loss import denoising_loss
from priors.patches import Batch
from priors.planes import Plane
from tests.conftest import head_phantom, nib_image, placed_image
from tests.priors.conftest import TINY

CONFIG = AdaptConfig(steps=14, batch_size=4, patch_size=16, learning_rate=3e-3)
SLICES = torch.from_numpy(head_phantom((32, 34, 20)) / 800).movedim(2, 0).contiguous()


def new_prior():
    torch.manual_seed(0)
    return Prior(new_denoiser(TINY).eval().requires_grad_(False))


def adapted(prior, config=CONFIG, seed=0, plane=Plane.AXIAL):
    return adapt(prior, SLICES, plane, config, generator=torch.Generator().manual_seed(seed))


def weights(prior):
    return prior.network.state_dict()


def loss_on_scan(prior, plane):
    some = SLICES[5:15:3]
    noise = torch.randn(some.shape, generator=torch.Generator().manual_seed(9))
    labels = torch.full((len(some),), plane.value)
    batch = Batch(some, noise, torch.full((len(some),), 0.3), labels, labels)
    return float(denoising_loss(prior.network, TINY.preconditioning, batch))


def test_the_scan_is_learned_for_every_plane_and_the_prior_stays_as_it_was():
    prior = new_prior()
    before = {name: tensor.clone() for name, tensor in weights(prior).items()}
    better = adapted(prior)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(prior).items())
    for plane in Plane:
        assert loss_on_scan(better, plane) < 0.9 * loss_on_scan(prior, plane)
    assert not any(parameter.requires_grad for parameter in better.network.parameters())


def test_without_other_labels_the_labels_of_other_planes_stay():
    prior = new_prior()
    alone, shared = (
        adapted(prior, replace(CONFIG, steps=3, other_labels=share), plane=Plane.CORONAL) for share in (0.0, 0.9)
    )
    name = next(name for name in weights(prior) if "class_embedding" in name)
    moved = [(weights(one)[name] != weights(prior)[name]).any(dim=1).tolist() for one in (alone, shared)]
    assert moved == [[False, True, False], [True, True, True]]


def test_the_generator_alone_decides():
    one, same, other = (weights(adapted(new_prior(), replace(CONFIG, steps=2), seed)) for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_minutes_become_steps_by_the_pace_of_this_machine(monkeypatch):
    monkeypatch.setattr(import_module("priors.adapt"), "seconds_of", lambda _work, _device: 2.0)  # for four steps
    prior = new_prior()
    counted = [steps_within(minutes, prior, SLICES, Plane.AXIAL, CONFIG) for minutes in (0.5, 2.0, 1e-9)]
    assert counted == [60, 240, 1]
    told = []
    adapt(
        prior,
        SLICES,
        Plane.AXIAL,
        replace(CONFIG, steps=3),
        generator=torch.Generator(),
        report=lambda *at: told.append(at),
    )
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_the_loss_before_and_after_is_of_the_same_patches(monkeypatch):
    monkeypatch.setattr(import_module("priors.adapt"), "JUDGED_BATCHES", 2)
    prior = new_prior()
    before = loss_on(prior, SLICES, Plane.AXIAL, CONFIG)
    assert loss_on(prior, SLICES, Plane.AXIAL, CONFIG) == before
    assert loss_on(adapted(prior), SLICES, Plane.AXIAL, CONFIG) < 0.9 * before


def test_slices_smaller_than_a_patch_make_smaller_patches():
    """Else most of what is learned is the air around them."""
    small = replace(CONFIG, steps=1, patch_size=96)
    one, same = (
        weights(adapt(new_prior(), SLICES, Plane.AXIAL, config, generator=torch.Generator().manual_seed(0)))
        for config in (small, replace(small, patch_size=48))
    )
    assert all(torch.equal(one[name], same[name]) for name in one)


def test_a_loss_that_is_not_finite_is_told():
    with pytest.raises(FloatingPointError, match="loss is nan at step 0 of the adaptation"):
        adapt(new_prior(), SLICES * float("nan"), Plane.AXIAL, CONFIG, generator=torch.Generator())


@pytest.mark.parametrize(("axis", "plane"), [(0, Plane.SAGITTAL), (1, Plane.CORONAL), (2, Plane.AXIAL)])
def test_slices_do_not_depend_on_how_the_file_is_stored(axis, plane):
    voxel_mm = tuple(4.0 if i == axis else 1.0 for i in range(3))
    stored = nib_image(head_phantom((24, 26, 22)), voxel_mm)
    turned = stored.as_reoriented(nib.orientations.axcodes2ornt("PLS"))
    turned_axis = {0: 1, 1: 0, 2: 2}[axis]
    (one, same_plane), (other, other_plane) = (
        in_plane_slices(volume_from_image(image), at) for image, at in ((stored, axis), (turned, turned_axis))
    )
    assert same_plane == other_plane == plane
    assert torch.equal(one, other)


def test_slices_come_at_one_millimetre_air_zero_and_bright_near_one():
    image = placed_image(1000 * head_phantom((30, 40, 12)), np.diag([0.8, 1.25, 5.0, 1.0]))
    slices, _ = in_plane_slices(volume_from_image(image), 2)
    assert slices.shape[1:] == (24, 50)
    assert len(slices) <= 12
    assert slices.min() == 0
    assert 0.5 < slices.max() < 2


def test_thicker_slices_are_shown_on_larger_pixels():
    assert [pixel_mm_for(thickness_mm) for thickness_mm in (2.0, 5.0)] == [1.0, 2.0]
    image = nib_image(head_phantom((32, 36, 12)), (1.0, 1.0, 5.0))
    slices, _ = in_plane_slices(volume_from_image(image), 2, pixel_mm_for(5.0))
    assert slices.shape[1:] == (16, 18)


def test_a_scan_of_nothing_is_refused():
    noise = placed_image(np.full((8, 8, 6), -1.0, np.float32), np.diag([1.0, 1.0, 4.0, 1.0]))
    with pytest.raises(InputRefused, match="no slice holds signal"):
        in_plane_slices(volume_from_image(noise), 2)
