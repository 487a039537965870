"""Jobs in processes of their own, several at once; each leaves its record, whatever becomes of it."""

import os
import platform
import shutil
import signal
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from math import prod
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from forward_models import InputRefused, Volume, read_volume
from throughplane.device import Stopwatch
from throughplane.software import software_record
from throughplane.studies.cases import Case, case_of, read_mask
from throughplane.studies.checks import checked
from throughplane.studies.external import signal_name
from throughplane.studies.measures import measure
from throughplane.studies.methods import Bench, Contender, given_of
from throughplane.studies.pictures import TRUTH, pictures_of
from throughplane.studies.records import Job, JobRecord, Study, holds_pictures, write_job, write_pictures
from throughplane.version import code_sha256

METHOD = "the method"
LONGEST_REASON = 400  # characters
OTHER_STAGES_SECONDS = 1800.0  # for starting, reading and simulating together, and again for scoring


@dataclass(frozen=True)
class Source:
    """Where a thin volume and its masks are read from."""

    thin: Path
    brain: Path | None
    lesions: Path | None


@dataclass(frozen=True)
class Planned:
    """A study, and what its records do not say: where the files are, and how the methods are run."""

    study: Study
    sources: Mapping[str, Source]
    contenders: Mapping[str, Contender]


@dataclass(frozen=True)
class Task:
    """A job and all that a process of its own needs for it.

    Attributes:
        source: its files.
        volume: what the study says of them.
        contender: its method.
        out: folder of the study.
        bench: what the method works with.
    """

    job: Job
    source: Source
    volume: Mapping[str, Any]
    contender: Contender
    out: Path
    bench: Bench


@dataclass(frozen=True)
class Progress:
    """How far a study has come.

    Attributes:
        record: the job that ended just now.
        done, total, failed: jobs, those of earlier calls among them.
        seconds_left: as the same methods took until now; at least that if `unknown` of the methods left have not been
            seen yet.
    """

    record: JobRecord
    done: int
    total: int
    failed: int
    seconds_left: float
    unknown: tuple[str, ...]


Told = Callable[[Progress], None]


def run_jobs(
    planned: Planned, records: Sequence[JobRecord], out: Path, *, at_once: int, threads: int, told: Told
) -> tuple[JobRecord, ...]:
    """Do every job that `records` lacks, `at_once` at a time; all records, in the order of the study.

    Records are written as jobs end. An exception, KeyboardInterrupt included, kills the jobs that are running and
    leaves whole records only.
    """
    done = {record.job: record for record in records}
    study, pace = planned.study, _Pace(at_once)
    waiting = deque(job for job in study.jobs if job not in done)
    running: list[_Running] = []
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                running.append(_started(_task(planned, waiting.popleft(), out, threads), study.time_limit_minutes))
            for ended, record in _next_ended(running):
                _cleared(ended)
                running.remove(ended)
                write_job(out, record)
                done[record.job] = record
                pace.took(record.job, monotonic() - ended.began)
                left = [*(r.task.job for r in running), *waiting]
                failed = sum(r.failure is not None for r in done.values())
                told(Progress(record, len(done), len(study.jobs), failed, *pace.left(left)))
    finally:
        for left_over in running:
            _cleared(left_over)
    return tuple(done[job] for job in study.jobs)


def _task(planned: Planned, job: Job, out: Path, threads: int) -> Task:
    return Task(
        job,
        planned.sources[job.volume],
        planned.study.volumes[job.volume],
        planned.contenders[job.method],
        out,
        Bench(job.seed, threads, Path(tempfile.mkdtemp(prefix="throughplane-"))),
    )


