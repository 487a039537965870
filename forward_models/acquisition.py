"""How a stack was acquired, and where each of these facts comes from."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from forward_models.errors import FlagConflict, InputRefused
from forward_models.files import stem
from forward_models.grids import SliceGrid
from forward_models.profiles import Gaussian, SliceProfile
from forward_models.volume import Volume

ProfileFamily = Callable[[float], SliceProfile]

MIN_SLICES = 4
MIN_ANISOTROPY = 1.1  # slices closer than this many in-plane voxels leave nothing to super-resolve
SAME_MM = 0.05  # spacings and thicknesses in sidecars are rounded to about this much


class Source(str, Enum):
    """Where a fact comes from, the most trustworthy first."""

    FLAG = "flag"
    SIDECAR = "sidecar"
    HEADER = "header"
    ESTIMATE = "estimate"
    ASSUMPTION = "assumption"


@dataclass(frozen=True)
class Sources:
    """Where each fact of an `Acquisition` comes from. The gap follows from spacing and thickness."""

    axis: Source
    spacing: Source
    thickness: Source
    profile: Source


@dataclass(frozen=True)
class Acquisition:
    """How a stack of thick slices was acquired.

    Attributes:
        axis: array axis along which slices are stacked.
        slices: their centres, in mm from the middle of the stack.
        in_plane_mm: voxel sizes along the other two array axes, in order.
        profile: what a slice sees along its normal; its full width at half maximum is the slice thickness.
        sources: where axis, spacing, thickness and profile come from.
        notes: assumptions and contradictions that a user should know of, one line each.
        resolved_mm: true voxel sizes in plane, larger than `in_plane_mm` where the scanner interpolated; None takes
            those of the file (`forward_models.in_plane`).
        in_plane_source: where `resolved_mm` comes from.
    """

    axis: int
    slices: SliceGrid
    in_plane_mm: tuple[float, float]
    profile: SliceProfile
    sources: Sources
    notes: tuple[str, ...] = ()
    resolved_mm: tuple[float, float] | None = None
    in_plane_source: Source = Source.HEADER

    @property
    def spacing_mm(self) -> float:
        """Distance between slice centres."""
        return self.slices.spacing_mm

    @property
    def thickness_mm(self) -> float:
        """Full width at half maximum of the slice profile."""
        return self.profile.fwhm_mm

    @property
    def gap_mm(self) -> float:
        """Spacing minus thickness; negative where slices overlap."""
        return self.spacing_mm - self.thickness_mm

    @property
    def thin_mm(self) -> float:
        """The thin slice spacing that suits this scan: its coarser true in-plane voxel size, that of the file where
        the true one is no finer than the slices."""
        true_mm = max(self.resolved_mm or self.in_plane_mm)
        return true_mm if true_mm <= self.thickness_mm and true_mm < self.spacing_mm else max(self.in_plane_mm)


@dataclass(frozen=True)
class Sidecar:
    """What the JSON file beside a scan says of its slices.

    Attributes:
        thickness_mm, spacing_mm, acquisition_type: None where it does not say, or nothing that can be used.
        unusable: what is wrong, by the name of the field.
        samples: acquired along an array axis, by that axis, where it says so.
    """

    thickness_mm: float | None = None
    spacing_mm: float | None = None
    acquisition_type: str | None = None
    unusable: Mapping[str, str] = field(default_factory=dict)
    samples: Mapping[int, int] = field(default_factory=dict)


def sidecar_path(scan: Path) -> Path:
    """scan.json for scan.nii.gz."""
    return scan.parent / f"{stem(scan)}.json"


def read_sidecar(path: Path) -> Sidecar:
    """`SliceThickness`, `SpacingBetweenSlices` and `MRAcquisitionType`; all None where there is no such file.

    Names of patients or sites may be in any encoding; bytes that are no UTF-8 are replaced.

    Raises:
        InputRefused: the file is not a JSON object.
    """
    if not path.exists():
        return Sidecar()
    try:
        fields = json.loads(path.read_bytes().decode("utf-8-sig", errors="replace"))
    except (OSError, ValueError) as error:
        raise InputRefused(f"sidecar {path} is not readable JSON ({error}); repair or remove it") from None
    if not isinstance(fields, dict):
        raise InputRefused(f"sidecar {path} holds a {type(fields).__name__}; expected a JSON object")
    unusable = {
        key: f"sidecar {path}: {key} is {fields[key]!r}; expected a positive number of mm"
        for key in ("SliceThickness", "SpacingBetweenSlices")
        if fields.get(key) is not None and _millimetres(fields[key]) is None
    }
    kind = fields.get("MRAcquisitionType")
    return Sidecar(
        thickness_mm=_millimetres(fields.get("SliceThickness")),
        spacing_mm=_millimetres(fields.get("SpacingBetweenSlices")),
        acquisition_type=kind if isinstance(kind, str) else None,
        unusable=unusable,
        samples=_acquired_samples(fields),
    )


def acquisition_of(
    volume: Volume,
    sidecar: Sidecar | None = None,
    *,
    axis: int | None = None,
    thickness_mm: float | None = None,
    gap_mm: float | None = None,
    profile: ProfileFamily | SliceProfile | None = None,
) -> Acquisition:
    """Work out how `volume` was acquired. What is passed wins over the sidecar, positions win over tags.

    Args:
        volume: the scan.
        sidecar: what the JSON beside it says.
        axis: slice axis; by default the one with the largest voxel.
        thickness_mm, gap_mm: either suffices; both must add up to the spacing.
        profile: a family such as `Gaussian`, given the thickness; or a profile, which then says the thickness itself.

    Raises:
        InputRefused: this is not a stack of thick slices, or the numbers cannot be true.
        FlagConflict: arguments contradict each other.
    """
    sidecar = sidecar or Sidecar()
    axis, axis_source = _slice_axis(volume, axis)
    slices = volume.slice_grid(axis)
    in_plane = tuple(size for i, size in enumerate(volume.voxel_mm) if i != axis)
    if slices.count < MIN_SLICES:
        raise InputRefused(f"{slices.count} slices along axis {axis}; at least {MIN_SLICES} are needed")
    width, source, notes = _thickness(slices.spacing_mm, sidecar, thickness_mm, gap_mm, profile)
    if width > slices.field_of_view_mm:
        raise InputRefused(
            f"slice thickness {width:g} mm exceeds the stack's length of {slices.field_of_view_mm:g} mm; check its unit"
        )
    if sidecar.acquisition_type == "3D":
        notes += ("the sidecar says 3-D acquisition: a slab has no slice profile, the one used is a stand-in",)
    return Acquisition(
        axis=axis,
        slices=slices,
        in_plane_mm=(in_plane[0], in_plane[1]),
        profile=profile if isinstance(profile, SliceProfile) else (profile or Gaussian)(width),
        sources=Sources(axis_source, Source.HEADER, source, Source.ASSUMPTION if profile is None else Source.FLAG),
        notes=notes,
    )


def plane_of(volume: Volume, axis: int) -> tuple[str, float]:
    """Anatomical plane of the slices, and the angle in degrees between their normal and that plane's."""
    normal = np.abs(volume.affine[:3, axis]) / volume.voxel_mm[axis]
    world = int(np.argmax(normal))
    return ("sagittal", "coronal", "axial")[world], float(np.degrees(np.arccos(min(1.0, normal[world]))))


