"""Scans arrive in RAS, at 1 mm, scaled, cropped to the head; what cannot is refused."""

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage

from forward_models import InputRefused, Volume, intensity_scale
from priors.augment import GAINS
from priors.corpus import read_corpus
from priors.data import head_mask, normalised, one_millimetre, read_label_map, read_scan
from priors.split import UNKNOWN_LICENCE
from tests.conftest import head_phantom, save


def blob_at(world_mm, affine, shape):
    """A Gaussian blob of 3 mm around a point of the world, sampled on any grid."""
    indices = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    world = indices @ affine[:3, :3].T + affine[:3, 3]
    return np.exp(-((world - np.asarray(world_mm)) ** 2).sum(-1) / (2 * 3.0**2)).astype(np.float32)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR", "SAL"])
@pytest.mark.parametrize("voxel_mm", [(1.0, 1.0, 1.0), (0.7, 0.9, 1.2)])
def test_a_landmark_keeps_its_world_position(axes, voxel_mm):
    turn = nib.orientations.axcodes2ornt(axes)
    affine = np.eye(4)
    for axis, (world, sign) in enumerate(turn):
        affine[:3, axis] = 0
        affine[int(world), axis] = sign * voxel_mm[axis]
    shape = tuple(round(40 / mm) for mm in voxel_mm)
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) - 1) / 2  # the middle of the array is the world's origin
    landmark = np.array([6.0, -4.0, 3.0])
    voxels = one_millimetre(Volume(blob_at(landmark, affine, shape), affine, nib.Nifti1Header()))
    found = np.array(ndimage.center_of_mass(voxels.numpy())) - (np.array(voxels.shape) - 1) / 2
    assert np.abs(found - landmark).max() < 0.02  # mm; the blob's tail ends at the edge
    assert np.abs(found * [-1, 1, 1] - landmark).max() > 10  # the broken twin: left and right swapped


def test_resampling_to_one_millimetre_does_not_alias():
    fine = torch.cos(torch.pi * torch.arange(160) * 0.625)  # at 0.5 mm, 1.25 times the highest frequency of 1 mm
    data = fine[:, None, None].expand(160, 8, 8).numpy().astype(np.float32)
    voxels = one_millimetre(Volume(data, np.diag([0.5, 1, 1, 1.0]), nib.Nifti1Header()))
    aliased = torch.from_numpy(data[::2])
    assert voxels[8:-8].abs().max() < 0.25 * aliased[8:-8].abs().max()


def test_intensities_after_the_samplers_scaling_lie_in_the_range_trained_for():
    for gain in (0.013, 1.0, 41.0, 5000.0):
        image = torch.from_numpy(head_phantom()) * gain
        voxels = normalised(image)
        ratio = float((image / intensity_scale(image)).max() / voxels.max())
        assert GAINS[0] <= ratio <= GAINS[1]
        torch.testing.assert_close(voxels, normalised(image * 7))


def test_overshoot_below_zero_is_air():
    image = torch.from_numpy(head_phantom()) - 20
    assert normalised(image).min() == 0


def test_a_scan_is_cropped_to_its_head_and_slices_show_it(tmp_path):
    image = np.pad(head_phantom(), 20)
    scan = read_scan(save(tmp_path / "sub-1_T1w.nii.gz", image, np.eye(4)))
    assert all(inner < outer for inner, outer in zip(scan.voxels.shape, image.shape, strict=True))
    total, kept = normalised(torch.from_numpy(image)).sum(), scan.voxels.float().sum()
    assert abs(float(kept / total) - 1) < 1e-3  # float16 rounding
    assert all(scan.voxels.select(axis, int(i)).any() for axis in range(3) for i in scan.slices[axis])
    assert (scan.subject, scan.contrast, scan.licence) == ("sub-1", "T1w", UNKNOWN_LICENCE)


def test_the_head_mask_is_the_head_without_specks_and_holes():
    image = torch.from_numpy(np.pad(head_phantom(), 12))
    image /= image.max()
    image[2:4, 2:4, 2:4] = 1.0  # a speck
    mask = head_mask(image)
    assert not mask[:6].any()
    assert mask[tuple(n // 2 for n in mask.shape)]


@pytest.mark.parametrize(
    ("name", "voxel_mm", "message"),
    [
        ("sub-1_T1w.nii.gz", 3.0, "a prior learns from thin slices, at most 1.5 mm"),
        ("sub-1_mask.nii.gz", 1.0, "is not named after its contrast"),
    ],
)
def test_scans_that_teach_nothing_are_refused(tmp_path, name, voxel_mm, message):
    path = save(tmp_path / name, head_phantom(), np.diag([1, 1, voxel_mm, 1]))
    with pytest.raises(InputRefused, match=message):
        read_scan(path)


def speck():
    image = np.zeros((20, 20, 20), np.float32)
    image[3, 4, 5] = 1000
    return image


SPECKS = np.where(np.random.default_rng(0).random((40, 40, 40)) < 0.002, 500, 0).astype(np.float32)


@pytest.mark.parametrize(
    ("image", "voxel_mm"),
    [(speck(), 1.0), (SPECKS, 1.0), (-1 - head_phantom(), 1.0), (-1 - head_phantom(), 0.8), (speck() - 500, 0.8)],
    ids=["a speck", "specks", "negative", "negative, resampled", "a speck among negative, resampled"],
)
def test_a_scan_that_shows_no_head_is_refused_by_name(tmp_path, image, voxel_mm):
    path = save(tmp_path / "sub-1_T1w.nii.gz", image, np.diag([voxel_mm] * 3 + [1.0]))
    with pytest.raises(InputRefused, match=r"sub-1_T1w.nii.gz shows no head; leave it out"):
        read_scan(path)


@pytest.mark.parametrize(
    ("label", "voxel_mm", "message"),
    [
        (2, 2.0, "expected label maps of 1 mm"),
        (999, 1.0, r"holds labels \[999\]"),
        (0, 1.0, "is background everywhere"),
    ],
)
def test_label_maps_that_cannot_be_read_are_refused(tmp_path, label, voxel_mm, message):
    path = save(tmp_path / "seg.nii.gz", np.full((9, 9, 9), label, np.int16), np.diag([voxel_mm] * 3 + [1.0]))
    with pytest.raises(InputRefused, match=message):
        read_label_map(path)


def test_nobody_to_train_on_is_refused(tmp_path):
    path = save(tmp_path / "uih2_T1w.nii.gz", head_phantom(), np.eye(4))
    with pytest.raises(InputRefused, match="add subjects to train on"):
        read_corpus([path])


def test_the_record_names_every_file_with_hash_licence_and_group(corpus):
    record = corpus.record()
    assert record["split"] == {"train": ["cstar", "philips"], "validation": ["uih2"]}
    files = {entry["file"]: entry for entry in record["train"] + record["validation"] + record["label_maps"]}
    assert set(files) == {
        "cstar_T1w.nii.gz",
        "cstar_T2w.nii.gz",
        "philips_T1w.nii.gz",
        "uih2_T1w.nii.gz",
        "seg.nii.gz",
    }
    assert all(len(entry["sha256"]) == 64 and entry["licence"] for entry in files.values())
