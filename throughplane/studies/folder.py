"""The folder of a study: begun, found again, and worked in by one process at a time."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from forward_models import InputRefused
from throughplane.studies.planning import require_same
from throughplane.studies.protocol import protocol
from throughplane.studies.records import STUDY, JobRecord, holds_study, read_jobs, write_study
from throughplane.studies.running import Planned


def begin(out: Path, planned: Planned) -> None:
    """Make the folder; protocol and study are there before any job.

    Raises:
        InputRefused: the folder holds something already, or cannot be made.
    """
    if not out.parent.is_dir():
        raise InputRefused(f"output folder {out.parent} does not exist; create it first")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        what = "holds a study; pass --resume to go on with it" if holds_study(out) else "is not an empty folder"
        raise InputRefused(f"{out} {what}, or choose another name")
    try:
        out.mkdir(exist_ok=True)
    except OSError as error:
        raise InputRefused(f"output folder {out} cannot be made: {error.strerror}") from None
    write_study(out, planned.study, protocol(planned.study, planned.contenders))


def done_before(out: Path, planned: Planned, retry_failed: bool) -> tuple[JobRecord, ...]:
    """Records of the jobs that need not be done again; nothing is written.

    Raises:
        InputRefused: `out` holds another study, or none.
    """
    if not holds_study(out):
        raise InputRefused(f"{out} holds no study to go on with; leave --resume out to begin it")
    require_same(out, planned.study)
    records = read_jobs(out, planned.study)
    return tuple(record for record in records if record.failure is None or not retry_failed)


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Keep other processes from doing the jobs of the same study, whose records have a place inside.

    Raises:
        InputRefused: another one is at it, or the folder cannot be written.
    """
    with (out / STUDY).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputRefused(f"another throughplane compare is at work in {out}; wait for it or stop it") from None
        try:
            for folder in (out / "jobs", out / "pictures"):
                folder.mkdir(exist_ok=True)
        except OSError as error:
            raise InputRefused(f"{folder} cannot be made: {error.strerror}") from None
        yield
