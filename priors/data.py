"""Thin head volumes as a prior sees them: RAS, 1 mm, air at 0 and the brightest tissue near 1."""

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from jaxtyping import Bool, Float, Float16, Float32, Int64, Shaped, UInt8
from scipy import ndimage
from torch import Tensor

from forward_models import InputRefused, Volume, intensity_scale, read_volume, require_usable, resample
from priors.planes import Plane
from priors.split import LICENCES, UNKNOWN_LICENCE, contrast_of, subject_of
from priors.synthetic import KNOWN_LABELS

SPACING_MM = 1.0
SAME_SPACING_MM = 0.005  # spacings closer to 1 mm than this shift no voxel of a head by half a voxel
THICKEST_MM = 1.5  # thicker slices hold no thin detail to learn
HEAD_LEVEL = 0.1  # of the robust maximum, after smoothing
HEAD_SMOOTHING_MM = 2.0
AIR_MARGIN_MM = 8
LEAST_HEAD_SHARE = 0.02  # slices with less head than this share of the fullest are not drawn
RANGE_PERCENTILE = 99.0  # as in forward_models.intensity_scale, which rounds it to a power of two


@dataclass(frozen=True, eq=False)
class HeadScan:
    """One thin scan.

    Attributes:
        name, subject, contrast, sha256, licence: where it comes from; the hash is of the file.
        voxels: (right, anterior, superior), 1 mm, intensity / robust maximum, negative values set to 0, cropped to
            the head and a margin of air.
        slices: for each plane, which slices show enough head to learn from.
    """

    name: str
    subject: str
    contrast: str
    sha256: str
    licence: str
    voxels: Float16[Tensor, "r a s"]
    slices: tuple[Int64[Tensor, " sagittal"], Int64[Tensor, " coronal"], Int64[Tensor, " axial"]]


@dataclass(frozen=True, eq=False)
class LabelMap:
    """One label map at 1 mm, (right, anterior, superior); voxels index `synthetic.KNOWN_LABELS`."""

    name: str
    sha256: str
    voxels: UInt8[Tensor, "r a s"]
    slices: tuple[Int64[Tensor, " sagittal"], Int64[Tensor, " coronal"], Int64[Tensor, " axial"]]


def read_scan(path: Path) -> HeadScan:
    """Read a thin scan named <subject>_..._<contrast>.nii.gz.

    Raises:
        InputRefused: the file is unreadable, shows no head, has thick slices or an unknown contrast.
    """
    contrast = contrast_of(path)
    if contrast is None:
        raise InputRefused(f"{path} is not named after its contrast; rename it to end in _T1w.nii.gz or the like")
    volume = read_volume(path)
    require_usable(volume, str(path))
    if max(volume.voxel_mm) > THICKEST_MM:
        raise InputRefused(
            f"{path} has voxels of {' x '.join(f'{mm:.3g}' for mm in volume.voxel_mm)} mm; a prior learns from thin "
            f"slices, at most {THICKEST_MM:g} mm; leave it out"
        )
    voxels = normalised(one_millimetre(volume))
    head = head_mask(voxels)
    if not ((volume.data > 0).any() and head.any()):
        raise InputRefused(f"{path} shows no head; leave it out")
    box = _bounding_box(head, AIR_MARGIN_MM)
    return HeadScan(
        name=path.name,
        subject=subject_of(path),
        contrast=contrast,
        sha256=volume.sha256,
        licence=LICENCES.get(subject_of(path), UNKNOWN_LICENCE),
        voxels=voxels[box].to(torch.float16).contiguous(),
        slices=_slices_with_head((head & (voxels > HEAD_LEVEL))[box]),
    )


def read_label_map(path: Path) -> LabelMap:
    """Read a label map of 1 mm voxels whose labels `priors.synthetic` knows.

    Raises:
        InputRefused: other voxels, other labels, or nothing but background.
    """
    volume = read_volume(path)
    if not np.allclose(volume.voxel_mm, SPACING_MM, atol=SAME_SPACING_MM):
        raise InputRefused(f"{path} has voxels of {volume.voxel_mm} mm; expected label maps of 1 mm")
    labels = canonical(volume)
    if unknown := sorted(set(np.unique(labels).tolist()) - set(KNOWN_LABELS)):
        raise InputRefused(f"{path} holds labels {unknown}; expected those of the SynthSeg training label maps")
    indices = torch.from_numpy(np.searchsorted(KNOWN_LABELS, labels).astype(np.uint8))
    if not indices.any():
        raise InputRefused(f"{path} is background everywhere; leave it out")
    box = _bounding_box(indices > 0, AIR_MARGIN_MM)
    return LabelMap(path.name, volume.sha256, indices[box].contiguous(), _slices_with_head(indices[box] > 0))


