"""What a study leaves behind: one JSON file per job, from which alone tables and figures are made.

OUT/protocol.md              for people; written before the first job
OUT/study.json               the same for programs (`Study`)
OUT/jobs/<job name>.json     one per job (`JobRecord`)
OUT/pictures/<job name>.json slices of the result and of its error, PNG in base64 (`Pictures`)
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from forward_models import InputRefused
from throughplane.cuts import Plane
from throughplane.outputs import json_writer, text_writer, write_all

PROTOCOL, STUDY = "protocol.md", "study.json"


@dataclass(frozen=True)
class Degradation:
    """How a thick-slice scan is simulated.

    Attributes:
        thickness_mm, gap_mm: of the slices.
        profile: name of the slice profile: gaussian, box or slr.
        noise_sd: of the noise in either channel, as a share of the data range of the truth.
    """

    thickness_mm: float
    gap_mm: float
    profile: str
    noise_sd: float = 0.0

    @property
    def cell(self) -> str:
        """thickness|gap, as papers write it."""
        return f"{self.thickness_mm:g}|{self.gap_mm:g}"


@dataclass(frozen=True)
class Job:
    """One reconstruction of one simulated scan.

    Attributes:
        volume: name of the thin volume: its file name without suffix.
        subject: whose head it is; statistics are paired by subject.
        degradation: how the scan came about.
        method: as named on the command line.
        seed: of the method and of the noise.
    """

    volume: str
    subject: str
    degradation: Degradation
    method: str
    seed: int

    @property
    def name(self) -> str:
        """Safe as a file name, and unlike that of any other job of the study."""
        d = self.degradation
        return f"{self.volume}_{d.thickness_mm:g}_{d.gap_mm:g}_{d.profile}_{d.noise_sd:g}_{self.method}_{self.seed}"


@dataclass(frozen=True)
class JobRecord:
    """What came of a job.

    Attributes:
        job: which one.
        failure: why there is no result, in one line; None where there is one.
        measures: values by name. A name is quantity_unit/mask/data range, as far as they apply:
            psnr_db/head/p0.1-99.9, ssim/whole/p0.1-99.9, gradient_distance/head, residual/scan.
        curves: spectra and the like: name -> columns of equal length, the first one the abscissa.
        seconds: of wall time, reading to result, scoring not included; None where it failed before it started.
        peak_memory_bytes: of the process.
        truth: the thin volume: file, sha256, shape, voxel_mm, contrast, axis, mask, data_range.
        details: the method's own record: what it was told, what it decided.
        machine: versions, threads, device, date.
    """

    job: Job
    failure: str | None = None
    measures: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    seconds: float | None = None
    peak_memory_bytes: int | None = None
    truth: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """What is compared; settled before the first job and never changed after it.

    Attributes:
        volumes: name -> file name, sha256, subject, contrast, licence where known.
        degradations, methods, seed: their product with `volumes` are the jobs.
        commands: of external methods, by name.
        primary: the measure that the study is decided by.
        time_limit_minutes: of one job.
        command: that made it, to be run again.
        created: date.
        version: of throughplane.
    """

    volumes: Mapping[str, Mapping[str, Any]]
    degradations: tuple[Degradation, ...]
    methods: tuple[str, ...]
    seed: int
    commands: Mapping[str, str]
    primary: str
    time_limit_minutes: float
    command: str
    created: str
    version: str

    @property
    def jobs(self) -> tuple[Job, ...]:
        """Every job, scan by scan."""
        return tuple(
            Job(name, str(facts["subject"]), degradation, method, self.seed)
            for name, facts in self.volumes.items()
            for degradation in self.degradations
            for method in self.methods
        )


@dataclass(frozen=True)
class Pictures:
    """Slices through the middle of the head, 8-bit PNG in base64, anatomical superior or anterior upwards.

    Attributes:
        job: whose result it is; method `truth` for the truth itself.
        result: by plane, from the low to the high end of the data range.
        error: by plane, result minus truth, grey in the middle, from minus to plus `error_range`.
        error_range: in shares of the data range.
    """

    job: Job
    result: Mapping[Plane, str]
    error: Mapping[Plane, str]
    error_range: float


def write_job(out: Path, record: JobRecord) -> None:
    """Into its place in the study's folder, all or nothing."""
    write_all({out / "jobs" / f"{record.job.name}.json": json_writer(asdict(record))})


def read_jobs(out: Path, study: Study) -> tuple[JobRecord, ...]:
    """Of the jobs done so far, in the order of the study.

    Raises:
        InputRefused: a record is not readable.
    """
    paths = {job: out / "jobs" / f"{job.name}.json" for job in study.jobs}
    return tuple(_job_record(path) for path in paths.values() if path.exists())


def holds_study(out: Path) -> bool:
    """Whether a study was begun in a folder."""
    return (out / STUDY).exists()


def write_study(out: Path, study: Study, protocol: str) -> None:
    """For people and for programs, into its place in the study's folder."""
    write_all({out / PROTOCOL: text_writer(protocol), out / STUDY: json_writer(asdict(study))})


def read_study(out: Path) -> Study:
    """What was settled for the study in a folder.

    Raises:
        InputRefused: there is none, or it is not readable.
    """
    if not holds_study(out):
        raise InputRefused(f"{out / STUDY} does not exist; expected a folder that throughplane compare filled")
    fields = _read(out / STUDY)
    try:
        degradations = tuple(Degradation(**d) for d in fields.pop("degradations"))
        return Study(degradations=degradations, methods=tuple(fields.pop("methods")), **fields)
    except (AttributeError, KeyError, TypeError) as error:
        raise InputRefused(f"{out / STUDY} is not the record of a study: {error}") from None


def write_pictures(out: Path, pictures: Pictures) -> None:
    """Into their place in the study's folder."""
    write_all({_pictures_path(out, pictures.job): json_writer(asdict(pictures))})


def holds_pictures(out: Path, job: Job) -> bool:
    """Whether there are any of a job."""
    return _pictures_path(out, job).exists()


def read_pictures(out: Path, job: Job) -> Pictures | None:
    """Of a job; None where there are none.

    Raises:
        InputRefused: they are not readable.
    """
    if not holds_pictures(out, job):
        return None
    path = _pictures_path(out, job)
    fields = _read(path)
    try:
        return Pictures(job=_job(fields.pop("job")), **fields)
    except (AttributeError, KeyError, TypeError) as error:
        raise InputRefused(f"{path} does not hold the pictures of a job: {error}") from None


def _pictures_path(out: Path, job: Job) -> Path:
    return out / "pictures" / f"{job.name}.json"


def _job_record(path: Path) -> JobRecord:
    fields = _read(path)
    try:
        return JobRecord(job=_job(fields.pop("job")), **fields)
    except (AttributeError, KeyError, TypeError) as error:
        raise InputRefused(f"{path} is not the record of a job: {error}; delete it, and it is done again") from None


def _job(fields: dict[str, Any]) -> Job:
    return Job(degradation=Degradation(**fields.pop("degradation")), **fields)


def _read(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputRefused(f"{path} cannot be read: {error}") from None
    if not isinstance(fields, dict):
        raise InputRefused(f"{path} holds no record")
    return fields
