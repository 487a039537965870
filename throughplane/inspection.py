"""What a file says about itself, and whether super-resolution makes sense."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from forward_models import (
    Acquisition,
    FlagConflict,
    InputRefused,
    Sidecar,
    Volume,
    noise_sd,
    plane_of,
    thin_grid_for,
)
from throughplane.reading import Acquired, understood


@dataclass(frozen=True)
class Inspection:
    """Everything `throughplane inspect` shows.

    Attributes:
        name: of the file.
        volume: as read.
        acquisition: what was found out about the slices, None where the scan was refused.
        refusal: why, in one line.
    """

    name: str
    volume: Volume
    acquisition: Acquisition | None
    refusal: str | None

    @property
    def suitable(self) -> bool:
        return self.refusal is None


def inspect(volume: Volume, sidecar: Sidecar, name: str, acquired: Acquired) -> Inspection:
    """Work out how a scan was acquired, or why it cannot be super-resolved.

    Raises:
        FlagConflict: what the caller says contradicts itself.
    """
    try:
        return Inspection(name, volume, understood(volume, name, sidecar, acquired).acquisition, None)
    except FlagConflict:
        raise
    except InputRefused as refusal:
        return Inspection(name, volume, None, str(refusal))


def as_record(inspection: Inspection) -> dict[str, Any]:
    """For `--json`; millimetres unless the name says otherwise."""
    volume, acquisition = inspection.volume, inspection.acquisition
    finite = volume.data[np.isfinite(volume.data)]
    record: dict[str, Any] = {
        "file": inspection.name,
        "sha256": volume.sha256,
        **geometry_record(volume),
        "dtype": str(volume.header.get_data_dtype()),
        "intensity_range": [float(finite.min()), float(finite.max())] if finite.size else None,
        "warnings": list(volume.warnings),
        "suitable": inspection.suitable,
        "refusal": inspection.refusal,
    }
    if acquisition is not None:
        thin = thin_grid_for(acquisition.slices, acquisition.thin_mm)
        slices = np.moveaxis(volume.data, acquisition.axis, -1).astype(np.float32)
        record |= {
            **acquisition_record(volume, acquisition),
            "noise_sd": round(noise_sd(torch.from_numpy(slices)), 6),
            "thin_slices": thin.count,
            "thin_spacing_mm": thin.spacing_mm,
            "factor": acquisition.spacing_mm / thin.spacing_mm,
        }
    return record


def geometry_record(volume: Volume) -> dict[str, Any]:
    """Shape, voxel sizes, orientation and affine of a volume."""
    return {
        "shape": list(volume.data.shape),
        "voxel_mm": list(volume.voxel_mm),
        "orientation": volume.orientation,
        "affine": volume.affine.tolist(),
    }


def acquisition_record(volume: Volume, acquisition: Acquisition) -> dict[str, Any]:
    """Thickness, gap and profile, with where each comes from."""
    plane, degrees = plane_of(volume, acquisition.axis)
    sources = acquisition.sources
    return {
        "slice_axis": acquisition.axis,
        "slice_axis_source": sources.axis.value,
        "plane": plane,
        "oblique_degrees": round(degrees, 3),
        "slices": acquisition.slices.count,
        "spacing_mm": acquisition.spacing_mm,
        "spacing_source": sources.spacing.value,
        "thickness_mm": acquisition.thickness_mm,
        "thickness_source": sources.thickness.value,
        "gap_mm": acquisition.gap_mm,
        "in_plane_mm": list(acquisition.in_plane_mm),
        "in_plane_resolution_mm": list(acquisition.resolved_mm or acquisition.in_plane_mm),
        "in_plane_resolution_source": acquisition.in_plane_source.value,
        "profile": acquisition.profile.name,
        "profile_fwhm_mm": acquisition.profile.fwhm_mm,
        "profile_source": sources.profile.value,
        "notes": list(acquisition.notes),
    }
