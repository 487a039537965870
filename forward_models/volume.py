"""Volumes: an array, where its voxels lie in the world, and the header to write it back with."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
from jaxtyping import Float64, Shaped
from nibabel.spatialimages import SpatialImage

from forward_models.errors import InputRefused
from forward_models.files import IMAGE_SUFFIXES, file_sha256
from forward_models.grids import SliceGrid

DISAGREEMENT_MM = 0.1  # sform and qform that place every corner within this distance say the same
SMALLEST, LARGEST = 1e-30, 1e30  # of the largest magnitude: what float32 holds, with room for sums
SHEAR = 1e-4  # largest cosine between two array axes: 0.03 mm over a head
Dtype = Literal["float32", "like-input"]


@dataclass(frozen=True, eq=False)
class Volume:
    """A 3-D image in its own orientation.

    Attributes:
        data: (i, j, k) voxels, in the dtype they were stored in, or floating point if the file scales them.
        affine: voxel indices (of voxel centres) to world millimetres, 4 x 4, float64.
        header: NIfTI header that output inherits units, intent and stored dtype from.
        warnings: what was odd about the file, one line each.
        sha256: of the file read, empty for images from memory.
    """

    data: Shaped[np.ndarray, "i j k"]
    affine: Float64[np.ndarray, "4 4"]
    header: nib.Nifti1Header
    warnings: tuple[str, ...] = ()
    sha256: str = ""

    @property
    def voxel_mm(self) -> tuple[float, float, float]:
        """Voxel sizes from the affine, in mm."""
        a, b, c = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(a), float(b), float(c)

    @property
    def orientation(self) -> str:
        """World directions that the array axes point to, such as RAS."""
        return "".join(nib.aff2axcodes(self.affine))

    def slice_grid(self, axis: int) -> SliceGrid:
        """Slices along `axis`, in mm from the middle of the stack."""
        return SliceGrid(self.data.shape[axis], self.voxel_mm[axis])

    def on_grid(self, data: Shaped[np.ndarray, "i j k"], axis: int, grid: SliceGrid) -> "Volume":
        """`data`, whose `axis` lies on `grid` (mm from the middle of this stack), with the affine that follows."""
        direction = self.affine[:3, axis] / self.voxel_mm[axis]
        affine = self.affine.copy()
        affine[:3, axis] = direction * grid.spacing_mm
        affine[:3, 3] += direction * (grid.first_mm - self.slice_grid(axis).first_mm)
        return replace(self, data=data, affine=affine, warnings=(), sha256="")

    def image(self, dtype: Dtype = "float32") -> nib.Nifti1Image:
        """As a NIfTI image with sform = qform.

        `like-input` rounds to the dtype and scaling that the input was stored in; values that do not fit become the
        nearest that does, and `voxels_outside_stored_dtype` counts them.
        """
        header = _clean_header(self.header)
        data, slope, inter = self._raw(dtype)
        header.set_data_dtype(data.dtype)
        image = nib.Nifti1Image(data, self.affine, header)
        image.header.set_slope_inter(slope, inter)
        # the code of the one that was followed; 2, aligned, for files that do not say
        code = int(self.header["sform_code"] or self.header["qform_code"] or 2)
        image.set_sform(self.affine, code)
        image.set_qform(self.affine, code)
        return image

    def stored(self, dtype: Dtype = "float32") -> Shaped[np.ndarray, "i j k"]:
        """The values that a reader of `image(dtype)` gets."""
        data, slope, inter = self._raw(dtype)
        return data if (slope, inter) == (1, 0) else data.astype(np.float64) * slope + inter

    def _raw(self, dtype: Dtype) -> tuple[Shaped[np.ndarray, "i j k"], float, float]:
        """What goes into the file, with the slope and intercept to read it by."""
        if dtype == "float32":
            return np.asarray(self.data, np.float32), 1.0, 0.0
        slope, inter = _stored_scaling(self.header)
        return _to_stored(self.data, self.header), slope, inter

    def voxels_outside_stored_dtype(self) -> int:
        """How many voxels `image("like-input")` cannot hold."""
        dtype = self.header.get_data_dtype()
        if dtype.kind == "f":
            return 0
        stored = _unrounded(self.data, self.header)
        return int(((np.rint(stored) < np.iinfo(dtype).min) | (np.rint(stored) > np.iinfo(dtype).max)).sum())


def read_volume(path: Path, volume: int | None = None) -> Volume:
    """Read a .nii, .nii.gz or .mgz file.

    Args:
        path: the file.
        volume: which volume of a 4-D file to take, from 0.

    Raises:
        InputRefused: the file is missing, damaged, not three-dimensional, not real-valued, or has an affine that is
            singular or sheared.
    """
    if not path.exists():
        raise InputRefused(f"{path} does not exist")
    if not path.is_file() or not path.name.endswith(IMAGE_SUFFIXES):
        raise InputRefused(f"{path} is not a file ending in .nii, .nii.gz or .mgz; convert DICOM with dcm2niix first")
    try:
        image = nib.load(path)
        assert isinstance(image, SpatialImage)  # every format with these suffixes is one
        result = volume_from_image(image, volume, name=str(path))
    except InputRefused:
        raise
    except (nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError, ValueError, KeyError) as error:
        raise InputRefused(f"{path} is not a readable NIfTI or MGH image: {_one_line(error)}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputRefused(f"{path} is damaged or truncated: {_one_line(error)}; copy or convert it again") from None
    return replace(result, sha256=file_sha256(path))


def volume_from_image(image: SpatialImage, volume: int | None = None, name: str = "image") -> Volume:
    """A nibabel image as a `Volume`; arguments and errors as for `read_volume`."""
    _require_real(image, name)
    data = _three_dimensional(image, volume, name)
    if image.affine is None:
        raise InputRefused(f"{name} has no affine; expected one that maps voxels to world mm")
    affine = np.array(image.affine, dtype=np.float64)
    _require_rigid_axes(affine, name)
    header, warnings = _nifti_header(image, name)
    return Volume(data, affine, header, warnings)


def require_usable(volume: Volume, name: str) -> None:
    """Refuse volumes that hold no image: NaN, Inf, all zero, or beyond float32."""
    require_finite(volume, name)
    if not volume.data.any():
        raise InputRefused(f"{name} is zero everywhere; there is nothing to super-resolve")
    largest = max(-float(volume.data.min()), float(volume.data.max()))
    if not SMALLEST <= largest <= LARGEST:
        raise InputRefused(
            f"{name} has intensities of up to {largest:.3g}; expected {SMALLEST:g} to {LARGEST:g}, as float32 holds "
            "them; rescale it first"
        )


def require_finite(volume: Volume, name: str) -> None:
    """Refuse volumes with NaN or Inf, which a weighted sum would spread."""
    if volume.data.dtype.kind != "f":
        return
    finite = np.isfinite(volume.data)
    if not finite.all():
        raise InputRefused(
            f"{name} holds {int((~finite).sum())} voxels that are NaN or Inf, the first at index "
            f"{tuple(int(i) for i in np.argwhere(~finite)[0])}; replace them first"
        )


def _nifti_header(image: SpatialImage, name: str) -> tuple[nib.Nifti1Header, tuple[str, ...]]:
    """The image's header as NIfTI-1, and what is odd about it."""
    if not isinstance(image, nib.Nifti1Pair):
        header = nib.Nifti1Header()
        header.set_data_dtype(image.get_data_dtype())
        header.set_xyzt_units("mm")
        header["sform_code"] = 1
        return header, ()
    header = nib.Nifti1Header.from_header(image.header, check=False)
    header = header.as_byteswapped(nib.volumeutils.native_code)
    # nibabel moves the scaling from the header to the data
    header.set_slope_inter(getattr(image.dataobj, "slope", 1.0), getattr(image.dataobj, "inter", 0.0))
    units = header.get_xyzt_units()[0]
    if units not in ("mm", "unknown"):
        raise InputRefused(f"{name} gives its voxel sizes in {units}; expected mm; correct xyzt_units and pixdim")
    return header, tuple(_header_disagreements(image, units))


