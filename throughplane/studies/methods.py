"""What can be compared: every method behind one signature, named as on the command line."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

import eclare
import focvs
from focvs import comparison
from forward_models import InputRefused, Sidecar, Volume, acquisition_of, thin_grid_for
from forward_models.acquisition import ProfileFamily
from forward_models.progress import silent
from forward_models.stack import stack_of
from throughplane.device import device_named, peak_memory_bytes
from throughplane.methods import METHODS
from throughplane.names import MethodName, Preset
from throughplane.pipeline import DEFAULT_PRESET, NO_START, How, Plan, carry_out, expected_seconds, plan
from throughplane.reading import Acquired
from throughplane.reading import read_scan as understand
from throughplane.sampling import eclare_start, load_sampler
from throughplane.studies.cases import FAMILIES, Case
from throughplane.studies.records import Degradation

TRAINED: tuple[Preset, ...] = ("fast", "standard", "best")
TAUGHT: tuple[Preset, ...] = ("instant", *TRAINED)
KEPT_OF_RECORD = (
    "method",
    "preset",
    "seed",
    "acquisition",
    "method_details",
    "residual",
    "warnings",
    "device",
    "threads",
)
TOLD_ALL = "thickness, gap and family of the slice profile, as a user with a complete sidecar would tell"


@dataclass(frozen=True, eq=False)
class Given:
    """All that a method gets to see of a case; the truth is not among it.

    Attributes:
        scan: thick slices along `axis` of the array.
        thin_mm: spacing that the thin slices shall have.
        thickness_mm, gap_mm, profile: how the scan was made; a method need not look at them.
        profile_name: of the family.
    """

    scan: Volume
    axis: int
    thin_mm: float
    thickness_mm: float
    gap_mm: float
    profile: ProfileFamily
    profile_name: str


@dataclass(frozen=True)
class Bench:
    """What a method works with: its seed, CPU threads, and an empty folder of its own."""

    seed: int
    threads: int
    folder: Path


@dataclass(frozen=True, eq=False)
class Made:
    """A thin volume, the method's own record of it, and the largest resident size of the process that made it."""

    volume: Volume
    details: Mapping[str, Any]
    peak_memory_bytes: int


@dataclass(frozen=True)
class Contender:
    """One way from a scan to a thin volume.

    Attributes:
        name: as on the command line.
        how, told: for the protocol: how it is run, and what it is told of the acquisition.
        make: does it. A partial of module-level functions, so that another process can be sent it.
        expected: seconds of one thread that `make` will take, or None where nobody can tell.
    """

    name: str
    how: str
    told: str
    make: Callable[[Given, Bench], Made]
    expected: Callable[[Given, Bench], float] | None = None


@dataclass(frozen=True)
class _Row:
    """A built-in method: `base` with one of `presets`, and with several samples if it `draws` any."""

    make: Callable[[How, Given, Bench], Made]
    base: How
    how: str
    told: str = TOLD_ALL
    presets: tuple[Preset, ...] = ()
    draws: bool = False
    expected: Callable[[How, Given, Bench], float] | None = None


def given_of(case: Case, degradation: Degradation) -> Given:
    """What a method is shown of a case."""
    return Given(
        case.scan,
        case.axis,
        case.truth.voxel_mm[case.axis],
        degradation.thickness_mm,
        degradation.gap_mm,
        FAMILIES[degradation.profile],
        degradation.profile,
    )


def contender(text: str) -> Contender:
    """NAME, NAME@PRESET, NAME@SAMPLES or NAME@PRESET@SAMPLES.

    Raises:
        InputRefused: there is no such method, it has no such preset, or it draws no samples.
    """
    name, *settings = text.split("@")
    if name not in ROWS:
        raise InputRefused(
            f"method {text!r} is unknown; expected {', '.join(ROWS)}, or a name that --external gives a command"
        )
    row = ROWS[name]
    preset, samples = _settings(text, settings, row)
    how = replace(row.base, preset=preset if row.presets else None, samples=samples)
    said = [row.how]
    if row.presets:
        said.append(f"preset {preset}")
    if samples:
        said.append(f"mean of {samples} samples")
    expected = None if row.expected is None else partial(row.expected, how)
    return Contender(text, ", ".join(said), row.told, partial(row.make, how), expected)


def _settings(text: str, settings: list[str], row: _Row) -> tuple[Preset, int | None]:
    """What follows the name: a preset, then a number of samples, either of which may be missing."""
    presets = {str(preset): preset for preset in row.presets}
    preset = presets[settings.pop(0)] if settings and settings[0] in presets else DEFAULT_PRESET
    samples = None
    if row.draws and settings and settings[0].isdecimal() and int(settings[0]) > 0:
        samples = int(settings.pop(0))
    if settings:
        allowed = [f"@{preset}" for preset in row.presets] + ["@ and a number of samples"] * row.draws
        raise InputRefused(
            f"method {text!r}: @{settings[0]} means nothing here; expected {' or '.join(allowed) or 'no @'}"
        )
    return preset, samples


