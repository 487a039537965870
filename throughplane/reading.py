"""A scan that was read and understood: how it was acquired, from the file, its sidecar and what the caller knows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from forward_models import (
    Acquisition,
    InputRefused,
    Sidecar,
    SliceProfile,
    Volume,
    acquisition_of,
    read_sidecar,
    read_volume,
    require_usable,
    sidecar_path,
    volume_from_image,
)
from forward_models.acquisition import ProfileFamily
from forward_models.alternation import alternation
from forward_models.in_plane import InPlane, with_in_plane
from throughplane.device import memory_errors_told, threads
from throughplane.profile import Estimator, with_estimate

ScanSource = str | Path | nib.spatialimages.SpatialImage


@dataclass(frozen=True)
class Acquired:
    """What a caller knows of the acquisition; None leaves it to the file and its sidecar."""

    thickness_mm: float | None = None
    gap_mm: float | None = None
    profile: ProfileFamily | SliceProfile | None = None
    axis: int | None = None
    volume: int | None = None
    in_plane_mm: InPlane = None
    estimator: Estimator | None = None  # of the profile and the thickness, where the scan shall tell them
    undo_alternation: bool = False  # of brightness, from slice to slice


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


def read_scans(scans: Sequence[ScanSource], acquired: Acquired, thread_count: int | None = None) -> list[Scan]:
    """The first as `acquired` says, the others as their own sidecars do; errors as for `super_resolve`."""
    first, *others = scans
    with threads(thread_count), memory_errors_told(torch.device("cpu")):
        return [read_scan(first, acquired), *(read_other(other, acquired.undo_alternation) for other in others)]


def read_scan(scan: ScanSource, acquired: Acquired) -> Scan:
    """Read a scan and work out how it was acquired; arguments and errors as for `super_resolve`."""
    if isinstance(scan, str | Path):
        path = Path(scan)
        volume, name, sidecar = read_volume(path, acquired.volume), str(path), read_sidecar(sidecar_path(path))
    elif not isinstance(scan, nib.spatialimages.SpatialImage):
        raise InputRefused(f"the scan is a {type(scan).__name__}; expected a path or a nibabel image")
    else:
        volume, name, sidecar = volume_from_image(scan, acquired.volume), "image", Sidecar()
    return understood(volume, name, sidecar, acquired)


def understood(volume: Volume, name: str, sidecar: Sidecar, acquired: Acquired) -> Scan:
    """How a volume that has been read was acquired; errors as for `super_resolve`."""
    require_usable(volume, name)
    if isinstance(acquired.profile, str):
        raise InputRefused(
            f"profile {acquired.profile!r} is a name; expected Gaussian, Box or slr of throughplane, or what its "
            "load_profile(path) returns"
        )
    acquisition = acquisition_of(
        volume,
        sidecar,
        axis=acquired.axis,
        thickness_mm=acquired.thickness_mm,
        gap_mm=acquired.gap_mm,
        profile=acquired.profile,
    )
    volume, acquisition = _even(volume, acquisition, acquired.undo_alternation)
    if acquired.estimator is not None:
        acquisition = with_estimate(volume, acquisition, acquired.estimator)
    return Scan(name, volume, with_in_plane(acquisition, volume, sidecar, acquired.in_plane_mm))


def _even(volume: Volume, acquisition: Acquisition, undo: bool) -> tuple[Volume, Acquisition]:
    """With alternating brightness told, and undone where it is clear and `undo` asks for it."""
    found = alternation(np.moveaxis(volume.data, acquisition.axis, -1))
    note = found.note(undo)
    even = found.undone(volume, acquisition.axis) if undo and found.is_clear else volume
    return even, acquisition if note is None else replace(acquisition, notes=(*acquisition.notes, note))


def read_single(path: Path) -> Volume:
    """The volume in a file of which none can be chosen.

    Raises:
        InputRefused: it cannot be read, or holds several.
    """
    try:
        return read_volume(path)
    except InputRefused as refusal:
        if "--volume" not in str(refusal):
            raise
        several = str(refusal).rpartition("; ")[0]
        raise InputRefused(f"{several}; expected one: extract it to a file of its own") from None


def read_other(scan: ScanSource, undo_alternation: bool = False) -> Scan:
    """A further scan of the head; only its own sidecar says how it was acquired.

    Raises:
        InputRefused: as for `read_scan`, and for more than one volume.
    """
    try:
        return read_scan(scan, Acquired(in_plane_mm="auto", undo_alternation=undo_alternation))
    except InputRefused as refusal:
        scope = "; flags about the acquisition describe the first scan only" if "--" in str(refusal) else ""
        raise InputRefused(f"--with {scan if isinstance(scan, str | Path) else 'image'}: {refusal}{scope}") from None
