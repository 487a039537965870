"""Masks and labels stay masks and labels and lie over the scan; other images go the way of `cubic`."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

import throughplane
from forward_models import (
    Acquisition,
    InputRefused,
    SliceGrid,
    Volume,
    acquisition_of,
    thin_grid_for,
    volume_from_image,
)
from tests.conftest import head_phantom, oblique_affine, save
from throughplane.companions import FEW_VALUES, CompanionKind, carry, carry_file, interpolate_labels
from throughplane.reading import Scan

AFFINE = oblique_affine((1.0, 1.1, 3.0))
SHAPE = (24, 26, 10)
THICK = SliceGrid(10, 3.0)


def volume(data: np.ndarray, affine: np.ndarray = AFFINE) -> Volume:
    return volume_from_image(nib.Nifti1Image(data, affine))


SCAN = volume(head_phantom(SHAPE))
ACQUISITION: Acquisition = acquisition_of(SCAN, thickness_mm=2.5)


def carried(data: np.ndarray, thin_mm: float = 1.0) -> tuple[Volume, CompanionKind]:
    return carry(volume(data), SCAN, ACQUISITION, thin_grid_for(ACQUISITION.slices, thin_mm))


def ball(shape: tuple[int, ...], affine: np.ndarray, radius_mm: float) -> np.ndarray:
    """Voxels whose centres lie within a ball around the middle of the field of view."""
    indices = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1) - (np.array(shape) - 1) / 2
    return np.linalg.norm(indices @ affine[:3, :3].T, axis=-1) < radius_mm


def tissues(shape: tuple[int, ...] = SHAPE, affine: np.ndarray = AFFINE) -> np.ndarray:
    """Nested balls of labels 1000, 41 and 3, as int16."""
    labels = np.zeros(shape, np.int16)
    for label, radius in ((3, 11.0), (1000, 8.0), (41, 4.0)):
        labels[ball(shape, affine, radius)] = label
    return labels


@pytest.mark.parametrize("thin_mm", [1.0, 1.3, 2.0])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_labels_stay_labels_of_their_dtype(thin_mm, dtype):
    labels = np.clip(tissues(), 0, 250).astype(dtype)
    thin, kind = carried(labels, thin_mm)
    assert kind is CompanionKind.LABELS
    assert thin.data.dtype == dtype
    assert set(np.unique(thin.data)) == set(np.unique(labels))


def test_interpolated_labels_would_not_pass():
    """Between 41 and 1000 a spline puts labels that mean something else."""
    thin, kind = carried(tissues() + np.float32(0.5))
    assert kind is CompanionKind.INTENSITIES
    assert np.unique(thin.data).size > 100


def test_thin_slices_at_slice_centres_are_the_slices():
    """At an odd factor every third thin slice is a thick one."""
    thin, _ = carried(tissues(), thin_mm=1.0)
    assert np.array_equal(thin.data[..., 1::3], tissues())


@pytest.mark.parametrize("thin_mm", [1.0, 1.5, 1.3])
def test_what_does_not_change_between_slices_does_not_change(thin_mm):
    column = np.repeat(tissues()[:, :, 5:6], SHAPE[2], axis=2)
    thin, _ = carried(column, thin_mm)
    assert np.array_equal(thin.data, np.repeat(column[:, :, :1], thin.data.shape[2], axis=2))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


def test_a_ball_comes_out_rounder_than_its_slices():
    """Shapes are interpolated: closer to the true ball than the nearest slice is."""
    labels = ball(SHAPE, AFFINE, 11.0).astype(np.uint8)
    thin, _ = carried(labels)
    truth = ball(thin.data.shape, thin.affine, 11.0)
    nearest = np.repeat(labels, 3, axis=2) > 0
    assert dice(thin.data > 0, truth) > 0.97 > dice(nearest, truth)


def test_a_label_in_one_slice_tapers_off_within_a_slice_spacing():
    labels = np.zeros(SHAPE, np.uint8)
    labels[4:20, 4:22, 5] = 1
    thin, _ = carried(labels)
    area = thin.data.sum(axis=(0, 1))
    assert area[16] == labels.sum()  # the slice itself
    assert area[[13, 19]].tolist() == [0, 0]  # its neighbours
    assert 0 < area[15] < area[16]
    assert area[15] == area[17]


@pytest.mark.parametrize("thin_mm", [1.0, 1.3, 2.0])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_flipped_labels_give_flipped_labels(axis, thin_mm):
    """Of an image without symmetry; 2 mm puts thin slices half way between slices, where labels tie."""
    labels = (head_phantom(SHAPE) // 100).astype(np.uint8)
    expected, got = (carried(data, thin_mm)[0].data for data in (labels, np.flip(labels, axis).copy()))
    assert np.array_equal(got, np.flip(expected, axis))
    assert not np.array_equal(got, expected)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_companions_get_the_grid_of_the_result(axis):
    voxel = tuple(3.3 if i == axis else 1.0 for i in range(3))
    shape = tuple(7 if i == axis else 12 for i in range(3))
    affine = oblique_affine(voxel) @ np.diag([-1.0, 1, 1, 1])
    scan = volume(head_phantom(shape), affine)
    acquisition = acquisition_of(scan, thickness_mm=3.0)
    result = throughplane.super_resolve(nib.Nifti1Image(scan.data, affine), method="cubic", thickness_mm=3.0)
    mask = volume((scan.data > 0).astype(np.uint8), affine)
    thin, _ = carry(mask, scan, acquisition, thin_grid_for(acquisition.slices, acquisition.thin_mm))
    assert thin.data.shape == result.image.shape
    assert np.array_equal(thin.affine, result.volume.affine)


def test_intensities_go_the_way_of_cubic():
    data = head_phantom(SHAPE) + np.float32(0.25)
    thin, kind = carried(data, thin_mm=1.1)
    expected = throughplane.super_resolve(nib.Nifti1Image(data, AFFINE), method="cubic", thickness_mm=2.5)
    assert kind is CompanionKind.INTENSITIES
    # `cubic` divides by a power of two and sums in another order: float32 rounding of a few terms
    assert np.abs(thin.data - expected.volume.data).max() <= 1e-6 * data.max()


def grey_levels(data: np.ndarray, noise_sd: float) -> np.ndarray:
    """A magnitude image in 8 bits."""
    noisy = data / data.max() * 200 + np.random.default_rng(0).normal(0, noise_sd, data.shape)
    return np.clip(np.round(noisy), 0, 255).astype(np.uint8)


def test_an_image_of_8_bits_is_an_image():
    """Up to 256 whole numbers, which mean more than names."""
    thin, kind = carried(grey_levels(head_phantom(SHAPE), 8.0))
    assert kind is CompanionKind.INTENSITIES
    assert np.unique(grey_levels(head_phantom(SHAPE), 8.0)).size > 100
    assert not np.array_equal(thin.data, np.rint(thin.data))


@pytest.mark.parametrize("count", [FEW_VALUES + 1, 144])
def test_many_labels_are_labels(count):
    """As of a cortical parcellation, whose names go up to 14175."""
    blocks = np.add.outer(np.arange(24) // 2, np.arange(26) // 2 * 12) % count
    labels = np.repeat((97 * blocks).astype(np.int16)[..., None], SHAPE[2], axis=2)
    thin, kind = carried(labels)
    assert kind is CompanionKind.LABELS
    assert np.isin(thin.data, labels).all()
    assert np.unique(labels).size == count


def test_few_whole_numbers_are_labels_however_they_are_strewn():
    data = (np.arange(np.prod(SHAPE)) % FEW_VALUES).reshape(SHAPE).astype(np.int16)
    assert carried(data)[1] is CompanionKind.LABELS


def test_the_companion_is_left_alone():
    mask = volume(tissues())
    before = mask.data.copy()
    carry(mask, SCAN, ACQUISITION, thin_grid_for(THICK, 1.0))
    assert np.array_equal(mask.data, before)


def test_empty_and_full_masks_stay_so():
    for value in (0, 1):
        thin = interpolate_labels(
            np.full((5, 6, 4), value, np.uint8), (1.0, 1.0), SliceGrid(4, 3.0), SliceGrid(12, 1.0)
        )
        assert (thin == value).all()


# ---- refusals ----


def test_another_shape_is_refused():
    other = volume(tissues((24, 26, 9)))
    with pytest.raises(
        InputRefused, match=r"shape is \(24, 26, 9\), the scan's \(24, 26, 10\); both must share one grid"
    ):
        carry(other, SCAN, ACQUISITION, thin_grid_for(THICK, 1.0))


@pytest.mark.parametrize(("shift_mm", "refused"), [(0.005, False), (0.02, True), (30.0, True)])
def test_another_place_is_refused(shift_mm, refused):
    affine = AFFINE.copy()
    affine[0, 3] += shift_mm
    mask, thin = volume(tissues(), affine), thin_grid_for(THICK, 1.0)
    if refused:
        with pytest.raises(InputRefused, match=f"lies up to {shift_mm:.3g} mm away from the scan"):
            carry(mask, SCAN, ACQUISITION, thin)
    else:
        carry(mask, SCAN, ACQUISITION, thin)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_inf_are_refused_because_splines_would_spread_them(value):
    data = tissues().astype(np.float32)
    data[3, 4, 5] = value
    with pytest.raises(InputRefused, match=r"1 voxels that are NaN or Inf, the first at index \(3, 4, 5\)"):
        carried(data)


def test_a_small_rotation_is_seen_at_the_far_corner():
    mask = replace(volume(tissues()), affine=oblique_affine((1.0, 1.1, 3.0), angles=(0.2, -0.1, 0.051)))
    with pytest.raises(InputRefused, match="mm away from the scan"):
        carry(mask, SCAN, ACQUISITION, thin_grid_for(THICK, 1.0))


def test_a_file_of_several_volumes_gets_advice_that_can_be_followed(tmp_path):
    path = save(tmp_path / "b.nii.gz", np.ones((24, 26, 10, 2), np.uint8), AFFINE)
    with pytest.raises(
        InputRefused, match=r"b\.nii\.gz holds 2 volumes; expected one: extract it to a file of its own$"
    ):
        carry_file(path, path, Scan("scan", SCAN, ACQUISITION), thin_grid_for(THICK, 1.0))


def test_refusals_name_the_file(tmp_path):
    path = save(tmp_path / "lesions.nii.gz", np.ones((24, 26, 9), np.uint8), AFFINE)
    with pytest.raises(InputRefused, match=r"lesions\.nii\.gz: shape is"):
        carry_file(path, path, Scan("scan", SCAN, ACQUISITION), thin_grid_for(THICK, 1.0))