def _slice_axis(volume: Volume, axis: int | None) -> tuple[int, Source]:
    sizes = volume.voxel_mm
    by_size = sorted(range(3), key=lambda i: sizes[i])
    chosen = by_size[2] if axis is None else axis
    described = " x ".join(f"{size:.4g}" for size in sizes)
    if chosen not in (0, 1, 2):
        raise InputRefused(f"--axis {axis} is not an array axis; expected 0, 1 or 2")
    in_plane = max(sizes[i] for i in range(3) if i != chosen)
    if axis is None and sizes[by_size[1]] >= MIN_ANISOTROPY * sizes[by_size[0]] and in_plane * 1.05 > sizes[chosen]:
        raise InputRefused(
            f"voxels of {described} mm: axes {by_size[1]} and {by_size[2]} are equally thick; pass --axis, the one "
            "that slices are stacked along, and --spacing, of the thin slices in mm"
        )
    if axis is None and sizes[chosen] < MIN_ANISOTROPY * in_plane:
        raise InputRefused(
            f"voxels of {described} mm: slice axis {chosen} has spacing {sizes[chosen]:.4g} mm, less than "
            f"{MIN_ANISOTROPY:g} times that in plane ({in_plane:.4g} mm); the scan is isotropic and needs no "
            "super-resolution"
        )
    smaller = min(sizes[i] for i in range(3) if i != chosen)
    if axis is not None and sizes[chosen] < MIN_ANISOTROPY * smaller:
        raise InputRefused(
            f"voxels of {described} mm: --axis {axis} has spacing {sizes[chosen]:.4g} mm, less than "
            f"{MIN_ANISOTROPY:g} times that in plane ({smaller:.4g} mm); pass the thick axis"
        )
    return chosen, Source.HEADER if axis is None else Source.FLAG


