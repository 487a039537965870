"""Jobs end with a record, whatever becomes of them; what is under way ends with who started it."""

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from forward_models import file_sha256
from tests.throughplane.studies import broken
from tests.throughplane.studies.conftest import DEGRADATION
from throughplane.studies.methods import Bench, Contender, Given, Made, contender
from throughplane.studies.records import Study, read_jobs, read_pictures
from throughplane.studies.running import Planned, Source, Task, run_job, run_jobs


def contending(name: str, make: Callable[[Given, Bench], Made]) -> Contender:
    return Contender(name, "by a test", "nothing", make)


def planned_for(thin: Path, *contenders: Contender, limit_minutes: float = 10.0) -> Planned:
    """A study of one volume at one degradation."""
    study = Study(
        volumes={"a_T1w": {"subject": "a", "sha256": file_sha256(thin), "file": thin.name, "contrast": "T1w"}},
        degradations=(DEGRADATION,),
        methods=tuple(c.name for c in contenders),
        seed=0,
        commands={},
        primary="psnr_db/head/p0.1-99.9",
        time_limit_minutes=limit_minutes,
        command="throughplane compare ...",
        created="2026-11-21",
        version="0.1.0",
    )
    return Planned(study, {"a_T1w": Source(thin, None, None)}, {c.name: c for c in contenders})


def task_of(planned: Planned, folder: Path) -> Task:
    (job,) = planned.study.jobs
    (folder / "pictures").mkdir(exist_ok=True)
    volume = planned.study.volumes["a_T1w"]
    return Task(job, planned.sources["a_T1w"], volume, planned.contenders[job.method], folder, Bench(0, 1, folder))


def silent(_: object) -> None:
    pass


def test_a_record_is_complete(thin_file, tmp_path):
    told = []
    record = run_job(task_of(planned_for(thin_file, contender("cubic")), tmp_path), told.append)
    assert record.failure is None
    assert record.measures["psnr_db/head/p0.1-99.9"] > 15
    assert record.seconds < 60
    assert record.peak_memory_bytes > 1e8
    assert record.truth["sha256"] == file_sha256(thin_file)
    assert record.truth["shape"] == [24, 26, 32]
    assert record.truth["data_range"] > 0
    assert record.details["told"] == "where the slices lie"
    assert {"throughplane", "torch", "platform", "threads", "date"} <= set(record.machine)
    assert 0 < record.machine["cpu_seconds"] < 60
    assert told == [record.truth, None]


def test_pictures_of_the_result_and_of_the_truth_lie_beside_the_record(thin_file, tmp_path):
    task = task_of(planned_for(thin_file, contender("cubic")), tmp_path)
    assert run_job(task, silent).failure is None
    truth, result = (read_pictures(tmp_path, replace(task.job, method=name)) for name in ("truth", "cubic"))
    assert truth.error == {}
    assert set(result.result) == set(result.error) == {"sagittal", "coronal", "axial"}


@pytest.mark.parametrize(
    ("make", "failure"),
    [
        (broken.refusing, "the scan is not to my taste"),
        (broken.buggy, "KeyError: 'xxx"),
        (broken.greedy, "out of memory; try"),
        (broken.undefined, "the result holds 19968 voxels that are NaN"),
        (broken.returning_its_input, "the result is on the grid of the scan"),
    ],
)
def test_a_broken_method_gets_a_record_with_its_reason(thin_file, tmp_path, make, failure):
    record = run_job(task_of(planned_for(thin_file, contending("broken", make)), tmp_path), silent)
    assert record.failure.startswith(failure)
    assert "\n" not in record.failure
    assert len(record.failure) < 500
    assert record.seconds >= 0
    assert record.measures == {}


def test_a_file_that_changed_since_the_study_began_is_not_used(thin_file, tmp_path):
    other = tmp_path / "a_T1w.nii.gz"
    planned = planned_for(thin_file, contender("cubic"))
    other.write_bytes(thin_file.read_bytes())
    task = task_of(Planned(planned.study, {"a_T1w": Source(other, None, None)}, planned.contenders), tmp_path)
    assert run_job(task, silent).failure is None
    other.write_bytes(thin_file.read_bytes() + b"\0")
    assert "not the file that the study began with" in run_job(task, silent).failure


def gone(pid: int) -> bool:
    """Within a few seconds."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        status = Path(f"/proc/{pid}/stat")
        if status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] == "Z":  # nobody has asked how it ended
            return True
        time.sleep(0.05)
    return False


def test_crash_and_hang_are_recorded_and_nothing_is_left_running(thin_file, tmp_path, monkeypatch):
    monkeypatch.setenv("THROUGHPLANE_TEST_FOLDER", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "out" / "jobs").mkdir(parents=True)
    planned = planned_for(
        thin_file,
        contending("dying", broken.dying),
        contending("hanging", broken.hanging_with_a_child),
        limit_minutes=0.01,
    )
    told = []
    records = run_jobs(planned, (), tmp_path / "out", at_once=2, threads=1, told=told.append)
    died, hung = records
    assert died.failure == "the process of the job was ended by SIGSEGV"
    assert hung.failure == "time limit: the method was stopped after 0.01 minutes"
    assert hung.seconds == pytest.approx(0.6, abs=0.5)
    assert hung.truth["contrast"] == "T1w"
    assert read_jobs(tmp_path / "out", planned.study) == records
    assert [(p.done, p.total) for p in told] == [(1, 2), (2, 2)]
    assert told[-1].failed == 2
    assert gone(int((tmp_path / "child").read_text()))
    assert not list(tmp_path.glob("throughplane-*"))
