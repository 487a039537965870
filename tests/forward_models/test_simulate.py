"""Simulated scans: exact on ramps, on the truth's own voxels, Rician in noise, and independent of orientation."""

import nibabel as nib
import numpy as np
import pytest
import torch

from forward_models import (
    Box,
    Gaussian,
    InputRefused,
    SliceGrid,
    acquisition_of,
    matching_voxels,
    simulate,
    slr,
    thin_grid_for,
    truth_for,
    volume_from_image,
)
from forward_models.simulate import thick_grid_within
from tests.conftest import head_phantom, oblique_affine


def thin_volume(data=None, voxel=(1.0, 1.0, 1.0)):
    return volume_from_image(nib.Nifti1Image(head_phantom() if data is None else data, oblique_affine(voxel)))


CASES = [(3, 0, Gaussian), (4, 1, Box), (5, 1.5, slr), (4.4, 0, Gaussian), (5, -1, Gaussian), (2.3, 0, Box)]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("thickness", "gap", "family"), CASES)
def test_a_ramp_in_world_mm_is_read_off_at_slice_centres(thickness, gap, family, axis):
    volume = thin_volume()
    index = np.stack(np.meshgrid(*map(np.arange, volume.data.shape), indexing="ij"), axis=-1)
    direction = np.array([0.3, -0.5, 0.8])
    world = lambda v, i: (i @ v.affine[:3, :3].T + v.affine[:3, 3]) @ direction  # noqa: E731
    ramp = volume_from_image(nib.Nifti1Image(world(volume, index), volume.affine))
    thick = simulate(ramp, family(thickness), gap, axis=axis)
    index = np.stack(np.meshgrid(*map(np.arange, thick.data.shape), indexing="ij"), axis=-1)
    assert thick.data == pytest.approx(world(thick, index), abs=1e-4)  # float32 of about 50


@pytest.mark.parametrize(("thickness", "gap", "family"), CASES)
@pytest.mark.parametrize("n", [30, 31, 47])
def test_the_truth_lies_on_the_grid_of_a_reconstruction(thickness, gap, family, n):
    volume = thin_volume(np.ones((6, 7, n), np.float32))
    thick, truth = (f(volume, family(thickness), gap, axis=2) for f in (simulate, truth_for))
    grid = thin_grid_for(thick.slice_grid(2), 1.0)
    reconstructed = thick.on_grid(np.zeros((6, 7, grid.count)), 2, grid)
    assert truth.data.shape == reconstructed.data.shape
    assert np.allclose(truth.affine, reconstructed.affine, atol=1e-9)


def test_as_many_slices_as_fit():
    thick = thick_grid_within(SliceGrid(181, 1.0), 4.0, 1.0)
    assert thick.count == 36
    assert matching_voxels(SliceGrid(181, 1.0), 4.0, 1.0) == slice(0, 180)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_flipped_head_gives_the_flipped_scan(axis):
    data = head_phantom((24, 24, 24))
    scan = simulate(thin_volume(data), Gaussian(4.0), 0.0, axis=axis)
    mirrored = simulate(thin_volume(np.flip(data, axis).copy()), Gaussian(4.0), 0.0, axis=axis)
    assert np.allclose(np.flip(mirrored.data, axis), scan.data, atol=1e-3)


def test_rician_noise_has_the_stated_level_and_seed():
    flat = thin_volume(np.full((40, 40, 40), 1000.0, np.float32))

    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        return simulate(flat, Box(4.0), 0.0, axis=2, noise_sd=20.0, generator=generator).data

    assert draw(3).std() == pytest.approx(20.0, rel=0.03)  # 16 000 voxels: standard error 0.6 %
    assert draw(3).mean() == pytest.approx(np.hypot(1000, 20 / np.sqrt(2)), abs=0.7)
    assert np.array_equal(draw(3), draw(3))
    assert not np.array_equal(draw(3), draw(4))


def test_rician_noise_in_air_is_rayleigh():
    data = np.zeros((40, 40, 40), np.float32)
    data[0, 0, 0] = 1
    air = simulate(thin_volume(data), Box(4.0), 0.0, axis=2, noise_sd=20.0, generator=torch.Generator().manual_seed(0))
    assert air.data[5:].mean() == pytest.approx(20 * np.sqrt(np.pi / 2), rel=0.03)
    assert air.data.min() >= 0


def test_noise_on_negative_values_is_refused():
    with pytest.raises(InputRefused, match="negative values"):
        simulate(
            thin_volume(-head_phantom()),
            Box(4.0),
            0.0,
            axis=2,
            noise_sd=1.0,
            generator=torch.Generator().manual_seed(0),
        )


@pytest.mark.parametrize(
    ("thickness", "gap", "message"), [(0.5, 1.0, "thickness must not be"), (3, -2.5, "larger"), (50, 0, "no slice")]
)
def test_slices_that_cannot_be_made_are_refused(thickness, gap, message):
    with pytest.raises(InputRefused, match=message):
        simulate(thin_volume(), Box(thickness), gap, axis=2)


def test_a_simulated_scan_is_understood_as_what_it_is():
    found = acquisition_of(simulate(thin_volume(), Gaussian(4.0), 1.0, axis=1), thickness_mm=4.0)
    assert (found.axis, found.spacing_mm, found.gap_mm) == (1, pytest.approx(5.0), pytest.approx(1.0))