def _header_disagreements(image: nib.Nifti1Pair, units: str) -> Iterator[str]:
    sform, s_code = image.header.get_sform(coded=True)
    qform, q_code = image.header.get_qform(coded=True)
    if sform is not None and qform is not None:
        apart = corner_distance_mm(sform, qform, image.shape[:3])
        if apart > DISAGREEMENT_MM:
            yield (
                f"sform (code {s_code}) and qform (code {q_code}) place voxels up to {apart:.3g} mm apart; "
                "the sform is followed"
            )
    if sform is None and qform is None:
        yield "neither sform nor qform is set: orientation is unknown, voxel sizes are taken from pixdim"
    pixdim = np.asarray(image.header.get_zooms()[:3], float)
    sizes = np.linalg.norm(image.affine[:3, :3], axis=0)
    if not np.allclose(pixdim, sizes, rtol=1e-3):
        yield (
            f"pixdim says {_by(pixdim)} mm, the {'sform' if sform is not None else 'qform'} says {_by(sizes)} mm; "
            "the latter is followed"
        )
    if units == "unknown":
        yield "the header does not say its units; mm is assumed"


def corner_distance_mm(a: Float64[np.ndarray, "4 4"], b: Float64[np.ndarray, "4 4"], shape: tuple[int, ...]) -> float:
    """How far two affines place corners of a volume of `shape` apart, and so no voxel farther."""
    corners = np.array([(*corner, 1) for corner in product(*((0, n - 1) for n in shape))], float)
    return float(np.linalg.norm((corners @ (a - b).T)[:, :3], axis=1).max())