def canonical(volume: Volume) -> Shaped[np.ndarray, "r a s"]:
    """The array with axes reordered and flipped to point right, anterior and superior."""
    turn = nib.orientations.io_orientation(volume.affine)
    return np.ascontiguousarray(nib.orientations.apply_orientation(volume.data, turn))


def one_millimetre(volume: Volume) -> Float32[Tensor, "r a s"]:
    """RAS voxels of 1 mm; resampled without aliasing, and not at all along axes that have 1 mm already."""
    voxels = torch.from_numpy(canonical(volume).astype(np.float32))
    for axis, size_mm in enumerate(_canonical_voxel_mm(volume)):
        if abs(size_mm - SPACING_MM) > SAME_SPACING_MM:
            voxels = resample(voxels, size_mm, SPACING_MM, axis)
    return voxels


def canonical_slices(
    volume: Volume, axis: int
) -> tuple[Float32[Tensor, "slice rows columns"], tuple[float, float], Plane]:
    """Slices along array axis `axis` in RAS order, their pixel sizes in mm, and their plane."""
    plane = Plane(int(nib.orientations.io_orientation(volume.affine)[axis, 0]))
    slices = torch.from_numpy(canonical(volume).astype(np.float32)).movedim(plane.value, 0).contiguous()
    rows_mm, columns_mm = (mm for world, mm in enumerate(_canonical_voxel_mm(volume)) if world != plane.value)
    return slices, (rows_mm, columns_mm), plane


def _canonical_voxel_mm(volume: Volume) -> list[float]:
    turn = nib.orientations.io_orientation(volume.affine)
    return [volume.voxel_mm[int(np.flatnonzero(turn[:, 0] == world)[0])] for world in range(3)]


def normalised(voxels: Float32[Tensor, "r a s"]) -> Float32[Tensor, "r a s"]:
    """Divided by the 99th percentile of the non-zero voxels; what is negative, interpolation's overshoot, becomes 0.

    A sampler divides by `forward_models.intensity_scale`, the same percentile rounded to a power of two, and so
    leaves a gain between 0.71 and 1.41; training draws gains from that interval.
    """
    if not (voxels > 0).any():
        return torch.zeros_like(voxels)
    rounded = intensity_scale(voxels)  # brings the percentile near 1 before it is taken
    positive = (voxels[voxels > 0] / rounded).numpy()
    maximum = rounded * float(np.percentile(positive, RANGE_PERCENTILE))
    return (voxels / maximum).clamp(min=0)


def head_mask(voxels: Float[Tensor, "r a s"]) -> Bool[Tensor, "r a s"]:
    """Largest connected region above a tenth of the robust maximum after smoothing, holes filled."""
    smooth = ndimage.gaussian_filter(voxels.float().numpy(), HEAD_SMOOTHING_MM)
    regions, count = ndimage.label(smooth > HEAD_LEVEL)
    if count == 0:
        return torch.zeros(voxels.shape, dtype=torch.bool)
    largest = 1 + int(np.argmax(np.bincount(regions.ravel())[1:]))
    return torch.from_numpy(ndimage.binary_fill_holes(regions == largest))


def _bounding_box(mask: Bool[Tensor, "r a s"], margin: int) -> tuple[slice, slice, slice]:
    """The smallest box around `mask`, `margin` voxels wider where the array allows."""
    sides = []
    for axis in range(3):
        inside = mask.any(dim=tuple({0, 1, 2} - {axis})).nonzero().flatten()
        sides.append(slice(max(0, int(inside[0]) - margin), int(inside[-1]) + margin + 1))
    return sides[0], sides[1], sides[2]


def _slices_with_head(head: Bool[Tensor, "r a s"]) -> tuple[Tensor, Tensor, Tensor]:
    areas = [head.sum(dim=tuple({0, 1, 2} - {plane.value})) for plane in Plane]
    sagittal, coronal, axial = ((area > LEAST_HEAD_SHARE * area.max()).nonzero().flatten() for area in areas)
    return sagittal, coronal, axial
