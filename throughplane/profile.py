"""The slice profile of one scan: for `throughplane profile`, and for `upsample` where thickness is not known."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eclare import ProfileTrace, espreso, estimate_profile
from forward_models import (
    Acquisition,
    FlagConflict,
    InputRefused,
    Sampled,
    Volume,
    acquisition_of,
    read_volume,
    require_usable,
)
from forward_models.acquisition import Source
from throughplane.names import EstimatorName
from throughplane.outputs import Writer
from throughplane.software import software_record

# (volume, acquisition, generator=) -> slice profile, and how it came about
Estimator = Callable[..., tuple[Sampled, ProfileTrace]]
ESTIMATORS: dict[EstimatorName, Estimator] = {"variograms": estimate_profile, "espreso": espreso}


@dataclass(frozen=True, eq=False)
class Estimate:
    """A slice profile, and what is known of it.

    Attributes:
        name: of the scan.
        sha256: of its file.
        spacing_mm: between slices.
        estimator: that made it.
        profile: estimated.
        trace: how.
        notes: what is odd about the file, one line each.
    """

    name: str
    sha256: str | None
    spacing_mm: float
    estimator: EstimatorName
    profile: Sampled
    trace: ProfileTrace
    notes: tuple[str, ...]


def estimate(
    scan: Path,
    *,
    estimator: EstimatorName = "variograms",
    axis: int | None = None,
    volume: int | None = None,
    seed: int = 0,
) -> Estimate:
    """Read a scan and estimate its slice profile. Sidecars are not read: the scan alone decides.

    Raises:
        InputRefused: the scan is not a stack of thick slices, or holds too few of them.
    """
    read = read_volume(scan, volume)
    require_usable(read, str(scan))
    acquisition = acquisition_of(read, axis=axis)
    profile, trace = ESTIMATORS[estimator](read, acquisition, generator=torch.Generator().manual_seed(seed))
    return Estimate(str(scan), read.sha256, acquisition.spacing_mm, estimator, profile, trace, read.warnings)


def with_estimate(volume: Volume, acquisition: Acquisition, estimator: Estimator) -> Acquisition:
    """The acquisition with the slice profile that the scan shows, because that was asked for.

    Raises:
        FlagConflict: thickness or gap were given too.
        InputRefused: too few slices, or slices without structure.
    """
    if acquisition.sources.thickness is Source.FLAG:
        raise FlagConflict(
            "--profile estimates the thickness too, so --thickness and --gap would be ignored; leave one out"
        )
    profile, trace = estimator(volume, acquisition)
    sources = replace(acquisition.sources, thickness=Source.ESTIMATE, profile=Source.ESTIMATE)
    return replace(
        acquisition, profile=profile, sources=sources, notes=(_told(trace), *trace.doubts, *_facts(acquisition))
    )


def with_thickness_found(volume: Volume, acquisition: Acquisition) -> Acquisition:
    """The acquisition with an estimated thickness where nothing says it, the scan does, and it contradicts "no gap".

    Estimates are off by a tenth in the median, so one that has the slice spacing in its plausible range is no reason to
    give up what is assumed otherwise.
    """
    if acquisition.sources.thickness is not Source.ASSUMPTION:
        return acquisition
    try:
        found, trace = estimate_profile(volume, acquisition)
    except InputRefused:
        return acquisition
    low, high = trace.plausible_mm
    plausible = low <= acquisition.spacing_mm <= high
    if plausible or not trace.informative or trace.fwhm_mm < acquisition.thin_mm:
        judged = "agrees" if plausible and trace.informative else "does not tell"
        note = f"the scan itself {judged}: its slices look {trace.fwhm_mm:.3g} mm thick ({low:.3g} to {high:.3g})"
        return replace(acquisition, notes=(*acquisition.notes, note))
    notes, sources = (_told(trace), *_facts(acquisition)), replace(acquisition.sources, thickness=Source.ESTIMATE)
    if sources.profile is Source.FLAG:
        stated = acquisition.profile.scaled(trace.fwhm_mm / acquisition.thickness_mm)
        return replace(acquisition, profile=stated, sources=sources, notes=notes)
    return replace(acquisition, profile=found, sources=replace(sources, profile=Source.ESTIMATE), notes=notes)


def _facts(acquisition: Acquisition) -> list[str]:
    """Its notes, less that on a thickness which is no longer assumed."""
    return [note for note in acquisition.notes if "ASSUMING NO GAP" not in note]


def _told(trace: ProfileTrace) -> str:
    low, high = trace.plausible_mm
    return (
        f"slice thickness estimated from the scan: {trace.fwhm_mm:.3g} mm ({low:.3g} to {high:.3g}); pass --thickness "
        "or --gap if you know better"
    )


def as_record(found: Estimate) -> dict[str, Any]:
    """What `--profile` reads, and where it comes from."""
    trace = found.trace
    posterior = {} if trace.fit is None else trace.fit.posterior
    return {
        "offsets_mm": found.profile.offsets_mm.round(6).tolist(),
        "weights": found.profile.weights.round(9).tolist(),
        "fwhm_mm": trace.fwhm_mm,
        "sd_mm": trace.sd_mm,
        "repeatability_mm": list(trace.repeatability_mm),
        "plausible_mm": list(trace.plausible_mm),
        "informative": trace.informative,
        "notes": [*found.notes, *trace.doubts],
        "spacing_mm": found.spacing_mm,
        "estimator": found.estimator,
        "families": {name: round(float(np.sum(share)), 4) for name, share in posterior.items()},
        "seconds": round(trace.seconds, 2),
        "input": {"file": found.name, "sha256": found.sha256},
        **software_record(),
    }


def plot_writer(found: Estimate) -> Writer:
    """Writes the picture of `throughplane profile --plot`."""
    from throughplane.profile_picture import profile_picture

    return lambda path: profile_picture(found.profile, found.trace, found.name, path)