def _require_rigid_axes(affine: Float64[np.ndarray, "4 4"], name: str) -> None:
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise InputRefused(f"{name} has a singular affine: its voxels have no volume; repair the header")
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    shear = float(np.abs(directions.T @ directions - np.eye(3)).max())
    if shear > SHEAR:
        raise InputRefused(
            f"{name} has a sheared affine: array axes are {np.degrees(np.arcsin(min(shear, 1))):.2g} degrees away from "
            "right angles (gantry tilt or an affine registration); resample it to a rigid grid first"
        )


def _require_real(image: SpatialImage, name: str) -> None:
    dtype = np.dtype(image.get_data_dtype())
    if dtype.fields is not None:
        raise InputRefused(f"{name} holds RGB colours; expected one intensity per voxel; export the original series")
    if dtype.kind == "c":
        raise InputRefused(f"{name} is complex; expected real intensities; take the magnitude first")


def _three_dimensional(image: SpatialImage, volume: int | None, name: str) -> Shaped[np.ndarray, "i j k"]:
    shape = image.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) == 3:
        if volume is not None:
            raise InputRefused(f"{name} is 3-D, --volume {volume} would be ignored; leave it out")
        return _native(np.asanyarray(image.dataobj).reshape(shape))
    if len(shape) != 4:
        raise InputRefused(f"{name} has shape {image.shape}; expected three dimensions (or four and --volume)")
    if volume is None:
        raise InputRefused(f"{name} holds {shape[3]} volumes; choose one with --volume 0..{shape[3] - 1}")
    if not 0 <= volume < shape[3]:
        raise InputRefused(f"{name} holds {shape[3]} volumes; --volume {volume} is not one of 0..{shape[3] - 1}")
    return _native(np.asanyarray(image.dataobj[:, :, :, volume]).reshape(shape[:3]))


def _native(data: Shaped[np.ndarray, "i j k"]) -> Shaped[np.ndarray, "i j k"]:
    """In memory, in this machine's byte order."""
    return np.array(data, dtype=data.dtype.newbyteorder("="))


def _clean_header(header: nib.Nifti1Header) -> nib.Nifti1Header:
    """A copy without what no longer holds on another grid."""
    clean = header.copy()
    clean.extensions.clear()
    for field in ("slice_start", "slice_end", "slice_duration", "slice_code", "toffset", "dim_info"):
        clean[field] = 0
    clean["descrip"] = b"throughplane"
    return clean


def _stored_scaling(header: nib.Nifti1Header) -> tuple[float, float]:
    slope, inter = header.get_slope_inter()
    return (1.0 if slope is None else float(slope)), (0.0 if inter is None else float(inter))


def _unrounded(data: Shaped[np.ndarray, "i j k"], header: nib.Nifti1Header) -> Float64[np.ndarray, "i j k"]:
    slope, inter = _stored_scaling(header)
    return (np.asarray(data, np.float64) - inter) / slope


def _to_stored(data: Shaped[np.ndarray, "i j k"], header: nib.Nifti1Header) -> Shaped[np.ndarray, "i j k"]:
    """In the dtype and scaling of `header`."""
    dtype = header.get_data_dtype()
    if dtype.kind == "f":
        return np.asarray(data if _stored_scaling(header) == (1, 0) else _unrounded(data, header), dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(_unrounded(data, header)), limits.min, limits.max).astype(dtype)


def _by(sizes: np.ndarray) -> str:
    return " x ".join(f"{size:.4g}" for size in sizes)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
