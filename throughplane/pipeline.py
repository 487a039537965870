"""One scan's way through the house: acquisition, working order, method, volume."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from eclare import PRESETS, SavedNetwork, load_starting_network
from forward_models import (
    FlagConflict,
    InputRefused,
    SliceGrid,
    SliceProfile,
    SliceSelection,
    Volume,
    noise_sd,
    slice_selection,
    thin_grid_for,
)
from forward_models.acquisition import ProfileFamily
from forward_models.in_plane import InPlane
from forward_models.placed import PlacedStack, placed
from forward_models.progress import Progress, silent
from forward_models.stack import Stack, stack_of
from forward_models.timing import seconds_of
from forward_models.volume import Dtype
from throughplane.device import (
    Stopwatch,
    device_named,
    memory_errors_told,
    peak_memory_bytes,
    threads,
)
from throughplane.inspection import acquisition_record, geometry_record
from throughplane.methods import METHODS, Method, applied_again, learned
from throughplane.names import MethodName, Preset
from throughplane.profile import with_thickness_found
from throughplane.reading import Acquired, Scan, ScanSource, read_scans
from throughplane.residual import left_over, residual_record
from throughplane.sampling import Sampler, load_sampler
from throughplane.sampling_together import sampled_jointly
from throughplane.software import software_record
from throughplane.together import Another, explained, fitted, jointly

DEFAULT_PRESET: Preset = "standard"
DEFAULT_SEED = 0
NO_START = "none"
TIMED_SHARE = 4  # of the rows of a scan: one in so many


@dataclass(frozen=True)
class How:
    """How the thin volume is to be made; None leaves it to the method or the scan.

    Attributes:
        method: row of the methods table.
        spacing_mm: of the thin slices.
        preset, seed: of methods that learn.
        network: trained before, to be applied instead of training one.
        init: where eclare's network starts: a file, "none" for scratch, None for the one that comes with the package.
        consistent: whether eclare makes its result explain the scan as a last step; None does.
        prior, samples, noise_aware, adapt_minutes: of focvs: a checkpoint folder, how many samples to draw and average,
            whether they explain the scan to its noise instead of exactly, and how long the prior learns from it first.
        align: whether the place of other scans is refined, or taken from their headers.
        device, threads: where the arithmetic runs.
        dtype: of the image.
    """

    method: MethodName = "eclare"
    spacing_mm: float | None = None
    preset: Preset | None = None
    seed: int | None = None
    network: SavedNetwork | None = None
    init: str | Path | None = None
    consistent: bool | None = None
    prior: Path | None = None
    samples: int | None = None
    noise_aware: bool = False
    adapt_minutes: float | None = None
    align: bool = False
    device: str = "auto"
    threads: int | None = None
    dtype: Dtype = "float32"


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything decided before the arithmetic starts; `throughplane upsample --dry-run` shows it."""

    scan: Scan
    thin: SliceGrid
    method_name: MethodName
    method: Method
    preset: Preset
    seed: int
    device: torch.device
    threads: int | None
    dtype: Dtype
    sampler: Sampler | None
    others: tuple[Another, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of all scans before trusting the result."""
        others = (note for other in self.others for note in other.notes)
        return (*self.scan.notes, *others, *(self.sampler.notes if self.sampler and not self.others else ()))

    @property
    def thin_shape(self) -> tuple[int, int, int]:
        shape = list(self.scan.volume.data.shape)
        shape[self.scan.acquisition.axis] = self.thin.count
        return (shape[0], shape[1], shape[2])

    @property
    def memory_bytes(self) -> int:
        """Expected peak memory, interpreter and libraries included."""
        fixed, per_voxel, per_measured = self.method.memory
        acquisition = self.scan.acquisition
        true_mm = acquisition.resolved_mm or acquisition.in_plane_mm
        share = np.prod(acquisition.in_plane_mm) / np.prod(true_mm)
        own = fixed + (per_voxel + per_measured * share) * np.prod(self.thin_shape)
        return int(own + (self.sampler.prior.network_bytes(self._sides_mm) if self.sampler else 0))

    @property
    def _sides_mm(self) -> tuple[float, float, float]:
        thick, voxel_mm = self.scan.acquisition.axis, self.scan.volume.voxel_mm
        a, b, c = (
            n * (self.thin.spacing_mm if axis == thick else voxel_mm[axis]) for axis, n in enumerate(self.thin_shape)
        )
        return a, b, c


@dataclass(frozen=True, eq=False)
class Result:
    """A thin-slice volume and what can be said for it.

    Attributes:
        image: in the orientation of the scan, sform = qform; float32, unless another dtype was asked for.
        record: everything needed to understand and repeat the run; JSON-ready.
        residual: W x - y of `image` on the grid of the scan, in its units: where it disagrees with the measurement.
        volume: as computed, before it was rounded to the dtype of `image`.
        network: that made it, for `eclare.save_network`; None for methods without one.
        sd: expected standard deviation of the error, from the spread of the samples of focvs, in the units of the scan;
            None for a single one.
        measured: per voxel of the thin volume, the share of variance that the scan fixes, from 0 to 1.
        residuals: what `residual` is, for each further scan on its own grid; 0 where the thin volume does not reach.
    """

    image: nib.Nifti1Image
    record: Mapping[str, Any]
    residual: nib.Nifti1Image
    volume: Volume
    network: SavedNetwork | None = None
    sd: nib.Nifti1Image | None = None
    measured: nib.Nifti1Image | None = None
    residuals: tuple[nib.Nifti1Image, ...] = ()

    @property
    def maps(self) -> Mapping[str, nib.Nifti1Image]:
        """What says how far to trust the volume, by name."""
        named = {"residual": self.residual, "measured": self.measured, "std": self.sd}
        named |= {f"residual_{number}": image for number, image in enumerate(self.residuals, start=2)}
        return {name: image for name, image in named.items() if image is not None}


def super_resolve(
    scan: ScanSource,
    *,
    others: Sequence[ScanSource] = (),
    align: bool = False,
    method: MethodName = "eclare",
    thickness_mm: float | None = None,
    gap_mm: float | None = None,
    profile: ProfileFamily | SliceProfile | None = None,
    axis: int | None = None,
    volume: int | None = None,
    in_plane_mm: InPlane = "auto",
    undo_alternation: bool = False,
    spacing_mm: float | None = None,
    preset: Preset | None = None,
    device: str = "auto",
    threads: int | None = None,
    seed: int | None = None,
    network: SavedNetwork | None = None,
    init: str | Path | None = None,
    consistent: bool | None = None,
    prior: str | Path | None = None,
    samples: int | None = None,
    noise_aware: bool = False,
    adapt_minutes: float | None = None,
    progress: Progress = silent,
) -> Result:
    """Turn a stack of thick slices into a thin-slice volume.

    Args:
        scan: path of a .nii, .nii.gz or .mgz file (its JSON sidecar is read too), or a nibabel image.
        others: further scans of the same head in the same contrast, which the volume shall explain too; for `eclare`,
            `focvs` and `inverse`. Their own sidecars say how they were acquired; arguments about that describe `scan`.
        align: refine where the others lie; by default their headers say it.
        method: `eclare` learns from the scan itself, as does its predecessor `smore`; `focvs` samples a trained prior,
            `inverse` regularises, `cubic` interpolates.
        thickness_mm, gap_mm: of the slices; by default from the sidecar, else no gap is assumed.
        profile: a family of `forward_models` (`Gaussian`, `Box`, `slr`) or a sampled profile; default Gaussian.
        axis: array axis of the slices; by default the one with the largest voxels.
        volume: which volume of a 4-D file.
        in_plane_mm: true voxel size in plane, one or two in the order of the file; `auto` finds out whether the scanner
            interpolated, None trusts the file.
        undo_alternation: undo brightness that alternates from slice to slice, of every scan where it clearly does.
        spacing_mm: of the thin slices; by default the coarser true in-plane voxel size.
        preset: cost of methods that learn or sample: `fast`, `standard` (default) or `best`;
            `instant` applies the network that eclare starts from without training it; focvs samples from there.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        threads: CPU threads; by default as many as torch chooses.
        seed: of methods that draw random numbers; default 0.
        network: of `eclare.load_network`, to be applied instead of training one.
        init: where the network of eclare starts: by default with what other heads taught it, a network that comes with
            this package; "none" learns from the scan alone; or a file of scripts/pretrain_eclare.py.
        consistent: whether eclare makes its result explain the scan as a last step; it does by default.
        prior: of focvs, a checkpoint folder; by default the one that comes with the package.
        samples: of focvs, how many to draw; the volume is their mean. Default 1.
        noise_aware: focvs explains the scan to its noise instead of exactly.
        adapt_minutes: of focvs, how long the prior learns from the scan's own slices before it is sampled.
        progress: called with stage, steps done and steps in all.

    Raises:
        InputRefused: the scan cannot be processed as it is; the message says why and what to do.
        FlagConflict: arguments contradict each other, or one would be ignored.
        throughplane.OutOfMemory: with what to do.
        throughplane.sampling.WeightsMissing: there is no prior to sample.
    """
    if isinstance(others, ScanSource):
        raise InputRefused(f"others is a single {type(others).__name__}; expected a list of scans: others=[...]")
    acquired = Acquired(thickness_mm, gap_mm, profile, axis, volume, in_plane_mm, undo_alternation=undo_alternation)
    how = How(
        method=method,
        spacing_mm=spacing_mm,
        preset=preset,
        seed=seed,
        network=network,
        init=init,
        consistent=consistent,
        prior=None if prior is None else Path(prior),
        samples=samples,
        noise_aware=noise_aware,
        adapt_minutes=adapt_minutes,
        align=align,
        device=device,
        threads=threads,
    )
    first, *further = read_scans([scan, *others], acquired, threads)
    return carry_out(plan(first, how, further), progress)


def plan(scan: Scan, how: How, others: Sequence[Scan] = ()) -> Plan:
    """Settle everything that can be settled, and refuse what cannot, before the method starts."""
    _refuse_ignored(how)
    _refuse_with(how, others)
    device = device_named(how.device)
    with threads(how.threads), memory_errors_told(device):
        return _settled(scan, how, others, device)


def _settled(scan: Scan, how: How, others: Sequence[Scan], device: torch.device) -> Plan:
    if how.method == "eclare" and how.network is None:
        scan = replace(scan, acquisition=with_thickness_found(scan.volume, scan.acquisition))
    thin = _thin_grid(scan, how.spacing_mm)
    if how.network is not None:
        how.network.require_fit(slice_selection(scan.acquisition.slices, thin, scan.acquisition.profile))
    sampler = None
    if how.method == "focvs":
        sampler = load_sampler(how.prior, how.samples, device, how.noise_aware, how.adapt_minutes)
    method = _method(how) if sampler is None else sampler.method()
    if others:
        first = placed(stack_of(scan.volume, scan.acquisition, thin.spacing_mm), scan.volume)
        further = tuple(_fitted(first, other, how) for other in others)
        explaining = partial(jointly, how.method, method) if sampler is None else partial(sampled_jointly, sampler)
        method = explaining(first.slices, further)
    return Plan(
        scan,
        thin,
        how.method,
        method,
        DEFAULT_PRESET if how.preset is None else how.preset,
        DEFAULT_SEED if how.seed is None else how.seed,
        device,
        how.threads,
        how.dtype,
        sampler,
        further if others else (),
    )


def _fitted(first: PlacedStack, other: Scan, how: How) -> Another:
    """Another scan, with the thickness that it shows where `eclare` looks for that, and its place."""
    acquisition = other.acquisition
    if how.method == "eclare":
        acquisition = with_thickness_found(other.volume, acquisition)
    fine = acquisition.thin_mm < acquisition.spacing_mm and acquisition.thin_mm <= acquisition.thickness_mm
    thin_mm = acquisition.thin_mm if fine else min(acquisition.thickness_mm, acquisition.spacing_mm / 2)
    return fitted(first, other.name, other.volume, acquisition, thin_mm, how.align)


def _method(how: How) -> Method:
    """The row of the methods table, told what only eclare wants to know."""
    if how.method != "eclare":
        return METHODS[how.method]
    consistent = how.consistent is None or how.consistent
    if how.network is not None:
        return applied_again(how.network, consistent)
    if how.init == NO_START:
        return learned(None, consistent)
    return learned(load_starting_network() if how.init is None else load_starting_network(Path(how.init)), consistent)


def _refuse_ignored(how: How) -> None:
    if how.method not in METHODS:
        raise InputRefused(f"method {how.method!r} is unknown; expected one of {', '.join(METHODS)}")
    if how.preset is not None and how.preset not in PRESETS:
        raise InputRefused(f"preset {how.preset!r} is unknown; expected one of {', '.join(PRESETS)}")
    learning = [(flag, value) for flag, value in (("--preset", how.preset), ("--seed", how.seed)) if value is not None]
    for flag, value in learning:
        if not METHODS[how.method].learns:
            raise FlagConflict(f"{flag} {value} would be ignored: --method {how.method} learns nothing; leave one out")
        if how.network is not None:
            raise FlagConflict(f"{flag} {value} would be ignored: with --network nothing is learned; leave one out")
    consistent = "--no-consistent" if how.consistent is False else "--consistent"
    of_eclare = {"--network": how.network, "--init": how.init, consistent: how.consistent}
    of_focvs: dict[str, object] = {"--prior": how.prior, "--samples": how.samples}
    of_focvs |= {"--noise-aware": how.noise_aware or None, "--adapt": how.adapt_minutes}
    for owner, flags in (("eclare", of_eclare), ("focvs", of_focvs)):
        given = [name for name, told in flags.items() if told is not None]
        if given and how.method != owner:
            raise FlagConflict(
                f"{given[0]} would be ignored: it is for {owner}, not --method {how.method}; leave one out"
            )
    if how.preset == "instant" and (how.method == "smore" or how.init == NO_START):
        asked = "--init none" if how.init == NO_START else f"--method {how.method}"
        raise FlagConflict(
            "--preset instant trains nothing and needs the network that eclare starts from, so it cannot go with "
            f"{asked}; leave one out"
        )
    if how.network is not None and how.init is not None:
        raise FlagConflict("--init would be ignored: with --network nothing is learned; leave one out")


def _refuse_with(how: How, others: Sequence[Scan]) -> None:
    """What several scans cannot go with."""
    if not others:
        if how.align:
            raise FlagConflict("--align would be ignored without --with; leave one out")
        return
    if how.method not in ("eclare", "focvs", "inverse"):
        raise FlagConflict(
            f"--with would be ignored: --method {how.method} understands one scan only; leave it out, or take --method "
            "eclare, focvs or inverse"
        )
    if how.network is not None:
        raise FlagConflict("--with and --network contradict each other: each scan has a network of its own")
    if how.noise_aware:
        raise FlagConflict(
            "--with and --noise-aware contradict each other: of several scans the first is explained exactly and the "
            "others to their noise; leave one out"
        )
    if how.consistent is False:
        raise FlagConflict("--with and --no-consistent contradict each other: scans are joined by explaining all")


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


def expected_seconds(plan: Plan) -> float:
    """How long `carry_out` will take, from pieces of it timed now on this machine, in about two seconds."""
    with threads(plan.threads), memory_errors_told(plan.device):
        clock = Stopwatch()
        stack = stack_of(plan.scan.volume, plan.scan.acquisition, plan.thin.spacing_mm).to(plan.device)
        reading = clock.seconds
        a, b, _ = stack.slices.shape
        piece = torch.ones(a // TIMED_SHARE + 1, b, plan.thin.count, device=plan.device)
        writing = seconds_of(lambda: stack.in_file_order(piece), plan.device) * a / piece.shape[0]
        return reading + 3 * writing + plan.method.seconds(stack, plan.preset)  # noise and residual are worked out too


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
        further = _explained(plan, stack, volume)
    record = {
        "SliceThickness": plan.thin.spacing_mm,
        "SpacingBetweenSlices": plan.thin.spacing_mm,
        **software_record(),
        "method": plan.method_name,
        **({"preset": plan.preset, "seed": plan.seed} if plan.method.learns else {}),
        "input": {"file": scan.name, "sha256": scan.volume.sha256, **geometry_record(scan.volume)},
        "acquisition": acquisition_record(scan.volume, acquisition),
        "output": geometry_record(volume),
        "warnings": list(plan.notes),
        "method_details": dict(outcome.details),
        "residual": residual_record(residual, scan.volume.data, noise, selection),
        **({"others": [said for said, _ in further]} if further else {}),
        "device": str(plan.device),
        "threads": thread_count,
        "seconds": round(clock.seconds, 2),
        "peak_memory_bytes": peak_memory_bytes(),
    }
    left = scan.volume.on_grid(residual, acquisition.axis, acquisition.slices)
    sd = None if outcome.sd is None else replace(volume, data=stack.in_file_order(outcome.sd))
    return Result(
        volume.image(plan.dtype),
        record,
        left.image(),
        volume,
        outcome.network,
        None if sd is None else sd.image(),
        measured_map(volume, selection).image(),
        tuple(image for _, image in further),
    )


def _explained(plan: Plan, stack: Stack, volume: Volume) -> list[tuple[dict[str, Any], nib.Nifti1Image]]:
    """How well the volume, as stored, explains every further scan."""
    if not plan.others:
        return []
    thin = placed(stack, plan.scan.volume).thin
    x = stack.order.apply(volume.stored(plan.dtype))
    return [explained(other, thin, x) for other in plan.others]


def measured_map(thin: Volume, selection: SliceSelection) -> Volume:
    """`SliceSelection.measured_share` for every voxel of a thin volume."""
    shape = [1, 1, 1]
    shape[selection.axis] = selection.thin.count
    share = selection.measured_share.numpy().astype(np.float32).reshape(shape)
    return replace(thin, data=np.broadcast_to(share, thin.data.shape))