def by_pipeline(how: How, given: Given, bench: Bench) -> Made:
    """As `throughplane upsample` does it, told everything."""
    return _carried_out(_planned(how, given, bench, _told_all(given)))


def by_pipeline_untold(how: How, given: Given, bench: Bench) -> Made:
    """As `throughplane upsample --profile estimate` does it."""
    return _carried_out(_planned(how, given, bench, _told_nothing(given)))


def by_solver(solver: Callable[..., torch.Tensor], how: How, given: Given, bench: Bench) -> Made:
    """Another sampler over the prior, the noise levels and the estimate to start from that `focvs` has."""
    device = device_named(how.device)
    acquisition = acquisition_of(
        given.scan,
        Sidecar(),
        axis=given.axis,
        thickness_mm=given.thickness_mm,
        gap_mm=given.gap_mm,
        profile=given.profile,
    )
    stack = stack_of(given.scan, acquisition, given.thin_mm).to(device)
    loaded = load_sampler(None, None, device).prior
    prior = loaded.on(stack)
    grid = focvs.prior_grid(stack, prior.spacing_mm)
    preset = how.preset or DEFAULT_PRESET
    levels = focvs.PRESETS[preset].levels
    x = solver(
        prior.denoisers(grid.stack, own_plane_every=0),
        grid.stack.slices,
        grid.stack.selection,
        levels,
        generator=torch.Generator().manual_seed(bench.seed),
        start=eclare_start(eclare.load_starting_network(), preset, grid.stack, silent),
    )
    thin = stack.in_file_order(grid.carried(x.detach(), focvs.unmeasured))
    volume = given.scan.on_grid(thin, given.axis, thin_grid_for(acquisition.slices, given.thin_mm))
    details = {"noise_levels": [round(level, 6) for level in levels], "prior": loaded.record(), "device": str(device)}
    return Made(volume, details, peak_memory_bytes())


def _told_all(given: Given) -> Acquired:
    return Acquired(given.thickness_mm, given.gap_mm, given.profile, given.axis)


def _told_nothing(given: Given) -> Acquired:
    return Acquired(axis=given.axis, estimator=eclare.estimate_profile)


def _planned(how: How, given: Given, bench: Bench, acquired: Acquired) -> Plan:
    seed = bench.seed if METHODS[how.method].learns else None
    how = replace(how, spacing_mm=given.thin_mm, seed=seed, threads=bench.threads)
    return plan(understand(given.scan.image(), acquired), how)


def _carried_out(planned: Plan) -> Made:
    result = carry_out(planned)
    details = {key: result.record[key] for key in KEPT_OF_RECORD if key in result.record}
    return Made(result.volume, details, result.record["peak_memory_bytes"])


def _expected(how: How, given: Given, bench: Bench) -> float:
    return expected_seconds(_planned(how, given, bench, _told_all(given)))


def _pipeline(method: MethodName, how: str, presets: tuple[Preset, ...] = TRAINED, told: str = TOLD_ALL) -> _Row:
    return _Row(by_pipeline, How(method), f"`upsample --method {method}`: {how}", told, presets, expected=_expected)


def _solver(solve: Callable[..., torch.Tensor], how: str) -> _Row:
    settings = "with the prior, noise levels and starting estimate of focvs, other settings as in `focvs.comparison`"
    return _Row(partial(by_solver, solve), How("focvs"), f"{how}, {settings}", presets=TAUGHT)


_ECLARE = "a network trained on the scan's own slices"
ROWS: Mapping[str, _Row] = MappingProxyType(
    {
        "cubic": _pipeline("cubic", "cubic B-spline interpolation at the true positions", (), "where the slices lie"),
        "inverse": _pipeline("inverse", "a volume of low total variation that explains the scan", ()),
        "smore": _pipeline(
            "smore",
            f"SMORE version 4 ({_ECLARE})",
            told="thickness and gap; it assumes an SLR profile, whatever the family",
        ),
        "eclare": _pipeline("eclare", f"{_ECLARE}, starting from one taught on other heads", TAUGHT),
        "scratch": replace(
            _pipeline("eclare", f"{_ECLARE}, starting from nothing (`--init none`)"), base=How("eclare", init=NO_START)
        ),
        "estimated": replace(
            _pipeline(
                "eclare",
                f"{_ECLARE}, starting from one taught on other heads (`--profile estimate`)",
                TAUGHT,
                "nothing but where the slices lie: thickness and profile are estimated from the scan",
            ),
            make=by_pipeline_untold,
        ),
        "focvs": replace(
            _pipeline("focvs", "a sample of a diffusion prior that explains the scan exactly", TAUGHT), draws=True
        ),
        "focvs-noise-aware": replace(
            _pipeline(
                "focvs", "a sample of a diffusion prior that explains the scan to its noise (`--noise-aware`)", TAUGHT
            ),
            base=How("focvs", noise_aware=True),
            draws=True,
        ),
        "dps": _solver(comparison.dps, "diffusion posterior sampling"),
        "diffpir": _solver(comparison.diffpir, "DiffPIR"),
        "dds": _solver(comparison.dds, "DDS"),
        "red-diff": _solver(comparison.red_diff, "RED-diff"),
    }
)
