"""Tiny scans that tests share."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import settings

settings.register_profile("default", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("default")
torch.set_num_threads(2)


def rotation(axis_angle: tuple[float, float, float]) -> np.ndarray:
    """Rotation matrix from three Euler angles in radians."""
    a, b, c = axis_angle
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return x @ y @ z


def oblique_affine(voxel_mm=(0.9, 0.9, 3.3), angles=(0.2, -0.1, 0.05), origin=(-31.0, 12.5, -40.25)) -> np.ndarray:
    """Oblique, with voxels of `voxel_mm`."""
    affine = np.eye(4)
    affine[:3, :3] = rotation(angles) * np.asarray(voxel_mm)
    affine[:3, 3] = origin
    return affine


def head_phantom(shape=(32, 34, 30), seed=0) -> np.ndarray:
    """An ellipsoid with shells, blobs and an off-centre lesion; float32, zero outside, no symmetry."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    radius = np.sqrt((grid[0] / 0.8) ** 2 + (grid[1] / 0.9) ** 2 + ((grid[2] + 0.05) / 0.85) ** 2)
    image = np.where(radius < 1, 300.0, 0) + np.where(radius < 0.85, 350.0, 0) - np.where(radius < 0.3, 400.0, 0)
    for _ in range(25):
        centre, size = rng.uniform(-0.6, 0.6, 3), rng.uniform(0.05, 0.2)
        blob = sum((grid[i] - centre[i]) ** 2 for i in range(3)) < size**2
        image += np.where(blob & (radius < 0.85), rng.uniform(-200, 200), 0)
    return np.clip(image, 0, None).astype(np.float32)


def nib_image(data: np.ndarray, voxel_mm=(1.0, 1.0, 1.0)) -> nib.Nifti1Image:
    """In memory, axes along the world's, in mm."""
    return placed_image(data, np.diag([*voxel_mm, 1.0]))


def placed_image(data: np.ndarray, affine: np.ndarray) -> nib.Nifti1Image:
    """In memory, in mm, with sform and qform."""
    image = nib.Nifti1Image(data, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    image.header.set_xyzt_units("mm")
    return image


def save(path: Path, data: np.ndarray, affine: np.ndarray, sidecar: str | None = None) -> Path:
    """Write a NIfTI file, and the JSON beside it."""
    placed_image(data, affine).to_filename(path)
    if sidecar is not None:
        path.with_name(path.name.split(".")[0] + ".json").write_text(sidecar)
    return path


@pytest.fixture
def thick_scan(tmp_path) -> Path:
    """An oblique scan of 9 slices every 3.3 mm, thickness 3 mm by its sidecar, 0.9 mm in plane."""
    data = head_phantom((32, 34, 36))[:, :, 1::4]
    return save(
        tmp_path / "scan.nii.gz",
        np.round(data).astype(np.int16),
        oblique_affine(),
        '{"SliceThickness": 3, "SpacingBetweenSlices": 3.3, "MRAcquisitionType": "2D"}',
    )
