"""A study with known outcomes: methods that lead by about the same in every subject, and failures."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from forward_models import volume_from_image
from tests.conftest import head_phantom, placed_image
from throughplane.studies.cases import Case, case_of
from throughplane.studies.pictures import pictures_of
from throughplane.studies.records import Degradation, Job, JobRecord, Study, write_job, write_pictures, write_study

PSNR, SSIM = "psnr_db/head/p0.1-99.9", "ssim/head/p0.1-99.9"
LEAD_DB = {"cubic": 0.0, "inverse": 1.0, "eclare": 2.5}
CRASH = "exit code 1: <b>CUDA</b> | out of memory"


def study_of(methods=tuple(LEAD_DB), subjects=4, degradations=None, **changes) -> Study:
    """A volume for each subject."""
    names = [f"s{i}_T1w" for i in range(subjects)]
    fields = {
        "volumes": {n: {"file": f"{n}.nii.gz", "sha256": f"{i:064x}", "subject": n[:2]} for i, n in enumerate(names)},
        "degradations": degradations or (Degradation(3.0, 0.0, "gaussian"), Degradation(5.0, 1.5, "gaussian")),
        "methods": methods,
        "seed": 3,
        "commands": {},
        "primary": PSNR,
        "time_limit_minutes": 10.0,
        "command": "throughplane compare OUT --thin data --methods cubic,inverse,eclare",
        "created": "2026-11-21",
        "version": "0.1.0",
    }
    return Study(**{**fields, **changes})


def record_of(job: Job) -> JobRecord:
    """What a method with a constant lead gets; harder cells and subjects cost the same to all."""
    lead = LEAD_DB.get(job.method, 0.5)
    hard = job.degradation.thickness_mm + job.degradation.gap_mm + 10 * job.degradation.noise_sd
    rng = np.random.default_rng([ord(c) for c in job.subject])
    psnr = 30 - hard + rng.normal() + lead * (1 + 0.1 * rng.uniform(-1, 1))
    at = np.linspace(0.05, 0.5, 5)
    return JobRecord(
        job,
        measures={
            PSNR: psnr,
            SSIM: 1 - 1 / psnr,
            "residual/scan": 1e-7 if job.method == "eclare" else 0.02,
            "gradient_distance/head": 0.3 - 0.05 * lead,
            "whirl_turns/brain": 2.0 + lead,
        },
        curves={
            "spectrum_through_plane/head": {
                "cycles_per_mm": list(at),
                "truth_power": list(np.exp(-10 * at)),
                "result_power": list(np.exp(-(16 - 2 * lead) * at)),
                "transfer": list(np.exp(-at)),
            }
        },
        seconds=2.0 + 20 * lead,
        peak_memory_bytes=2**30 + 1,
        truth={"file": f"{job.volume}.nii.gz", "shape": [176, 256, 176], "voxel_mm": [1.0, 1.0, 1.0], "mask": "head"},
        details={"preset": "fast", "iterations": [3, 4]},
        machine={"throughplane": "0.1.0", "python": "3.11", "threads": 1, "date": "2026-11-21"},
    )


def failing(method: str, subject: str, why: str = CRASH) -> Callable[[Job], JobRecord]:
    """Records as above, but a method fails for a subject."""
    return lambda job: JobRecord(job, why) if (job.method, job.subject) == (method, subject) else record_of(job)


def write_synthetic(out: Path, study: Study, record: Callable[[Job], JobRecord] = record_of) -> Path:
    """The folder that a run leaves, without pictures."""
    for folder in (out, out / "jobs", out / "pictures"):
        folder.mkdir(exist_ok=True)
    write_study(out, study, "# protocol")
    for job in study.jobs:
        write_job(out, record(job))
    return out


def write_noisy_pictures(out: Path, study: Study, case: Case) -> None:
    """Of one case for every job: the truth with noise."""
    rng = np.random.default_rng(3)
    for job in study.jobs:
        noise = rng.normal(0, 0.05 * case.data_range, case.truth.data.shape)
        result = replace(case.truth, data=(case.truth.data + noise).astype(np.float32))
        write_pictures(out, pictures_of(job, case))
        write_pictures(out, pictures_of(job, case, result))


def phantom_case(shape=(32, 34, 30), affine=None) -> Case:
    """A small head, 5|0."""
    image = placed_image(head_phantom(shape), np.eye(4) if affine is None else affine)
    return case_of(volume_from_image(image), Degradation(5.0, 0.0, "gaussian"))
