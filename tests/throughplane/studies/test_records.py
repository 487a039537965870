from dataclasses import replace

import pytest

from forward_models import InputRefused
from throughplane.studies.records import (
    Degradation,
    JobRecord,
    Pictures,
    Study,
    read_jobs,
    read_pictures,
    read_study,
    write_job,
    write_pictures,
    write_study,
)

STUDY = Study(
    volumes={"a_T1w": {"subject": "a", "sha256": "00"}, "b_T2w": {"subject": "b", "sha256": "11"}},
    degradations=(Degradation(5.0, 0.0, "gaussian"), Degradation(5.0, 1.5, "slr", 0.02)),
    methods=("cubic", "eclare@fast"),
    seed=3,
    commands={},
    primary="psnr_db/head/p0.1-99.9",
    time_limit_minutes=10.0,
    command="throughplane compare ...",
    created="2026-11-21",
    version="0.1.0",
)


def test_every_job_has_a_name_of_its_own() -> None:
    names = {job.name for job in STUDY.jobs}
    assert len(names) == 8
    assert not any(set("|/ ") & set(name) for name in names)


def test_a_study_is_read_as_it_was_written(tmp_path) -> None:
    write_study(tmp_path, STUDY, "# protocol")
    assert read_study(tmp_path) == STUDY
    assert (tmp_path / "protocol.md").read_text() == "# protocol"


def test_records_are_read_as_they_were_written_in_the_order_of_the_study(tmp_path) -> None:
    (tmp_path / "jobs").mkdir()
    done = [JobRecord(job, measures={"x": 0.1}) for job in STUDY.jobs[:3]] + [JobRecord(STUDY.jobs[5], "crashed")]
    for record in reversed(done):
        write_job(tmp_path, record)
    assert read_jobs(tmp_path, STUDY) == tuple(done)


def test_records_of_other_jobs_are_left_alone(tmp_path) -> None:
    (tmp_path / "jobs").mkdir()
    write_job(tmp_path, JobRecord(replace(STUDY.jobs[0], seed=4)))
    assert read_jobs(tmp_path, STUDY) == ()


def test_pictures_are_read_as_they_were_written(tmp_path) -> None:
    (tmp_path / "pictures").mkdir()
    pictures = Pictures(STUDY.jobs[0], {"axial": "abc"}, {"axial": "def"}, 0.2)
    write_pictures(tmp_path, pictures)
    assert read_pictures(tmp_path, STUDY.jobs[0]) == pictures
    assert read_pictures(tmp_path, STUDY.jobs[1]) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"job": 3}'])
def test_a_damaged_record_is_refused(tmp_path, text) -> None:
    (tmp_path / "jobs").mkdir()
    path = tmp_path / "jobs" / f"{STUDY.jobs[0].name}.json"
    path.write_text(text)
    with pytest.raises(InputRefused, match=STUDY.jobs[0].name):
        read_jobs(tmp_path, STUDY)


def test_a_folder_without_a_study_is_refused(tmp_path) -> None:
    with pytest.raises(InputRefused, match=r"study\.json"):
        read_study(tmp_path)
