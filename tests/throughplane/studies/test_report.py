"""`throughplane compare-report`: what it writes, twice the same; what it refuses."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from forward_models import InputRefused
from tests.throughplane.studies.synthetic import (
    CRASH,
    PSNR,
    failing,
    phantom_case,
    record_of,
    study_of,
    write_noisy_pictures,
    write_synthetic,
)
from throughplane.cli import main
from throughplane.studies.figures import Drawn, _styles, figures
from throughplane.studies.findings import Findings, read_findings
from throughplane.studies.records import Degradation, Job, JobRecord, Study
from throughplane.studies.report import LARGEST_BYTES, fitting_page, scans_shown
from throughplane.studies.tables import tables_of

RUDE = "<script>"
EASY = Degradation(3.0, 0.0, "gaussian")
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Collects tags and what they point to; insists on tags being closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.targets: list[str] = []
        self.alone: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.targets += [value for key, value in attrs if key in ("src", "href", "srcset", "poster", "data")]
        self.alone += [dict(attrs).get("alt", "") for _ in [0] if tag == "img"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def study() -> Study:
    return study_of(methods=("cubic", "eclare", RUDE), subjects=3, degradations=(EASY,))


@pytest.fixture(scope="module")
def out(tmp_path_factory, study) -> Path:
    """With failures and pictures, and the report made."""
    folder = write_synthetic(tmp_path_factory.mktemp("study"), study, failing(RUDE, "s1"))
    write_noisy_pictures(folder, study, phantom_case())
    assert main(["compare-report", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def text(out) -> str:
    return (out / "report.html").read_text(encoding="utf-8")


def made(folder: Path) -> dict[str, bytes]:
    paths = [*folder.glob("*.*"), *(folder / "figures").glob("*")]
    return {path.name: path.read_bytes() for path in paths}


def test_the_report_made_again_is_the_same_to_the_byte(out, capsys):
    before = made(out)
    assert main(["compare-report", str(out)]) == 0
    assert made(out) == before
    assert "8 of 9 jobs have a result, 1 failed." in capsys.readouterr().out
    assert {"report.html", "table.csv", "table.md", "study.json"} <= set(before)
    assert {name.split("_")[0] for name in before if name.endswith(".png")} == {
        "primary",
        "differences",
        "spectrum",
        "quality",
        "pictures",
    }


def test_figures_that_the_study_no_longer_has_go_and_other_files_stay(out):
    before, folder = made(out), out / "figures"
    gone = [folder / name for name in ("pictures_s2_T1w_3_0_gaussian_0.png", "primary_gaussian_noise0.svg")]
    stay = [folder / name for name in ("mine.png", "pictures_of_mine.png", "primary_slr_noise0.png")]
    (out / "pictures").rename(out / "hidden")
    for path in (*gone, *stay):
        path.write_text("not of this report")
    assert main(["compare-report", str(out)]) == 0
    after = made(out)
    assert {name for name in before if name.startswith("pictures_")} > {"pictures_s0_T1w_3_0_gaussian_0.png"}
    assert [name for name in after if name.startswith("pictures_")] == ["pictures_of_mine.png"]
    assert after["primary_gaussian_noise0.svg"] == before["primary_gaussian_noise0.svg"]
    (out / "hidden").rename(out / "pictures")
    for path in stay:
        assert path.read_text() == "not of this report"
        path.unlink()
    assert main(["compare-report", str(out)]) == 0
    assert made(out) == before


def test_no_two_of_fifty_methods_look_alike():
    styles = [style[1:] for style in _styles([f"m{i}" for i in range(50)])]
    assert len(set(styles)) == 50


def test_the_page_needs_nothing_but_itself(text):
    page = Page(text)
    assert all(target.startswith(("data:image/png;base64,", "#")) for target in page.targets)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert not re.search(r"https?://|@import|url\(", text)


def test_names_are_shown_not_executed(text):
    assert "&lt;script&gt;" in text
    assert "&lt;b&gt;CUDA&lt;/b&gt;" in text
    assert "<b>" not in text


def test_every_picture_says_what_it_is(text):
    assert all(Page(text).alone)
    assert {"h1", "h2", "h3", "table", "figure", "figcaption", "nav", "main"} <= set(Page(text).tags)


def test_failures_are_told_with_their_reasons(text, out):
    assert "1 of 3 jobs failed" in text
    assert CRASH.split(":")[0] in text
    assert (out / "table.csv").read_text().count(CRASH) == 1


def test_captions_say_where_numbers_come_from(text):
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", text)
    charts = [caption for caption in captions if "imulated" in caption]
    assert len(charts) == 5
    for caption in charts:
        assert "ask: head" in caption
    assert "profile gaussian" in charts[0]
    assert "0.1 to 99.9 %" in charts[0]


def test_the_units_of_a_volume_do_not_show_in_its_spectra():
    """Scanners count in units of their own, so powers are shown as ratios to the truth."""
    study = study_of(methods=("cubic",), subjects=2, degradations=(EASY,))

    def scaled(job: Job, by: float) -> JobRecord:
        at, power = [0.1, 0.2, 0.3], [4.0, 2.0, 1.0]
        columns = {
            "cycles_per_mm": at,
            "truth_power": [by * p for p in power],
            "result_power": [by * p / 2 for p in power],
        }
        return JobRecord(job, measures={PSNR: 30.0}, curves={"spectrum/head": columns})

    first, second = (
        figures(Findings(study, tuple(scaled(job, by if job.subject == "s1" else 1.0) for job in study.jobs)))
        for by in (1.0, 2.0**20)
    )
    assert first == second
    assert first[1].name == "spectrum_head_result_power_gaussian_noise0"


def test_pictures_are_left_out_until_the_page_fits(out, text):
    findings = read_findings(out)
    tables, scans = tables_of(findings), scans_shown(out, findings)
    assert len(scans) == 3
    bare = len(fitting_page(findings, tables, (), ()).encode())
    whole = fitting_page(findings, tables, (), scans)
    for limit in (LARGEST_BYTES, len(whole.encode()) - 1, (bare + len(whole.encode())) // 2, bare + 200):
        shown = fitting_page(findings, tables, (), scans, limit)
        assert len(shown.encode()) <= limit
    assert "Those of 3 scans did not fit" in shown
    assert len(text.encode()) < LARGEST_BYTES


def test_a_page_that_cannot_fit_is_refused(out):
    findings = read_findings(out)
    large = Drawn("large", "large", bytes(4000), None)
    with pytest.raises(InputRefused, match="larger than 4000 bytes"):
        fitting_page(findings, tables_of(findings), (large,), (), 4000)


def test_a_study_that_is_not_complete_says_so(tmp_path, capsys):
    study = study_of(subjects=3, degradations=(EASY,))
    write_synthetic(tmp_path, study, lambda job: JobRecord(job, measures={PSNR: 30.0}))
    for path in sorted((tmp_path / "jobs").iterdir())[:5]:
        path.unlink()
    assert main(["compare-report", str(tmp_path)]) == 0
    assert "5 have not run: this study is not complete." in capsys.readouterr().out
    assert "5 jobs have not run." in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("failure", [None, "crashed"])
def test_a_study_without_results_has_a_report_too(tmp_path, failure):
    write_synthetic(tmp_path, study_of(subjects=1), lambda job: JobRecord(job, failure))
    if failure is None:
        for path in (tmp_path / "jobs").iterdir():
            path.unlink()
    assert main(["compare-report", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "0 of 6 jobs have a result" in page
    assert "None: no job has a result." in page
    assert main(["compare-report", str(tmp_path), "--readme"]) == 0


def test_one_method_alone_is_shown(tmp_path):
    write_synthetic(tmp_path, study_of(methods=("cubic",), subjects=1), lambda job: JobRecord(job, None, {PSNR: 30.0}))
    assert main(["compare-report", str(tmp_path)]) == 0
    assert "30.00" in (tmp_path / "table.md").read_text()


def test_a_table_for_a_readme_is_printed_and_nothing_written(tmp_path, capsys):
    write_synthetic(tmp_path, study_of())
    before = made(tmp_path)
    assert main(["compare-report", str(tmp_path), "--readme"]) == 0
    assert capsys.readouterr().out.startswith("Profile gaussian, no noise added:\n\n| thickness\\|gap, mm |")
    assert made(tmp_path) == before


@pytest.mark.parametrize("damage", ["study.json", "jobs"])
def test_what_cannot_be_read_is_refused_in_one_line(tmp_path, capsys, damage):
    write_synthetic(tmp_path, study_of(), record_of)
    path = tmp_path / "study.json" if damage == "study.json" else next((tmp_path / "jobs").iterdir())
    path.write_text("{}")
    assert main(["compare-report", str(tmp_path)]) == 3
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1
    assert path.name in told
    assert not (tmp_path / "report.html").exists()


def test_a_folder_without_a_study_is_refused(tmp_path, capsys):
    assert main(["compare-report", str(tmp_path / "none")]) == 3
    assert "study.json does not exist; expected a folder that throughplane compare filled" in capsys.readouterr().err
