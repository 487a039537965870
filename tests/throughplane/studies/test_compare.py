"""`throughplane compare` as a person runs it."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import head_phantom, oblique_affine, save
from throughplane import study_commands
from throughplane.cli import main
from throughplane.studies.records import JobRecord, read_jobs, read_study, write_job


def told_of(capsys) -> str:
    return capsys.readouterr().err


def test_a_study_is_interrupted_and_goes_on_without_repeating_a_job(thin_file, tmp_path, monkeypatch, capsys):
    """Two methods; the second hangs until `flag` is there, and then returns its input."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    out, flag = tmp_path / "out", tmp_path / "flag"
    command = ["compare", str(out), "--thin", str(thin_file), "--grid", "4|0", "--methods", "cubic", "--jobs", "2"]
    command += [
        "--threads",
        "1",
        "--external",
        f"lazy=sh -c 'test -e {flag} && exec cp $0 $1; sleep 600' {{in}} {{out}}",
    ]

    def interrupt(progress):
        assert progress.record.job.method == "cubic"
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(study_commands, "_tell", interrupt)
        assert main(command) == 130
    assert "go on with --resume" in told_of(capsys)
    assert sorted(path.name for path in out.iterdir()) == ["jobs", "pictures", "protocol.md", "study.json"]
    (first,) = (out / "jobs").iterdir()
    before = first.stat().st_mtime_ns, first.read_bytes()
    assert not list(tmp_path.glob("throughplane-*"))

    assert main(command) == 3
    assert "pass --resume to go on" in told_of(capsys)
    assert main([*command, "--resume", "--seed", "4"]) == 3
    assert "is of another study: seed was 0, now 4" in told_of(capsys)

    flag.touch()
    assert main([*command, "--resume"]) == 1
    told = told_of(capsys)
    assert "2/2 a_T1w_4_0_gaussian_0_lazy_0: failed: the result is on the grid of the scan" in told
    assert "1 of 2 jobs failed" in told
    assert (first.stat().st_mtime_ns, first.read_bytes()) == before
    good, bad = read_jobs(out, read_study(out))
    assert good.failure is None
    assert bad.failure is not None
    assert main([*command, "--resume"]) == 1  # nothing left to do, and still not well


def test_what_was_agreed_is_written_before_the_first_job(thin_file, tmp_path, monkeypatch):
    def look(planned, records, out, **_):
        protocol = (out / "protocol.md").read_text()
        assert planned.study.volumes["a_T1w"]["sha256"][:16] in protocol
        for said in ("psnr_db/head/p0.1-99.9", "| 4\\|0 | gaussian | 0 |", "| 5\\|1 | slr | 0 |", "no-op {in} {out}"):
            assert said in protocol
        assert str(thin_file.parent) not in protocol + (out / "study.json").read_text()
        assert records == ()
        return ()

    monkeypatch.setattr("throughplane.studies.running.run_jobs", look)
    command = ["compare", str(tmp_path / "out"), "--thin", str(thin_file), "--grid", "4|0,5|1", "--profiles"]
    assert main([*command, "gaussian,slr", "--methods", "cubic,focvs@2", "--external", "x=no-op {in} {out}"]) == 0


def test_the_protocol_says_which_volumes_the_weights_were_trained_on(thin_file, tmp_path, monkeypatch):
    monkeypatch.setattr("throughplane.studies.running.run_jobs", lambda *_, **__: ())
    for subject, said in (("cstar", "trained on the subjects of cstar_T1w"), ("mine", "trained on none of these")):
        path = tmp_path / f"{subject}_T1w.nii.gz"
        path.write_bytes(thin_file.read_bytes())
        out = tmp_path / subject
        assert main(["compare", str(out), "--thin", str(path), "--grid", "4|0", "--methods", "cubic"]) == 0
        assert said in (out / "protocol.md").read_text()