def _thickness(
    spacing: float,
    sidecar: Sidecar,
    thickness_mm: float | None,
    gap_mm: float | None,
    profile: ProfileFamily | SliceProfile | None,
) -> tuple[float, Source, tuple[str, ...]]:
    """Thickness in mm, its source, and notes."""
    if isinstance(profile, SliceProfile):
        _refuse_thickness_beside(profile, thickness_mm, gap_mm)
        return profile.fwhm_mm, Source.FLAG, ()
    if thickness_mm is not None or gap_mm is not None:
        return _stated_thickness(spacing, thickness_mm, gap_mm), Source.FLAG, ()
    if wrong := sidecar.unusable.get("SliceThickness"):
        raise InputRefused(f"{wrong}; correct it, or pass --thickness or --gap")
    if sidecar.thickness_mm is not None:
        return sidecar.thickness_mm, Source.SIDECAR, tuple(_sidecar_notes(spacing, sidecar.thickness_mm, sidecar))
    note = (
        f"slice thickness is not recorded: ASSUMING NO GAP, thickness {spacing:.4g} mm; "
        "pass --thickness or --gap if you know better"
    )
    return spacing, Source.ASSUMPTION, (note,)


def _refuse_thickness_beside(profile: SliceProfile, thickness_mm: float | None, gap_mm: float | None) -> None:
    for flag, value in (("--thickness", thickness_mm), ("--gap", gap_mm)):
        if value is not None:
            raise FlagConflict(
                f"{flag} {value:g} would be ignored: --profile gives a sampled profile, which says its own "
                f"thickness ({profile.fwhm_mm:.4g} mm); leave one out"
            )


def _stated_thickness(spacing: float, thickness_mm: float | None, gap_mm: float | None) -> float:
    for flag, value in (("--thickness", thickness_mm), ("--gap", gap_mm)):
        if value is not None and not np.isfinite(value):
            raise InputRefused(f"{flag} {value:g}; expected a number of mm")
    if thickness_mm is not None and thickness_mm <= 0:
        raise InputRefused(f"--thickness {thickness_mm:g}; expected a positive number of mm")
    if thickness_mm is not None and gap_mm is not None and abs(thickness_mm + gap_mm - spacing) > SAME_MM:
        raise InputRefused(
            f"--thickness {thickness_mm:g} and --gap {gap_mm:g} add up to {thickness_mm + gap_mm:g} mm, but slices lie "
            f"{spacing:.4g} mm apart; leave one out"
        )
    if thickness_mm is not None:
        return thickness_mm
    assert gap_mm is not None
    if gap_mm >= spacing - SAME_MM:
        raise InputRefused(f"--gap {gap_mm:g} leaves no slice: slices lie {spacing:.4g} mm apart")
    return spacing - gap_mm


def _sidecar_notes(spacing: float, thickness: float, sidecar: Sidecar) -> Iterator[str]:
    """What is odd about the sidecar's SliceThickness and SpacingBetweenSlices."""
    if thickness > spacing + SAME_MM:
        yield (
            f"the sidecar's SliceThickness = {thickness:g} says that slices overlap: they lie {spacing:.4g} mm apart; "
            "pass --thickness or --gap if you know better"
        )
    if wrong := sidecar.unusable.get("SpacingBetweenSlices"):
        yield f"{wrong}; positions are followed"
    tag = sidecar.spacing_mm
    if tag is None or abs(tag - spacing) <= SAME_MM:
        return
    if abs(thickness + tag - spacing) <= max(SAME_MM, 0.02 * spacing):
        yield (
            f"the sidecar's SpacingBetweenSlices = {tag:g} is the gap: slices lie {spacing:.4g} mm apart, "
            f"thickness {thickness:g} mm; positions are followed"
        )
    else:
        yield (
            f"the sidecar's SpacingBetweenSlices = {tag:g} contradicts the positions, {spacing:.4g} mm apart; "
            "positions are followed"
        )


def _acquired_samples(fields: Mapping[str, Any]) -> dict[int, int]:
    """How many samples were acquired along the in-plane axes, as dcm2niix tells it: slices are stacked along axis 2."""
    direction = fields.get("PhaseEncodingDirection") or fields.get("PhaseEncodingAxis")
    if direction is None:  # the DICOM row is the first axis of the file
        direction = {"ROW": "i", "COL": "j"}.get(str(fields.get("InPlanePhaseEncodingDirectionDICOM")), "")
    phase = {"i": 0, "j": 1}.get(str(direction)[:1])
    if phase is None:
        return {}
    readout = fields.get("BaseResolution") or fields.get("FrequencyEncodingSteps")
    told = {phase: fields.get("AcquisitionMatrixPE"), 1 - phase: readout}
    counts = {axis: _millimetres(n) for axis, n in told.items()}  # any positive number
    return {axis: int(n) for axis, n in counts.items() if n is not None}


def _millimetres(value: Any) -> float | None:
    """A positive, finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= sys.float_info.max:
        return None
    return float(value)
