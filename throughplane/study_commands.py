"""`throughplane compare` and `compare-report`: arguments in, calls to `throughplane.studies`, what came of it out."""

import os
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from throughplane.commands import Flag, Quiet, Seed, require_installed
from throughplane.names import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK

if TYPE_CHECKING:  # at run time each command imports what it needs, so that --help comes at once
    from throughplane.studies.records import JobRecord
    from throughplane.studies.running import Planned, Progress


def compare(
    out: Path,
    /,
    *,
    thin: Annotated[tuple[Path, ...], Parameter(consume_multiple=True, negative=())],
    grid: str = "3|0,4|1,5|0,5|1.5,8|0",
    profiles: str = "gaussian",
    methods: str = "cubic,inverse,smore,eclare,focvs",
    masks: Path | None = None,
    lesions: Path | None = None,
    noise: str = "0",
    external: Annotated[list[str] | None, Parameter(negative=(), show_default=False)] = None,
    jobs: int = 1,
    threads: int | None = None,
    seed: Annotated[int, Seed] = 0,
    time_limit: float = 120.0,
    resume: Annotated[bool, Flag] = False,
    retry_failed: Annotated[bool, Flag] = False,
    dry_run: Annotated[bool, Flag] = False,
    quiet: Annotated[bool, Quiet] = False,
    debug: Annotated[bool, Flag] = False,
) -> int:
    """Compare methods on simulated scans of thin volumes: one record per job, from which compare-report makes tables.

    The exit code is 1 if any job failed.

    Parameters
    ----------
    out
        Folder of the study. protocol.md is written there before the first job.
    thin
        Thin volumes named SUBJECT_..._CONTRAST.nii.gz, such as sub-01_T1w.nii.gz, or folders of them.
    grid
        Slices to simulate: thickness|gap in mm, comma separated; in quotes.
    profiles
        Slice profiles: gaussian, box, slr, comma separated.
    methods
        cubic, inverse, smore, eclare, scratch, estimated, focvs, focvs-noise-aware, dps, diffpir, dds, red-diff, comma
        separated; with a preset as in eclare@fast, and for the mean of four samples as in focvs@fast@4.
    masks
        Folder of brain masks on the thin grids, named after the volumes or their subjects.
    lesions
        Folder of lesion masks, likewise.
    noise
        Standard deviations of Rician noise as shares of the data range, comma separated.
    external
        NAME='CMD with {in} {out} {thickness} {gap}': another method, run by its command. Repeatable. {thin}, {profile},
        {seed} and {threads} are known too.
    jobs
        How many run at once.
    threads
        CPU threads of each. By default the cores divided by --jobs.
    seed
        Of noise and methods.
    time_limit
        Minutes that a method may take.
    resume
        Go on with the study in OUT; jobs with a record are not repeated.
    retry_failed
        With --resume, repeat those that failed.
    dry_run
        List the jobs, with --resume those that are left, and say how long they will take; write nothing.
    quiet
        Tell errors only.
    debug
        Show tracebacks.
    """
    del debug  # `main` looks for it
    _require_sensible(jobs, threads, resume, retry_failed, dry_run and quiet)
    require_installed("compare", "studies,focvs", "skimage", "diffusers")
    from throughplane.studies.folder import begin, done_before, held
    from throughplane.studies.planning import Asked, planned
    from throughplane.studies.running import run_jobs

    plan = planned(
        Asked(out, thin, grid, profiles, noise, methods, masks, lesions, external or [], seed, time_limit, date.today())
    )
    threads_each = threads or max(1, (os.cpu_count() or 1) // jobs)
    if not (resume or dry_run):
        begin(out, plan)
    before = done_before(out, plan, retry_failed) if resume else ()
    if dry_run:
        _tell_plan(plan, before, jobs, threads_each)
        return EXIT_OK
    told = _tell_nothing if quiet else _tell
    try:
        with held(out):
            records = run_jobs(plan, before, out, at_once=jobs, threads=threads_each, told=told)
    except KeyboardInterrupt:
        _say(f"interrupted; finished jobs have their records in {out}; go on with --resume")
        return EXIT_INTERRUPTED
    failed = [record for record in records if record.failure is not None]
    if failed:
        _say(f"{len(failed)} of {len(records)} jobs failed; the first: {failed[0].job.name}: {failed[0].failure}")
    return EXIT_FAILED if failed else EXIT_OK


def compare_report(
    out: Path,
    /,
    *,
    readme: Annotated[bool, Flag] = False,
    debug: Annotated[bool, Flag] = False,
) -> int:
    """Make tables, figures and report.html of a study from its JSON files alone; what it made before is replaced.

    Parameters
    ----------
    out
        The folder that `throughplane compare` filled.
    readme
        Print a table for a README, as papers print it, and write nothing.
    debug
        Show tracebacks.
    """
    del debug  # `main` looks for it
    require_installed("compare-report", "studies,report", "skimage", "jinja2", "matplotlib")
    from throughplane.studies.findings import read_findings
    from throughplane.studies.report import write_report
    from throughplane.studies.tables import progress_line, readme_text

    if readme:
        print(readme_text(read_findings(out)), end="")
        return EXIT_OK
    findings = write_report(out)
    print(f"wrote report.html, table.csv, table.md and figures in {out}")
    print(progress_line(findings))
    return EXIT_OK


def _require_sensible(jobs: int, threads: int | None, resume: bool, retry_failed: bool, mute: bool) -> None:
    from forward_models import FlagConflict, InputRefused
    from throughplane.device import require_threads

    if jobs < 1:
        raise InputRefused(f"--jobs {jobs}; expected at least 1")
    require_threads(threads)
    if retry_failed and not resume:
        raise FlagConflict("--retry-failed would be ignored without --resume; pass both")
    if mute:
        raise FlagConflict("--quiet would leave --dry-run nothing to say; leave one out")


def _tell_plan(plan: "Planned", before: "Sequence[JobRecord]", at_once: int, threads: int) -> None:
    from throughplane.studies.running import expected_seconds
    from throughplane.terminal import duration

    done = {record.job for record in before}
    left = [job for job in plan.study.jobs if job not in done]
    for job in left:
        print(job.name)
    seconds = expected_seconds(plan, left, threads)
    for method, expected in seconds.items():
        count = sum(job.method == method for job in left)
        print(f"{method}: {count} jobs, " + ("nobody knows how long" if expected is None else duration(expected)))
    total = sum(expected or 0.0 for expected in seconds.values()) / at_once
    least = "at least " if None in seconds.values() else ""
    of_all = f" of {len(plan.study.jobs)}" if done else ""
    print(f"{len(left)}{of_all} jobs, {at_once} at once: {least}{duration(total)}, starting and scoring not included")


def _tell(progress: "Progress") -> None:
    from throughplane.studies.planning import PRIMARY
    from throughplane.terminal import duration

    record = progress.record
    primary = record.measures.get(PRIMARY)
    came = f"failed: {record.failure}" if record.failure else "" if primary is None else f"{primary:.2f} dB in the head"
    took = "" if record.seconds is None else f", {record.seconds:.0f} s"
    left = f"; {duration(progress.seconds_left)} left" if progress.done < progress.total else ""
    if progress.unknown:
        left = f"; time left unknown, because nobody has seen {', '.join(progress.unknown)} end yet"
    failed = f"; {progress.failed} failed" if progress.failed else ""
    _say(f"{progress.done}/{progress.total} {record.job.name}: {came}{took}{failed}{left}")


def _tell_nothing(progress: "Progress") -> None:
    del progress


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