def test_a_dry_run_lists_the_jobs_and_writes_nothing(thin_file, tmp_path, capsys):
    command = ["compare", str(tmp_path / "out"), "--thin", str(thin_file), "--grid", "4|0,5|1", "--methods", "cubic"]
    assert main([*command, "--external", "tool=x {in} {out}", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "a_T1w_4_0_gaussian_0_cubic_0" in told
    assert "tool: 2 jobs, nobody knows how long" in told
    assert "4 jobs, 1 at once: at least" in told
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_with_resume_lists_what_is_left_and_makes_no_folder(thin_file, tmp_path, monkeypatch, capsys):
    out, command = tmp_path / "out", ["compare", str(tmp_path / "out"), "--thin", str(thin_file), "--grid", "4|0,5|1"]
    command += ["--methods", "cubic", "--external", "tool=x {in} {out}", "--resume"]
    with monkeypatch.context() as patched:
        patched.setattr("throughplane.studies.running.run_jobs", lambda *_, **__: ())
        assert main([word for word in command if word != "--resume"]) == 0
    study = read_study(out)
    for job in study.jobs[:3]:
        write_job(out, JobRecord(job, "it broke" if job.method == "tool" else None))
    (out / "pictures").rmdir()
    before = sorted(tmp_path.rglob("*"))
    for flags, left in (([], study.jobs[3:]), (["--retry-failed"], [study.jobs[1], study.jobs[3]])):
        capsys.readouterr()
        assert main([*command, "--dry-run", *flags]) == 0
        told = capsys.readouterr().out.splitlines()
        assert told == [
            *(job.name for job in left),
            f"tool: {len(left)} jobs, nobody knows how long",
            f"{len(left)} of 4 jobs, 1 at once: at least a few seconds, starting and scoring not included",
        ]
    assert main([*command, "--dry-run", "--seed", "4"]) == 3
    assert "is of another study" in told_of(capsys)
    assert sorted(tmp_path.rglob("*")) == before


def test_masks_are_found_by_volume_or_subject_and_named_in_the_study(thin_file, tmp_path, monkeypatch):
    folder = tmp_path / "outlines"
    folder.mkdir()
    inside = (head_phantom((24, 26, 33)) > 500).astype(np.uint8)
    save(folder / "a_lesions.nii.gz", inside, oblique_affine((1.0, 1.0, 1.0)))
    monkeypatch.setattr("throughplane.studies.running.run_jobs", lambda *_, **__: ())
    out = tmp_path / "out"
    command = ["compare", str(out), "--thin", str(thin_file.parent), "--grid", "4|0", "--methods", "cubic"]
    assert main([*command, "--lesions", str(folder)]) == 0
    facts = json.loads((out / "study.json").read_text())["volumes"]["a_T1w"]
    assert facts["lesions"]["file"] == "a_lesions.nii.gz"
    assert facts["brain"] is None


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["--grid", "4"], 3, "--grid '4'; expected thickness|gap in mm"),
        (["--grid", "0.5|0"], 3, "cannot be made 0.5|0 gaussian: slices of 0.5 mm"),
        (["--grid", "10|0"], 3, "3 slices fit; at least 4"),
        (["--grid", "4|0,4|0"], 3, "degradation 4|0 gaussian is there 2 times"),
        (["--grid", ""], 3, "no scan to simulate"),
        (["--profiles", "sinc"], 3, "--profiles sinc is unknown; expected gaussian, box, slr"),
        (["--noise", "-1"], 3, "--noise -1; expected a share"),
        (["--methods", "magic"], 3, "method 'magic' is unknown"),
        (["--methods", "cubic,cubic"], 3, "method cubic is there 2 times"),
        (["--methods", ""], 3, "no method to compare"),
        (["--external", "cubic=x {in} {out}"], 3, "would hide the method"),
        (["--external", "x=1 {in} {out}", "--external", "x=2 {in} {out}"], 3, "external method x is there 2 times"),
        (["--jobs", "0"], 3, "--jobs 0; expected at least 1"),
        (["--threads", "9999"], 3, "--threads 9999; expected at least 1 and at most 1024"),
        (["--time-limit", "0"], 3, "--time-limit 0; expected minutes"),
        (["--retry-failed"], 2, "--retry-failed would be ignored without --resume"),
        (["--resume"], 3, "holds no study to go on with"),
        (["--dry-run", "--resume"], 3, "holds no study to go on with"),
        (["--dry-run", "--quiet"], 2, "--quiet would leave --dry-run nothing to say"),
        (["--thin", "nowhere"], 3, "nowhere does not exist"),
        (["--masks", "nowhere"], 3, "nowhere is not a folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(thin_file, tmp_path, capsys, flags, code, said):
    given = {"--thin": str(thin_file), "--grid": "4|0", "--methods": "cubic"}
    rest = [word for flag, value in given.items() if flag not in flags for word in (flag, value)]
    assert main(["compare", str(tmp_path / "out"), *rest, *flags]) == code
    told = told_of(capsys)
    assert said in told
    assert len(told.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_masks_that_belong_to_no_volume_are_refused(thin_file, tmp_path, capsys):
    command = ["compare", str(tmp_path / "out"), "--thin", str(thin_file), "--masks", str(tmp_path)]
    assert main(command) == 2
    assert "holds no file named after one of the volumes" in told_of(capsys)


def test_a_folder_with_something_else_in_it_is_left_alone(thin_file, tmp_path, capsys):
    (tmp_path / "letter.txt").touch()
    assert main(["compare", str(tmp_path), "--thin", str(thin_file), "--grid", "4|0", "--methods", "cubic"]) == 3
    assert "is not an empty folder" in told_of(capsys)
    assert [path.name for path in Path(tmp_path).iterdir()] == ["letter.txt"]
