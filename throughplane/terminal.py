"""What a person sees in the terminal."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from forward_models import FlagConflict
from forward_models.progress import Progress, silent
from throughplane.inspection import Inspection, as_record
from throughplane.pipeline import Plan, expected_seconds
from throughplane.profile import Estimate

LINE_SECONDS = 15.0  # between lines where there is no terminal to draw a bar on


@contextmanager
def progress_on(console: Console, quiet: bool) -> Iterator[Progress]:
    """Bars with time left on a terminal, a line now and then elsewhere, nothing if `quiet`."""
    if quiet:
        yield silent
    elif console.is_terminal:
        with _bars(console) as report:
            yield report
    else:
        yield _lines(console)


@contextmanager
def _bars(console: Console) -> Iterator[Progress]:
    columns = (
        TextColumn("{task.description:>16}"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, speed_estimate_period=60) as bars:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield report


def _lines(console: Console) -> Progress:
    started: dict[str, float] = {}
    told: dict[str, float] = {}

    def report(stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        started.setdefault(stage, now)
        if done < total and now - told.get(stage, started[stage]) < LINE_SECONDS:
            return
        told[stage] = now
        seconds = now - started[stage]
        left = seconds / done * (total - done) if done else 0.0
        console.print(f"{stage}: {done}/{total}, {seconds:.0f} s, about {left:.0f} s left", highlight=False)

    return report


def show_inspection(inspection: Inspection, console: Console) -> None:
    """The table of `throughplane inspect`."""
    record = as_record(inspection)
    table = _facts_about(inspection.name)
    sizes = " x ".join(f"{size:.4g}" for size in record["voxel_mm"])
    found = record["intensity_range"]
    intensities = "no number in it" if found is None else f"{found[0]:g} to {found[1]:g}"
    table.add_row("array", f"{' x '.join(map(str, record['shape']))}, {record['dtype']}, {intensities}")
    table.add_row("voxels", f"{sizes} mm, orientation {record['orientation']}")
    if inspection.acquisition is not None:
        for name, text in _acquisition_rows(record):
            table.add_row(name, escape(text))
    for warning in (*record["warnings"], *record.get("notes", ())):
        table.add_row("[yellow]note[/]", escape(warning))
    refusal = record["refusal"]
    table.add_row("verdict", f"[red]refused[/]: {escape(refusal)}" if refusal else "[green]can be super-resolved[/]")
    console.print(table)


def show_profile(estimate: Estimate, console: Console) -> None:
    """The table of `throughplane profile`."""
    trace = estimate.trace
    table = _facts_about(estimate.name)
    table.add_row("FWHM", f"{trace.fwhm_mm:.2f} mm, 5 to 95 %: {_band(trace.plausible_mm)}")
    table.add_row("repeatability", f"{_band(trace.repeatability_mm)}, over slices or seeds")
    table.add_row("width", f"{trace.sd_mm:.2f} mm standard deviation")
    table.add_row("spacing", f"{estimate.spacing_mm:.4g} mm")
    for note in (*estimate.notes, *trace.doubts):
        table.add_row("[yellow]note[/]", escape(note))
    table.add_row("verdict", "[green]told by the scan[/]" if trace.informative else "[yellow]not told by the scan[/]")
    console.print(table)


def _facts_about(name: str) -> Table:
    """A table of two columns; what goes into it is read for colours, so texts of others must be escaped."""
    table = Table(title=escape(name), show_header=False, title_justify="left", title_style="bold", min_width=60)
    table.add_column(style="cyan")
    table.add_column(overflow="fold")
    return table


def _band(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.2f} to {interval[1]:.2f} mm"


def _acquisition_rows(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    oblique = f", {record['oblique_degrees']:.1f} degrees oblique" if record["oblique_degrees"] >= 0.05 else ""
    return [
        ("slices", f"{record['slices']} {record['plane']}{oblique}, array axis {record['slice_axis']}"),
        ("spacing", f"{record['spacing_mm']:.4g} mm (positions)"),
        ("thickness", f"{record['thickness_mm']:.4g} mm ({record['thickness_source']})"),
        ("gap", f"{round(record['gap_mm'], 3) + 0.0:.4g} mm"),
        (
            "in plane",
            _in_plane(record["in_plane_mm"], record["in_plane_resolution_mm"], record["in_plane_resolution_source"]),
        ),
        ("profile", f"{record['profile']}, FWHM {record['profile_fwhm_mm']:.4g} mm ({record['profile_source']})"),
        ("noise", f"{record['noise_sd']:.4g} (in-plane standard deviation)"),
        ("thin slices", f"{record['thin_slices']} of {record['thin_spacing_mm']:.4g} mm, {record['factor']:.3g} times"),
    ]


def _in_plane(voxel_mm: Sequence[float], true_mm: Sequence[float], source: str) -> str:
    if list(true_mm) == list(voxel_mm):
        return f"as sharp as its voxels ({source})"
    sizes, finer = (" x ".join(f"{mm:.4g}" for mm in both) for both in (true_mm, voxel_mm))
    return f"measured at {sizes} mm, interpolated to {finer} mm ({source})"


def stdout() -> Console:
    """For results."""
    return Console(file=sys.stdout)


class Teller:
    """Tells a person what happens, on standard error, as much as was asked for.

    Raises:
        FlagConflict: both `quiet` and `verbose`.
    """

    def __init__(self, quiet: bool, verbose: bool) -> None:
        if quiet and verbose:
            raise FlagConflict("--quiet and --verbose contradict each other; leave one out")
        self._quiet = quiet
        self._verbose = verbose
        self._console = Console(stderr=True)

    def progress(self) -> AbstractContextManager[Progress]:
        """Where long jobs report to."""
        return progress_on(self._console, self._quiet)

    def notes(self, notes: Sequence[str]) -> None:
        """What to know before trusting the result."""
        if not self._quiet:
            for note in notes:
                self._console.print(f"note: {note}", style="yellow", highlight=False, markup=False, soft_wrap=True)

    def plan(self, plan: Plan) -> None:
        """What will be done."""
        if self._quiet:
            return
        acquisition, scan = plan.scan.acquisition, plan.scan.volume
        shape = " x ".join(map(str, plan.thin_shape))
        true_mm = acquisition.resolved_mm or acquisition.in_plane_mm
        preset = f", preset {plan.preset}, seed {plan.seed}" if plan.method.learns else ""
        rows = [
            ("scan", f"{plan.scan.name}, {' x '.join(map(str, scan.data.shape))}, slice axis {acquisition.axis}"),
            ("slices", f"{_mm(acquisition.thickness_mm)} thick every {_mm(acquisition.spacing_mm)}"),
            ("profile", f"{acquisition.profile.name}, FWHM {_mm(acquisition.profile.fwhm_mm)}"),
            ("in plane", _in_plane(acquisition.in_plane_mm, true_mm, acquisition.in_plane_source.value)),
            ("thin volume", f"{shape}, thin slices of {_mm(plan.thin.spacing_mm)}"),
            ("method", f"{plan.method_name}{preset}, on {plan.device}"),
            *_prior_row(plan),
            *_other_rows(plan),
        ]
        for name, text in rows:
            self._console.print(f"{name:>12}  {text}", highlight=False, markup=False, soft_wrap=True)

    def cost(self, plan: Plan) -> None:
        """What it will take. Timed here and now, so it is not worked out for nobody."""
        if not self._quiet:
            memory = f"{plan.memory_bytes / 2**30:.1f} GiB"
            self._console.print(f"expected: {duration(expected_seconds(plan))}, {memory}", highlight=False)

    def written(self, files: Sequence[Path], record: Mapping[str, Any]) -> None:
        """What came of it."""
        if self._quiet:
            return
        residual, seconds = record.get("residual"), record.get("seconds")
        took = f" in {seconds:.0f} s" if seconds else ""
        self._console.print(f"wrote {', '.join(map(str, files))}{took}", highlight=False, markup=False, soft_wrap=True)
        if residual:
            noise = residual["relative_to_noise"]
            against = f", {noise:.3g} times its noise" if noise else ""
            self._console.print(
                f"W x - y is {residual['relative_to_scan']:.2e} of the scan{against}", highlight=False, soft_wrap=True
            )
        for other in record.get("others", ()):
            left = other["residual"]
            against = f", {left['relative_to_noise']:.3g} times its noise" if left["relative_to_noise"] else ""
            told = f"and {left['relative_to_scan']:.2e} of {other['input']['file']}{against}"
            self._console.print(told, highlight=False, markup=False, soft_wrap=True)

    def table(self, table: Table) -> None:
        """A table, unless quiet."""
        if not self._quiet:
            self._console.print(table)


def duration(seconds: float) -> str:
    """In words people use."""
    if seconds < 5:
        return "a few seconds"
    if seconds < 90:
        return f"about {5 * round(seconds / 5):.0f} seconds"
    if seconds < 5400:
        return f"about {seconds / 60:.0f} minutes"
    return f"about {seconds / 3600:.1f} hours"


def _prior_row(plan: Plan) -> list[tuple[str, str]]:
    if plan.sampler is None:
        return []
    samples = plan.sampler.samples
    minutes = plan.sampler.adapt_minutes
    learning = "" if minutes is None else f", learns from the scan for {minutes:g} minutes"
    return [("prior", f"{(plan.sampler.prior.sha256 or '')[:12]}, {samples} sample{'s' * (samples > 1)}{learning}")]


def _other_rows(plan: Plan) -> Iterator[tuple[str, str]]:
    for other in plan.others:
        motion, found = other.motion, other.agreement
        shift_mm = sum(float(part) ** 2 for part in motion.shift_mm) ** 0.5
        moved = f"moved by {shift_mm:.2g} mm and {motion.degrees:.2g} degrees"
        place = moved if other.refined else "placed by its header"
        yield "with", f"{other.name}, {place}, correlation {found.correlation:.2f}, gain {found.gain:.3g}"


def _mm(value: float) -> str:
    return f"{value:.4g} mm"
