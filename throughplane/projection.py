"""Any tool's thin volume, made to explain the scan: x + S (y - W x)."""

from dataclasses import replace

import numpy as np
import torch

from forward_models import InputRefused, SliceGrid, Volume, noise_sd, require_finite, slice_selection
from forward_models.volume import Dtype
from throughplane.device import Stopwatch, memory_errors_told, peak_memory_bytes
from throughplane.inspection import acquisition_record, geometry_record
from throughplane.orientation import SAME_PLACE_MM, stored_like
from throughplane.pipeline import Result
from throughplane.reading import Scan
from throughplane.residual import left_over, residual_record, root_mean_square
from throughplane.software import software_record


def project(thin: Volume, thin_name: str, scan: Scan, dtype: Dtype = "float32") -> Result:
    """The volume closest to `thin`, for smooth corrections, whose thick slices are those of `scan`.

    The thin volume may be stored in another order than the scan and start anywhere along the slice normal; in plane it
    must have the scan's voxels, and along the normal it must cover every slice centre. The result keeps its grid and
    order. Where slices overlap the correction is damped; the record says by how much.

    Raises:
        InputRefused: the two do not share their in-plane grid, or `thin` holds NaN or Inf.
    """
    clock = Stopwatch()
    require_finite(thin, thin_name)
    acquisition = scan.acquisition
    axis = acquisition.axis
    ordered = _stored_like(thin, scan.volume, axis, thin_name)
    grid = _grid_along(ordered, scan.volume, axis)
    selection = slice_selection(acquisition.slices, grid, acquisition.profile, axis)
    with memory_errors_told(torch.device("cpu")):
        x, y = (torch.from_numpy(np.asarray(data, np.float64)) for data in (ordered.data, scan.volume.data))
        result = replace(ordered, data=selection.consistent(x, y).numpy())
        volume = _stored_like(result, thin, None, thin_name)
        volume = replace(volume, affine=thin.affine, header=thin.header)  # to the bit, not to rounding
        written = _stored_like(replace(volume, data=volume.stored(dtype)), scan.volume, axis, thin_name)
        before, after = (left_over(v.data, scan.volume.data, selection) for v in (ordered, written))
    noise = noise_sd(torch.from_numpy(np.moveaxis(scan.volume.data, axis, -1).astype(np.float32)))
    record = {
        "SliceThickness": grid.spacing_mm,
        "SpacingBetweenSlices": grid.spacing_mm,
        **software_record(),
        "method": "project",
        "input": {"file": scan.name, "sha256": scan.volume.sha256, **geometry_record(scan.volume)},
        "thin_input": {"file": thin_name, "sha256": thin.sha256, **geometry_record(thin)},
        "acquisition": acquisition_record(scan.volume, acquisition),
        "output": geometry_record(volume),
        "warnings": [*thin.warnings, *scan.notes],
        "residual": {
            **residual_record(after, scan.volume.data, noise, selection),
            "rms_before": root_mean_square(before),
            "relative_to_scan_before": root_mean_square(before) / root_mean_square(scan.volume.data),
        },
        "seconds": round(clock.seconds, 2),
        "peak_memory_bytes": peak_memory_bytes(),
    }
    left = scan.volume.on_grid(after, axis, acquisition.slices)
    return Result(volume.image(dtype), record, left.image(), volume)


def _stored_like(volume: Volume, model: Volume, slice_axis: int | None, name: str) -> Volume:
    """`volume` with array axes permuted and flipped to run like those of `model`.

    With a `slice_axis`, in-plane voxels must also coincide with the model's.
    """
    result = stored_like(volume, model)
    if result is None:
        raise InputRefused(f"{name} is rotated against the scan; project needs a volume on the scan's own axes")
    if slice_axis is not None:
        _require_same_plane(result, model, slice_axis, name)
    return result


def _require_same_plane(thin: Volume, scan: Volume, axis: int, name: str) -> None:
    in_plane = [i for i in range(3) if i != axis]
    shapes = [tuple(v.data.shape[i] for i in in_plane) for v in (thin, scan)]
    if shapes[0] != shapes[1]:
        raise InputRefused(f"{name} has {shapes[0]} voxels in plane, the scan {shapes[1]}; both must share that grid")
    normal = scan.affine[:3, axis] / scan.voxel_mm[axis]
    for corner in ((0, 0), (shapes[1][0] - 1, 0), (0, shapes[1][1] - 1)):
        index = np.zeros(4)
        index[in_plane] = corner
        index[3] = 1
        offset = ((thin.affine - scan.affine) @ index)[:3]
        sideways = float(np.linalg.norm(offset - (offset @ normal) * normal))
        if sideways > SAME_PLACE_MM:
            raise InputRefused(f"{name} lies {sideways:.3g} mm beside the scan in plane; both must share that grid")


def _grid_along(thin: Volume, scan: Volume, axis: int) -> SliceGrid:
    """Where the slices of `thin` lie, in mm from the middle of the scan's stack."""
    normal = scan.affine[:3, axis] / scan.voxel_mm[axis]
    first = float((thin.affine[:3, 3] - scan.affine[:3, 3]) @ normal) + scan.slice_grid(axis).first_mm
    count, spacing = thin.data.shape[axis], thin.voxel_mm[axis]
    return SliceGrid(count, spacing, first + (count - 1) / 2 * spacing)
