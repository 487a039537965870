"""Tables of a study whose outcome is known."""

import csv
import io
from dataclasses import replace

import pytest

from tests.throughplane.studies.synthetic import CRASH, PSNR, SSIM, failing, record_of, study_of
from throughplane.studies.findings import Findings
from throughplane.studies.quantities import in_reading_order, measure_named
from throughplane.studies.records import Degradation, Job, JobRecord
from throughplane.studies.tables import csv_text, markdown_text, pairs, readme_text, tables_of

EASY, HARD = Degradation(3.0, 0.0, "gaussian"), Degradation(5.0, 1.5, "gaussian")


def found(record=record_of, **study) -> Findings:
    asked = study_of(**study)
    return Findings(asked, tuple(record(job) for job in asked.jobs))


@pytest.fixture(scope="module")
def whole() -> Findings:
    return found()


def rows_of(findings: Findings) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(csv_text(findings))))


def strong(row) -> list[str]:
    return [cell.text for cell in row if cell.strong]


def test_every_measure_of_every_job_has_a_row(whole):
    rows = rows_of(whole)
    assert len(rows) == 24 * 7  # five measures, seconds, memory
    values = {(r["volume"], r["thickness_mm"], r["method"], r["measure"]): float(r["value"]) for r in rows}
    for record in whole.records:
        job = record.job
        key = (job.volume, str(job.degradation.thickness_mm), job.method)
        assert values[(*key, PSNR)] == record.measures[PSNR]  # to the last digit
        assert values[(*key, "seconds")] == record.seconds


def test_failures_and_missing_jobs_have_rows_of_their_own():
    study = study_of()
    record = failing("eclare", "s1")
    findings = Findings(study, tuple(record(job) for job in study.jobs[:-3]))
    rows = rows_of(findings)
    assert [r["failure"] for r in rows if r["status"] == "failed"] == [CRASH, CRASH]
    assert sum(r["status"] == "missing" for r in rows) == 3
    assert not [r for r in rows if r["status"] != "done" and (r["value"] or r["measure"])]


def test_who_leads_in_every_subject_is_bold(whole):
    for overview in tables_of(whole).overviews:
        for row in overview.rows:
            assert strong(row) == [row[-1].text]


def test_who_failed_once_is_not_bold_and_says_so():
    (overview,) = tables_of(found(failing("eclare", "s1"))).overviews
    for row in overview.rows:
        assert row[-1].text.endswith(" (3/4)")
        assert strong(row) == []  # inverse is behind eclare wherever both finished


def test_a_lead_within_its_interval_is_not_bold():
    """eclare leads by 4 dB in one subject and trails by 1 in the others: a better mean, no clear win."""

    def uneven(job: Job) -> JobRecord:
        lead = {"eclare": 4.0 if job.subject == "s0" else -1.0}.get(job.method, 0.0)
        return JobRecord(job, measures={PSNR: 30.0 + lead})

    findings = found(uneven, methods=("cubic", "eclare"))
    assert findings.estimate("eclare", PSNR, (EASY,)).mean > findings.estimate("cubic", PSNR, (EASY,)).mean
    assert findings.winner(findings.primary, (EASY,)) is None


def test_less_is_better_where_it_is_and_nothing_wins_where_neither_is(whole):
    assert whole.winner(measure_named("seconds"), (EASY,)) == "cubic"
    assert whole.winner(measure_named("gradient_distance/head"), (EASY,)) == "eclare"
    assert whole.winner(measure_named("whirl_turns/brain"), (EASY,)) is None
    assert whole.winner(measure_named("effective_fwhm_mm/result"), (EASY,)) is None


@pytest.mark.parametrize("subjects", [1, 2])
def test_one_or_two_subjects_prove_nothing(subjects):
    assert found(subjects=subjects).winner(measure_named(PSNR), (EASY,)) is None


def test_a_cell_without_values_says_why():
    study = study_of()
    record = failing("cubic", "s0")
    jobs = [job for job in study.jobs if job.subject == "s0" and job.method != "eclare"]
    (overview,) = tables_of(Findings(study, tuple(record(job) for job in jobs))).overviews
    assert [cell.text for cell in overview.rows[0]][1::2] == ["failed", "not run"]


def test_a_measure_that_few_scans_have_counts_those_only():
    def with_lesions(job: Job) -> JobRecord:
        kept = {"lesions_kept_ratio/lesions": 0.75} if job.subject == "s2" else {}
        return replace(record_of(job), measures={**record_of(job).measures, **kept})

    table = tables_of(found(with_lesions)).details[0]
    (row,) = [row for row in table.rows if row[0].text.startswith("share of lesions kept (lesions)")]
    assert [cell.text for cell in row[1:]] == ["0.75", "0.75", "0.75"]


def test_what_has_not_run_counts_as_not_finished():
    study = study_of()
    (overview,) = tables_of(Findings(study, tuple(record_of(job) for job in study.jobs[:6]))).overviews
    assert all(cell.text.endswith(" (1/4)") for cell in overview.rows[0][1:])


def test_measures_come_primary_first_cost_last_and_unknown_ones_by_their_names():
    names = {"seconds", SSIM, "whirl_turns/brain", "psnr_db/whole/p0.1-99.9", PSNR, "peak_memory_bytes"}
    order = in_reading_order(names, PSNR)
    assert [m.name for m in order[:2]] == [PSNR, SSIM]
    assert [m.name for m in order[-2:]] == ["seconds", "peak_memory_bytes"]
    assert measure_named("whirl_turns/brain").label == "whirl turns (brain)"
    assert measure_named("peak_memory_bytes").quantity.text(3 * 2.0**29) == "1.50"


def test_four_subjects_are_told_to_be_too_few(whole):
    comparisons = pairs(whole)
    assert [(c.method, c.reference) for c in comparisons] == [
        ("inverse", "cubic"),
        ("eclare", "cubic"),
        ("eclare", "inverse"),
    ]
    assert {c.p for c in comparisons} == {0.125}
    assert all("cannot be significant with 4 subjects" in row[-1].text for row in tables_of(whole).pairs.rows)


def test_eight_subjects_are_enough():
    rows = tables_of(found(subjects=8)).pairs.rows
    assert {row[-1].text for row in rows} == {"0.0234"}  # 3 x 2 / 256


def test_markdown_keeps_its_columns_whatever_the_names():
    findings = found(failing("<b>|`x`", "s1"), methods=("cubic", "<b>|`x`"))
    text = markdown_text(findings, tables_of(findings))
    assert "<b>" not in text.replace("\\<b>", "")
    for block in text.split("\n\n"):
        lines = block.splitlines()
        if lines[0].startswith("|"):
            assert len({line.replace("\\|", "").count("|") for line in lines}) == 1


def test_the_readme_table_can_be_read_alone(whole):
    text = readme_text(whole)
    assert text == readme_text(found())
    for part in ("2026-11-21", "throughplane 0.1.0", "s0_T1w (00000000)", "throughplane compare OUT", "4 subjects"):
        assert part in text
    assert "| 3\\|0 | " in text
    assert text.count("**") == 4
    assert "24 of 24 jobs" in text


def test_the_readme_table_owns_up():
    text = readme_text(found(failing("eclare", "s1")))
    assert "(3 of 4 scans)" in text
    assert "22 of 24 jobs have a result, 2 failed." in text
