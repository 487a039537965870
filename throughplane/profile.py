"""The slice profile of one scan, for `throughplane profile`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eclare import ProfileTrace, estimate_profile
from forward_models import Sampled, acquisition_of, read_volume, require_usable
from throughplane.outputs import Writer


@dataclass(frozen=True, eq=False)
class Estimate:
    """A slice profile, and what is known of it.

    Attributes:
        name: of the scan.
        sha256: of its file.
        spacing_mm: between slices.
        profile: estimated.
        trace: how.
        notes: what is odd about the file, one line each.
    """

    name: str
    sha256: str | None
    spacing_mm: float
    profile: Sampled
    trace: ProfileTrace
    notes: tuple[str, ...]


def estimate(scan: Path, *, axis: int | None = None, volume: int | None = None, seed: int = 0) -> Estimate:
    """Read a scan and estimate its slice profile. Sidecars are not read: the scan alone decides.

    Raises:
        InputRefused: the scan is not a stack of thick slices, or holds too few of them.
    """
    read = read_volume(scan, volume)
    require_usable(read, str(scan))
    acquisition = acquisition_of(read, axis=axis)
    profile, trace = estimate_profile(read, acquisition, generator=torch.Generator().manual_seed(seed))
    return Estimate(str(scan), read.sha256, acquisition.spacing_mm, profile, trace, read.warnings)


def as_record(found: Estimate) -> dict[str, Any]:
    """What `--profile` reads, and where it comes from."""
    from throughplane.pipeline import software_record

    trace = found.trace
    return {
        "offsets_mm": found.profile.offsets_mm.round(6).tolist(),
        "weights": found.profile.weights.round(9).tolist(),
        "fwhm_mm": trace.fwhm_mm,
        "sd_mm": trace.sd_mm,
        "repeatability_mm": list(trace.repeatability_mm),
        "plausible_mm": list(trace.plausible_mm),
        "informative": trace.informative,
        "notes": [*found.notes, *trace.notes],
        "spacing_mm": found.spacing_mm,
        "families": {name: round(float(np.sum(share)), 4) for name, share in trace.posterior.items()},
        "seconds": round(trace.seconds, 2),
        "input": {"file": found.name, "sha256": found.sha256},
        **software_record(),
    }


def plot_writer(found: Estimate) -> Writer:
    """Writes the picture of `throughplane profile --plot`."""
    from throughplane.profile_picture import profile_picture

    return lambda path: profile_picture(found.profile, found.trace, found.name, path)
