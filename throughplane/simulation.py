"""`throughplane simulate`: a thick-slice scan with a sidecar that says how it was made."""

import math
from dataclasses import dataclass
from typing import Any

import torch

from forward_models import FlagConflict, InputRefused, SliceProfile, Volume, matching_voxels, require_usable, simulate
from throughplane.inspection import geometry_record
from throughplane.software import software_record


@dataclass(frozen=True)
class Simulation:
    """What to simulate; millimetres, and the units of the image for the noise.

    Raises:
        FlagConflict: a seed without noise.
        InputRefused: an axis that is none, negative noise, or a gap that is no number.
    """

    profile: SliceProfile
    gap_mm: float
    axis: int
    noise_sd: float
    seed: int | None

    def __post_init__(self) -> None:
        if self.axis not in (0, 1, 2):
            raise InputRefused(f"--axis {self.axis} is not an array axis; expected 0, 1 or 2")
        if not 0 <= self.noise_sd < math.inf:
            raise InputRefused(f"--noise {self.noise_sd:g}; expected a standard deviation of 0 or more")
        if not math.isfinite(self.gap_mm):
            raise InputRefused(f"--gap {self.gap_mm:g}; expected a number of mm")
        if self.seed is not None and self.noise_sd == 0:
            raise FlagConflict(f"--seed {self.seed} would be ignored without --noise; leave one out")


def simulate_volume(thin: Volume, name: str, settings: Simulation) -> tuple[Volume, dict[str, Any]]:
    """The scan and its record, which is also a sidecar that `inspect` and `upsample` read."""
    require_usable(thin, name)
    seed = settings.seed or 0
    scan = simulate(
        thin,
        settings.profile,
        settings.gap_mm,
        axis=settings.axis,
        noise_sd=settings.noise_sd,
        generator=torch.Generator().manual_seed(seed),
    )
    truth = matching_voxels(thin.slice_grid(settings.axis), settings.profile.fwhm_mm, settings.gap_mm)
    record = {
        "SliceThickness": settings.profile.fwhm_mm,
        "SpacingBetweenSlices": settings.profile.fwhm_mm + settings.gap_mm,
        "MRAcquisitionType": "2D",
        **software_record(),
        "method": "simulate",
        "input": {"file": name, "sha256": thin.sha256, **geometry_record(thin)},
        "output": geometry_record(scan),
        "profile": {"name": settings.profile.name, "fwhm_mm": settings.profile.fwhm_mm},
        "axis": settings.axis,
        "noise_sd": settings.noise_sd,
        "seed": seed if settings.noise_sd else None,
        "truth_voxels_along_axis": [truth.start, truth.stop],
        "warnings": list(thin.warnings),
    }
    return scan, record