class _Pace:
    """How long jobs of each method take, and so how long the rest will."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._seconds: dict[str, list[float]] = {}

    def took(self, job: Job, seconds: float) -> None:
        self._seconds.setdefault(job.method, []).append(seconds)

    def left(self, jobs: Iterable[Job]) -> tuple[float, tuple[str, ...]]:
        """Seconds for the jobs of methods seen so far, and the methods that were not."""
        methods = [job.method for job in jobs]
        known = sum(sum(self._seconds[m]) / len(self._seconds[m]) for m in methods if m in self._seconds)
        return known / self._at_once, tuple(dict.fromkeys(m for m in methods if m not in self._seconds))


@dataclass(eq=False)
class _Running:
    """A job under way, as the process that started it sees it.

    Attributes:
        limit_seconds: of the method.
        deadline: when it will be killed; set anew whenever the job tells that it has entered its next stage.
        truth: once known.
    """

    task: Task
    process: SpawnProcess
    connection: Connection
    limit_seconds: float
    began: float
    deadline: float
    stage: str = "reading and simulating"
    truth: Mapping[str, Any] | None = None
    method_began: float | None = None

    @property
    def limit(self) -> float:
        """Seconds that the stage may take."""
        return self.limit_seconds if self.stage == METHOD else OTHER_STAGES_SECONDS

    def enter(self, truth: Mapping[str, Any] | None) -> None:
        """The next stage: the method, told of the truth, or after it the scoring."""
        now = monotonic()
        if truth is None:
            self.stage = "scoring"
        else:
            self.stage, self.truth, self.method_began = METHOD, truth, now
        self.deadline = now + self.limit


def _started(task: Task, limit_minutes: float) -> _Running:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_in_own_process, args=(task, theirs), daemon=True)
    process.start()
    theirs.close()
    now = monotonic()
    return _Running(task, process, ours, 60 * limit_minutes, now, now + OTHER_STAGES_SECONDS)


def _next_ended(running: Sequence[_Running]) -> list[tuple[_Running, JobRecord]]:
    """Wait until a job says something or runs out of time; those that have ended, with their records."""
    soonest = min(job.deadline for job in running) - monotonic()
    ready = wait([job.connection for job in running], timeout=max(0.0, soonest))
    ended = []
    for job in running:
        record = _heard(job) if job.connection in ready else None
        if record is None and monotonic() >= job.deadline:
            record = _lost(job, f"time limit: {job.stage} was stopped after {job.limit / 60:g} minutes")
        if record is not None:
            ended.append((job, record))
    return ended


def _heard(job: _Running) -> JobRecord | None:
    """What a job says: its record, or how far it is; silence for ever is a crash."""
    try:
        said = job.connection.recv()
    except (EOFError, ConnectionError):
        job.process.join()
        code = job.process.exitcode or 0
        how = f"was ended by {signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
        return _lost(job, f"the process of the job {how}")
    if isinstance(said, JobRecord):
        return said
    job.enter(said)
    return None


def _lost(job: _Running, why: str) -> JobRecord:
    """The record of a job that cannot write its own."""
    return JobRecord(
        job.task.job,
        why,
        seconds=None if job.method_began is None else round(monotonic() - job.method_began, 2),
        truth=job.truth or {},
        machine=machine_record(job.task.bench.threads),
    )


def _cleared(job: _Running) -> None:
    """End a job, everything that it started, and its folder."""
    with suppress(ProcessLookupError, PermissionError):  # it leads no group yet, or everyone in it has ended
        os.killpg(job.process.pid or 0, signal.SIGKILL)
    job.process.kill()
    job.process.join()
    job.connection.close()
    shutil.rmtree(job.task.bench.folder, ignore_errors=True)


def _in_own_process(task: Task, connection: Connection) -> None:
    """Lead a process group, do the job, tell its record."""
    os.setpgid(0, 0)
    threading.Thread(target=_end_with_parent, args=(task.bench.folder,), daemon=True).start()
    torch.set_num_threads(task.bench.threads)
    connection.send(run_job(task, connection.send))


def _end_with_parent(folder: Path) -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        shutil.rmtree(folder, ignore_errors=True)
        os.killpg(os.getpid(), signal.SIGKILL)


def run_job(task: Task, entered: Callable[[Any], None]) -> JobRecord:
    """Simulate, reconstruct, check, measure. What goes wrong is the record's `failure`.

    Args:
        task: what to do.
        entered: told of the truth when the method begins, and of nothing when it has ended.
    """
    record = JobRecord(task.job, machine=machine_record(task.bench.threads))
    clock = None
    try:
        case = _case(task)
        record = replace(record, truth=_truth_record(task, case))
        entered(record.truth)
        forget_peak_memory()
        clock, worked = Stopwatch(), sum(os.times()[:4])
        made = task.contender.make(given_of(case, task.job.degradation), task.bench)
        record = replace(
            record,
            seconds=round(clock.seconds, 2),
            machine={**record.machine, "cpu_seconds": round(sum(os.times()[:4]) - worked, 2)},
            peak_memory_bytes=made.peak_memory_bytes,
            details={"told": task.contender.told, **made.details},
        )
        entered(None)
        result = checked(case, made.volume)
        measures, curves = measure(case, result)
        _keep_pictures(task, case, result)
    except Exception as error:  # whatever a method does, the study goes on and says so
        seconds = record.seconds if clock is None or record.seconds is not None else round(clock.seconds, 2)
        return replace(record, failure=reason(error), seconds=seconds)
    return replace(record, measures=measures, curves=curves)


def _keep_pictures(task: Task, case: Case, result: Volume) -> None:
    """Of the result; of the truth too where no other job of the scan has done it."""
    if not holds_pictures(task.out, replace(task.job, method=TRUTH)):
        write_pictures(task.out, pictures_of(task.job, case))
    write_pictures(task.out, pictures_of(task.job, case, result))


def reason(error: Exception) -> str:
    """In one line."""
    said = " ".join(str(error).split())[:LONGEST_REASON]
    if isinstance(error, InputRefused):
        return said
    if isinstance(error, MemoryError):
        return said or "out of memory"
    return f"{type(error).__name__}: {said}"


def expected_seconds(planned: Planned, jobs: Sequence[Job], threads: int) -> dict[str, float | None]:
    """How long these jobs of each method will take together, one after the other; None where nobody can tell.

    Timed on pieces of one scan, of the first volume at the degradation in the middle of the list.
    """
    study = planned.study
    name, degradation = next(iter(study.volumes)), study.degradations[len(study.degradations) // 2]
    given = given_of(case_of(read_volume(planned.sources[name].thin), degradation, study.seed), degradation)
    voxels = {volume: prod(facts["shape"]) for volume, facts in study.volumes.items()}
    bench = Bench(study.seed, threads, Path())
    scans = dict.fromkeys((job.method for job in jobs), 0.0)
    for job in jobs:
        scans[job.method] += voxels[job.volume] / voxels[name]
    timing = {method: planned.contenders[method].expected for method in scans}
    return {m: None if timed is None else scans[m] * timed(given, bench) for m, timed in timing.items()}


def _case(task: Task) -> Case:
    thin = read_volume(task.source.thin)
    if thin.sha256 != task.volume["sha256"]:
        raise InputRefused(f"{task.source.thin} is not the file that the study began with")
    brain, lesions = (
        None if path is None else read_mask(path, thin) for path in (task.source.brain, task.source.lesions)
    )
    return case_of(thin, task.job.degradation, task.job.seed, brain=brain, lesions=lesions)


def _truth_record(task: Task, case: Case) -> dict[str, Any]:
    return {
        **{key: task.volume[key] for key in ("file", "sha256", "contrast")},
        "shape": list(case.truth.data.shape),
        "voxel_mm": list(case.truth.voxel_mm),
        "axis": case.axis,
        "mask": "head",
        "mask_voxels": int(case.mask.sum()),
        "data_range": case.data_range,
    }


def machine_record(threads: int) -> dict[str, Any]:
    """Versions, processor and load here and now. `run_job` adds `cpu_seconds`, of the method and its commands."""
    return {
        **software_record()["software"],
        "code_sha256": code_sha256(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "threads": threads,
        "load": round(os.getloadavg()[0], 1),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def forget_peak_memory() -> None:
    """Let the peak of this process begin at what it holds now; only Linux can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
