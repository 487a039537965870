"""One scan's way through the house: volume, acquisition, working order, method, volume."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from eclare import SavedNetwork
from forward_models import (
    Acquisition,
    FlagConflict,
    InputRefused,
    Sidecar,
    SliceGrid,
    SliceProfile,
    Volume,
    acquisition_of,
    noise_sd,
    read_sidecar,
    read_volume,
    require_usable,
    sidecar_path,
    slice_selection,
    thin_grid_for,
    volume_from_image,
)
from forward_models.acquisition import ProfileFamily
from forward_models.progress import Progress, silent
from forward_models.stack import stack_of
from forward_models.volume import Dtype
from throughplane.device import (
    Stopwatch,
    device_named,
    memory_errors_told,
    peak_memory_bytes,
    require_threads,
    threads,
)
from throughplane.inspection import acquisition_record, geometry_record
from throughplane.methods import METHODS, Method, MethodName, Preset, applied_again
from throughplane.profile import Estimator, with_estimate, with_thickness_found
from throughplane.residual import left_over, residual_record
from throughplane.version import version

DEFAULT_PRESET: Preset = "standard"
DEFAULT_SEED = 0


@dataclass(frozen=True)
class Acquired:
    """What a caller knows of the acquisition; None leaves it to the file and its sidecar."""

    thickness_mm: float | None = None
    gap_mm: float | None = None
    profile: ProfileFamily | SliceProfile | None = None
    axis: int | None = None
    volume: int | None = None
    estimator: Estimator | None = None  # of the profile and the thickness, where the scan shall tell them


@dataclass(frozen=True)
class How:
    """How the thin volume is to be made; None leaves it to the method or the scan.

    Attributes:
        method: row of the methods table.
        spacing_mm: of the thin slices.
        preset, seed: of methods that learn.
        network: trained before, to be applied instead of training one.
        device, threads: where the arithmetic runs.
        dtype: of the image.
    """

    method: MethodName = "eclare"
    spacing_mm: float | None = None
    preset: Preset | None = None
    seed: int | None = None
    network: SavedNetwork | None = None
    device: str = "auto"
    threads: int | None = None
    dtype: Dtype = "float32"


@dataclass(frozen=True, eq=False)
class Scan:
    """A scan that has been read, found usable, and understood."""

    name: str
    volume: Volume
    acquisition: Acquisition

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know before trusting the result, one line each."""
        return (*self.volume.warnings, *self.acquisition.notes)


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything decided before the arithmetic starts; `throughplane upsample --dry-run` shows it."""

    scan: Scan
    thin: SliceGrid
    method_name: MethodName
    preset: Preset
    seed: int
    device: torch.device
    threads: int | None
    dtype: Dtype
    network: SavedNetwork | None

    @property
    def method(self) -> Method:
        return METHODS[self.method_name] if self.network is None else applied_again(self.network)

    @property
    def thin_shape(self) -> tuple[int, int, int]:
        shape = list(self.scan.volume.data.shape)
        shape[self.scan.acquisition.axis] = self.thin.count
        return (shape[0], shape[1], shape[2])

    @property
    def memory_bytes(self) -> int:
        """Expected peak memory, interpreter and libraries included."""
        fixed, per_voxel = self.method.memory
        return int(fixed + per_voxel * np.prod(self.thin_shape))


@dataclass(frozen=True, eq=False)
class Result:
    """A thin-slice volume and what can be said for it.

    Attributes:
        image: in the orientation of the scan, sform = qform; float32, unless another dtype was asked for.
        record: everything needed to understand and repeat the run; JSON-ready.
        residual: W x - y of `image` on the grid of the scan, in its units: where it disagrees with the measurement.
        volume: as computed, before it was rounded to the dtype of `image`.
        network: that made it, for `eclare.save_network`; None for methods without one.
    """

    image: nib.Nifti1Image
    record: Mapping[str, Any]
    residual: nib.Nifti1Image
    volume: Volume
    network: SavedNetwork | None = None


def super_resolve(
    scan: str | Path | nib.spatialimages.SpatialImage,
    *,
    method: MethodName = "eclare",
    thickness_mm: float | None = None,
    gap_mm: float | None = None,
    profile: ProfileFamily | SliceProfile | None = None,
    axis: int | None = None,
    volume: int | None = None,
    spacing_mm: float | None = None,
    preset: Preset | None = None,
    device: str = "auto",
    threads: int | None = None,
    seed: int | None = None,
    network: SavedNetwork | None = None,
    progress: Progress = silent,
) -> Result:
    """Turn a stack of thick slices into a thin-slice volume.

    Args:
        scan: path of a .nii, .nii.gz or .mgz file (its JSON sidecar is read too), or a nibabel image.
        method: `eclare` learns from the scan itself, `inverse` regularises, `cubic` interpolates.
        thickness_mm, gap_mm: of the slices; by default from the sidecar, else no gap is assumed.
        profile: a family of `forward_models` (`Gaussian`, `Box`, `slr`) or a sampled profile; default Gaussian.
        axis: array axis of the slices; by default the one with the largest voxels.
        volume: which volume of a 4-D file.
        spacing_mm: of the thin slices; by default the coarser in-plane voxel size.
        preset: cost of methods that learn: `fast`, `standard` (default) or `best`.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        threads: CPU threads; by default as many as torch chooses.
        seed: of methods that draw random numbers; default 0.
        network: of `eclare.load_network`, to be applied instead of training one.
        progress: called with stage, steps done and steps in all.

    Raises:
        InputRefused: the scan cannot be processed as it is; the message says why and what to do.
        FlagConflict: arguments contradict each other, or one would be ignored.
        throughplane.OutOfMemory: with what to do.
    """
    read = read_scan(scan, Acquired(thickness_mm, gap_mm, profile, axis, volume))
    return carry_out(plan(read, How(method, spacing_mm, preset, seed, network, device, threads)), progress)


def read_scan(scan: str | Path | nib.spatialimages.SpatialImage, acquired: Acquired) -> Scan:
    """Read a scan and work out how it was acquired; arguments and errors as for `super_resolve`."""
    if isinstance(scan, str | Path):
        path = Path(scan)
        volume, name, sidecar = read_volume(path, acquired.volume), str(path), read_sidecar(sidecar_path(path))
    else:
        volume, name, sidecar = volume_from_image(scan, acquired.volume), "image", Sidecar()
    require_usable(volume, name)
    acquisition = acquisition_of(
        volume,
        sidecar,
        axis=acquired.axis,
        thickness_mm=acquired.thickness_mm,
        gap_mm=acquired.gap_mm,
        profile=acquired.profile,
    )
    if acquired.estimator is not None:
        acquisition = with_estimate(volume, acquisition, acquired.estimator)
    return Scan(name, volume, acquisition)


def plan(scan: Scan, how: How) -> Plan:
    """Settle everything that can be settled, and refuse what cannot, before the arithmetic starts."""
    _refuse_ignored(how)
    require_threads(how.threads)
    if how.method == "eclare" and how.network is None:
        scan = replace(scan, acquisition=with_thickness_found(scan.volume, scan.acquisition))
    thin = _thin_grid(scan, how.spacing_mm)
    if how.network is not None:
        how.network.require_fit(slice_selection(scan.acquisition.slices, thin, scan.acquisition.profile))
    return Plan(
        scan,
        thin,
        how.method,
        DEFAULT_PRESET if how.preset is None else how.preset,
        DEFAULT_SEED if how.seed is None else how.seed,
        device_named(how.device),
        how.threads,
        how.dtype,
        how.network,
    )


def _refuse_ignored(how: How) -> None:
    if how.method not in METHODS:
        raise InputRefused(f"method {how.method!r} is unknown; expected one of {', '.join(METHODS)}")
    learning = [(flag, value) for flag, value in (("--preset", how.preset), ("--seed", how.seed)) if value is not None]
    for flag, value in learning:
        if not METHODS[how.method].learns:
            raise FlagConflict(f"{flag} {value} would be ignored: --method {how.method} learns nothing; leave one out")
        if how.network is not None:
            raise FlagConflict(f"{flag} {value} would be ignored: with --network nothing is learned; leave one out")
    if how.network is not None and how.method != "eclare":
        raise FlagConflict(f"--network would be ignored: --method {how.method} has no network; leave one out")


def _thin_grid(scan: Scan, spacing_mm: float | None) -> SliceGrid:
    """Of the spacing asked for, or else of the coarser in-plane voxel size."""
    if spacing_mm is None and scan.acquisition.thin_mm >= scan.acquisition.spacing_mm * (1 - 1e-6):
        raise InputRefused(
            f"voxels of {scan.acquisition.thin_mm:.4g} mm in plane are no smaller than the slice spacing of "
            f"{scan.acquisition.spacing_mm:.4g} mm, so they do not say how thin slices shall be; pass --spacing in mm"
        )
    thin_mm = scan.acquisition.thin_mm if spacing_mm is None else spacing_mm
    thin = thin_grid_for(scan.acquisition.slices, thin_mm)
    if thin_mm > scan.acquisition.thickness_mm * (1 + 1e-6):
        raise InputRefused(
            f"thin slices of {thin_mm:.4g} mm would be thicker than the scan's own {scan.acquisition.thickness_mm:.4g} "
            "mm; pass a smaller --spacing"
        )
    return thin


def carry_out(plan: Plan, progress: Progress = silent) -> Result:
    """Do what was planned."""
    clock = Stopwatch()
    scan, acquisition = plan.scan, plan.scan.acquisition
    with threads(plan.threads) as thread_count, memory_errors_told(plan.device):
        stack = stack_of(scan.volume, acquisition, plan.thin.spacing_mm).to(plan.device)
        generator = torch.Generator().manual_seed(plan.seed)
        outcome = plan.method.run(stack, plan.preset, generator, progress)
        volume = scan.volume.on_grid(stack.in_file_order(outcome.thin), acquisition.axis, plan.thin)
        selection = replace(stack.selection, axis=acquisition.axis)  # counted from either end, W is the same
        residual = left_over(volume.stored(plan.dtype), scan.volume.data, selection)
        noise = noise_sd(stack.slices) * stack.scale
    record = {
        "SliceThickness": plan.thin.spacing_mm,
        "SpacingBetweenSlices": plan.thin.spacing_mm,
        **software_record(),
        "method": plan.method_name,
        **({"preset": plan.preset, "seed": plan.seed} if plan.method.learns else {}),
        "input": {"file": scan.name, "sha256": scan.volume.sha256, **geometry_record(scan.volume)},
        "acquisition": acquisition_record(scan.volume, acquisition),
        "output": geometry_record(volume),
        "warnings": list(scan.notes),
        "method_details": dict(outcome.details),
        "residual": residual_record(residual, scan.volume.data, noise, selection),
        "device": str(plan.device),
        "threads": thread_count,
        "seconds": round(clock.seconds, 2),
        "peak_memory_bytes": peak_memory_bytes(),
    }
    left = scan.volume.on_grid(residual, acquisition.axis, acquisition.slices)
    return Result(volume.image(plan.dtype), record, left.image(), volume, outcome.network)


def software_record() -> dict[str, Any]:
    """Versions that a result depends on."""
    return {
        "GeneratedBy": [{"Name": "throughplane", "Version": version()}],
        "software": {
            "throughplane": version(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "nibabel": nib.__version__,
        },
    }
