"""The command line in process: one test per command, one per refusal."""

import hashlib
import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import eclare
from eclare.saved import SHIPPED
from tests.conftest import head_phantom, oblique_affine, save
from throughplane.cli import main


@pytest.fixture
def thin(tmp_path) -> Path:
    return save(tmp_path / "thin.nii.gz", head_phantom(), oblique_affine((1, 1, 1)))


def run(*argv: object) -> int:
    return main([str(a) for a in argv])


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# ---- each command ----


def test_version(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out.startswith("throughplane ")


def test_the_package_runs_as_a_module(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["throughplane", "--version"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module("throughplane", run_name="__main__")
    assert capsys.readouterr().out.startswith("throughplane ")


def test_inspect_tells_geometry_sources_and_verdict(thick_scan, capsys):
    assert run("inspect", thick_scan) == 0
    told = capsys.readouterr().out
    for part in ("0.9 x 0.9 x 3.3 mm", "3 mm (sidecar)", "0.3 mm", "9 axial", "can be super-resolved"):
        assert part in told


def test_inspect_json_is_json(thick_scan, capsys):
    assert run("inspect", thick_scan, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["thickness_mm"] == 3.0
    assert record["thickness_source"] == "sidecar"
    assert record["thin_slices"] == 33
    assert record["suitable"]


@pytest.mark.parametrize(("share", "expected"), [(0.5, [0.0, 7.0]), (1.0, None)])
def test_inspect_json_of_a_scan_with_nan_is_json_too(tmp_path, capsys, share, expected):
    data = np.where(np.arange(12) < 12 * share, np.nan, np.arange(12) % 8.0).repeat(400).reshape(12, 20, 20).T
    scan = save(tmp_path / "nan.nii.gz", data, oblique_affine((1, 1, 4)))
    assert run("inspect", scan, "--json") == 3

    def unknown(word):
        raise AssertionError(f"{word} is no JSON")

    assert json.loads(capsys.readouterr().out, parse_constant=unknown)["intensity_range"] == expected
    assert run("inspect", scan) == 3
    assert ("0 to 7" if expected else "no number in it") in capsys.readouterr().out


def test_inspect_shows_what_upsample_would_make_of_the_same_flags(thick_scan, capsys):
    assert run("inspect", thick_scan, "--json", "--gap", 0.8, "--profile", "slr", "--axis", 2) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["thickness_mm"], record["thickness_source"]) == (pytest.approx(2.5), "flag")
    assert (record["profile"], record["slice_axis_source"]) == ("slr", "flag")
    assert run("inspect", thick_scan, "--thickness", 3, "--profile", "estimate") == 2
    assert "leave one out" in capsys.readouterr().err


def test_inspect_shows_what_it_refuses(thin, capsys):
    assert run("inspect", thin) == 3
    assert "isotropic" in " ".join(capsys.readouterr().out.split())


def test_simulated_scans_carry_their_own_sidecar(thin, tmp_path, capsys):
    out = tmp_path / "thick.nii.gz"
    assert run("simulate", thin, out, "--thickness", 4, "--gap", 1, "--profile", "slr", "--noise", 5, "--seed", 3) == 0
    record = json.loads((tmp_path / "thick.json").read_text())
    assert (record["SliceThickness"], record["SpacingBetweenSlices"]) == pytest.approx((4.0, 5.0))
    assert (record["seed"], record["noise_sd"]) == (3, 5.0)
    capsys.readouterr()
    assert run("inspect", out, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["thickness_mm"], found["thickness_source"]) == (pytest.approx(4.0), "sidecar")
    assert found["gap_mm"] == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("method", ["cubic", "inverse"])
def test_upsample_writes_volume_and_record(thick_scan, tmp_path, method):
    out = tmp_path / "out.nii.gz"
    assert run("upsample", thick_scan, out, "--method", method, "-q") == 0
    image, scan = nib.load(out), nib.load(thick_scan)
    assert image.get_data_dtype() == np.float32
    assert image.header.get_zooms() == pytest.approx((0.9, 0.9, 0.9))
    assert image.shape == (32, 34, 33)
    assert np.allclose(image.get_sform(), image.get_qform(), atol=1e-5)
    middle = lambda i: i.affine @ [*((np.array(i.shape) - 1) / 2), 1]  # noqa: E731
    assert middle(image) == pytest.approx(middle(scan), abs=1e-3)
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["method"] == method
    assert record["arguments"]["scan"] == str(thick_scan)
    assert record["input"]["sha256"]
    assert record["acquisition"]["thickness_source"] == "sidecar"
    assert record["residual"]["relative_to_scan"] < (1e-5 if method == "inverse" else 0.5)
    assert record["SliceThickness"] == pytest.approx(0.9)


def test_two_runs_give_identical_files(thick_scan, tmp_path):
    for name in ("a.nii.gz", "b.nii.gz"):
        assert run("upsample", thick_scan, tmp_path / name, "--method", "inverse", "-q") == 0
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_the_record_is_written_last(thick_scan, tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr("throughplane.outputs.write_all", lambda writers: order.extend(p.name for p in writers))
    mask = save(tmp_path / "mask.nii.gz", np.ones((32, 34, 9), np.uint8), oblique_affine())
    also = ["--also", mask, tmp_path / "mask_out.nii.gz"]
    assert run("upsample", thick_scan, tmp_path / "out.nii.gz", "--method", "cubic", *also) == 0
    assert order == ["out.nii.gz", "mask_out.nii.gz", "out.json"]


@pytest.fixture
def tiny_eclare(monkeypatch):
    """The preset `fast`, made fast enough for tests."""
    tiny = replace(eclare.PRESETS["fast"], steps=3, channels=4, blocks=1)
    monkeypatch.setattr(eclare, "PRESETS", {"fast": tiny})


@pytest.mark.usefixtures("tiny_eclare")
def test_a_saved_network_makes_the_same_volume_again(thick_scan, tmp_path):
    network, first, second = tmp_path / "net.safetensors", tmp_path / "first.nii.gz", tmp_path / "second.nii.gz"
    assert run("upsample", thick_scan, first, "--preset", "fast", "--save-network", network, "-q") == 0
    assert run("upsample", thick_scan, second, "--network", network, "-q") == 0
    assert first.read_bytes() == second.read_bytes()
    record = json.loads((tmp_path / "second.json").read_text())
    assert record["method_details"]["network_sha256"] == hashlib.sha256(network.read_bytes()).hexdigest()
    assert "seed" not in record


@pytest.mark.usefixtures("tiny_eclare")
def test_the_record_says_where_the_network_started(thick_scan, tmp_path):
    hashes = {}
    for name, flags in (("shipped", ()), ("scratch", ("--init", "none")), ("file", ("--init", str(SHIPPED)))):
        assert run("upsample", thick_scan, tmp_path / f"{name}.nii", "--preset", "fast", *flags, "-q") == 0
        hashes[name] = json.loads((tmp_path / f"{name}.json").read_text())["method_details"]["init_sha256"]
    shipped = hashlib.sha256(SHIPPED.read_bytes()).hexdigest()
    assert hashes == {"shipped": shipped, "scratch": None, "file": shipped}


def test_instant_trains_nothing(thick_scan, tmp_path):
    assert run("upsample", thick_scan, tmp_path / "thin.nii", "--preset", "instant", "-q") == 0
    record = json.loads((tmp_path / "thin.json").read_text())
    assert record["method_details"]["steps"] == 0
    assert record["residual"]["relative_to_scan"] < 1e-6


@pytest.mark.usefixtures("tiny_eclare")
def test_consistency_is_the_last_step_unless_left_out(thick_scan, tmp_path):
    residual = {}
    for flag in ("--consistent", "--no-consistent"):
        assert run("upsample", thick_scan, tmp_path / f"{flag}.nii", "--preset", "fast", flag, "-q") == 0
        residual[flag] = json.loads((tmp_path / f"{flag}.json").read_text())["residual"]["relative_to_scan"]
    assert residual["--consistent"] < 1e-6
    assert residual["--no-consistent"] > 1e-3


@pytest.mark.usefixtures("tiny_eclare")
@pytest.mark.parametrize("flags", [("--preset", "fast"), ("--seed", "1"), ("--method", "inverse")], ids="-".join)
def test_flags_that_a_network_makes_idle_are_errors(thick_scan, tmp_path, capsys, flags):
    network = tmp_path / "net.safetensors"
    assert run("upsample", thick_scan, tmp_path / "a.nii.gz", "--preset", "fast", "--save-network", network, "-q") == 0
    assert run("upsample", thick_scan, tmp_path / "b.nii.gz", "--network", network, *flags) == 2
    told = capsys.readouterr().err
    assert "--network" in told
    assert flags[0] in told


@pytest.mark.usefixtures("tiny_eclare")
def test_a_network_for_other_slices_is_refused(thick_scan, tmp_path, capsys):
    network = tmp_path / "net.safetensors"
    assert run("upsample", thick_scan, tmp_path / "a.nii.gz", "--preset", "fast", "--save-network", network, "-q") == 0
    before = files_in(tmp_path)
    assert run("upsample", thick_scan, tmp_path / "b.nii.gz", "--network", network, "--thickness", "2.5") == 3
    assert "trained for a thickness of 3 mm" in capsys.readouterr().err
    assert files_in(tmp_path) == before


def test_masks_and_labels_go_along(thick_scan, tmp_path, capsys):
    labels = (head_phantom((32, 34, 36))[:, :, 1::4] > 400).astype(np.uint8) * 17
    mask = save(tmp_path / "mask.nii.gz", labels, oblique_affine())
    real = save(tmp_path / "map.nii.gz", labels * np.float32(0.1), oblique_affine())
    argv = ["--also", mask, tmp_path / "mask_out.nii.gz", "--also", real, tmp_path / "map_out.nii.gz"]
    assert run("upsample", thick_scan, tmp_path / "out.nii.gz", "--method", "cubic", *argv) == 0
    out, carried = nib.load(tmp_path / "out.nii.gz"), nib.load(tmp_path / "mask_out.nii.gz")
    assert np.unique(np.asarray(carried.dataobj)).tolist() == [0, 17]
    assert carried.get_data_dtype() == np.uint8
    assert np.allclose(carried.affine, out.affine)
    assert np.unique(nib.load(tmp_path / "map_out.nii.gz").get_fdata()).size > 100
    told, record = capsys.readouterr().err, json.loads((tmp_path / "out.json").read_text())["also"]
    for entry, (file, kind) in zip(record, ((mask, "labels"), (real, "intensities")), strict=True):
        assert (entry["file"], entry["carried_as"]) == (str(file), kind)
        assert f"note: {file} goes along as {kind}" in told


def test_dry_run_says_the_plan_and_writes_nothing(thick_scan, tmp_path, capsys):
    before = files_in(tmp_path)
    assert run("upsample", thick_scan, tmp_path / "out.nii.gz", "--dry-run", "--preset", "fast") == 0
    told = capsys.readouterr().err
    for part in ("32 x 34 x 33", "eclare, preset fast, seed 0", "3 mm thick every 3.3 mm", "GiB"):
        assert part in told
    assert files_in(tmp_path) == before


def test_like_input_writes_the_dtype_of_the_scan(thick_scan, tmp_path):
    assert run("upsample", thick_scan, tmp_path / "o.nii.gz", "--method", "cubic", "--dtype", "like-input") == 0
    assert nib.load(tmp_path / "o.nii.gz").get_data_dtype() == np.int16


def test_what_does_not_fit_the_dtype_is_told(tmp_path, capsys):
    data = head_phantom((32, 34, 36))[:, :, 1::4].astype(np.uint16)
    scan = save(tmp_path / "u.nii.gz", data, oblique_affine())
    assert run("upsample", scan, tmp_path / "o.nii.gz", "--method", "cubic", "--dtype", "like-input") == 0
    assert "voxels do not fit uint16 and were set to its limits" in capsys.readouterr().err
    assert json.loads((tmp_path / "o.json").read_text())["voxels_set_to_dtype_limits"] > 0


def mgh_refusal(folder: Path, capsys, *argv: object) -> str:
    """What a command says that must exit with 3 and write nothing."""
    before = files_in(folder)
    assert run(*argv) == 3
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert files_in(folder) == before
    return told


@pytest.mark.parametrize(
    ("dtype", "slope", "message"),
    [("int16", 0.5, "int16 with slope 0.5 and intercept 0"), ("float64", 1.0, "float64")],
)
def test_what_mgh_cannot_hold_is_refused_before_any_work(tmp_path, capsys, monkeypatch, dtype, slope, message):
    image = nib.Nifti1Image(np.round(head_phantom((32, 34, 36))[:, :, 1::4]).astype(dtype), oblique_affine())
    image.header.set_slope_inter(slope, 0)
    image.to_filename(tmp_path / "scan.nii")
    scan, out, like = tmp_path / "scan.nii", tmp_path / "o.mgz", ("--dtype", "like-input")
    assert run("upsample", scan, tmp_path / "fine.nii", "--method", "cubic", *like) == 0
    capsys.readouterr()

    def no_work(*_):
        raise AssertionError("the work has begun")

    for work in ("pipeline.carry_out", "projection.project", "simulation.simulate_volume"):
        monkeypatch.setattr(f"throughplane.{work}", no_work)
    expected = f"output {out} would hold {message}, but .mgz holds uint8, int16, int32 or float32 without scaling; "
    for argv in (
        ("upsample", scan, out, *like),
        ("upsample", scan, out, *like, "--dry-run"),
        ("project", scan, scan, out, *like),
        ("simulate", scan, out, "--thickness", 7, *like),
        ("upsample", scan, tmp_path / "p.nii", "--thickness", 3, "--also", scan, out),
    ):
        assert expected + "name it .nii.gz, or store float32" in mgh_refusal(tmp_path, capsys, *argv)


def test_project_makes_any_volume_explain_the_scan(thick_scan, tmp_path):
    assert run("upsample", thick_scan, tmp_path / "c.nii.gz", "--method", "cubic") == 0
    stored = nib.load(tmp_path / "c.nii.gz").as_reoriented(np.array([[1, -1], [2, 1], [0, -1]]))
    stored.to_filename(tmp_path / "other_order.nii.gz")
    for name in ("c", "other_order"):
        assert run("project", tmp_path / f"{name}.nii.gz", thick_scan, tmp_path / f"{name}_p.nii.gz") == 0
        residual = json.loads((tmp_path / f"{name}_p.json").read_text())["residual"]
        assert residual["relative_to_scan"] < 1e-5 < residual["relative_to_scan_before"]
    a, b = (nib.load(tmp_path / f"{name}_p.nii.gz") for name in ("c", "other_order"))
    assert np.allclose(b.affine, stored.affine)
    back = b.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(b.affine), nib.io_orientation(a.affine)))
    assert np.allclose(back.get_fdata(), a.get_fdata(), atol=1e-3)


# ---- each refusal: one line, its exit code, nothing written ----

RAMP = np.arange(20 * 22 * 12, dtype=np.float32).reshape(20, 22, 12)


def broken_scan(kind: str, folder: Path) -> Path:
    affine, path = oblique_affine((1, 1, 4)), folder / "bad.nii.gz"
    with_nan = RAMP.copy()
    with_nan[1, 2, 3] = np.nan
    images = {
        "isotropic": (RAMP, oblique_affine((1, 1, 1))),
        "two thick axes": (RAMP, oblique_affine((1, 4, 4))),
        "4-D": (np.stack([RAMP, RAMP], 3), affine),
        "RGB": (np.zeros(RAMP.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")]), affine),
        "complex": (RAMP.astype(np.complex64), affine),
        "NaN": (with_nan, affine),
        "Inf": (np.where(np.isnan(with_nan), np.inf, with_nan), affine),
        "all zero": (0 * RAMP, affine),
        "beyond float32": (np.where(RAMP > 0, 1e300, 0), affine),
        "below float32": (np.where(RAMP > 0, 1e-300, 0), affine),
        "one slice": (RAMP[:, :, :1], affine),
        "three slices": (RAMP[:, :, :3], affine),
        "sheared": (RAMP, affine @ np.array([[1, 0.1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])),
    }
    if kind in images:
        nib.Nifti1Image(images[kind][0], images[kind][1]).to_filename(path)
    elif kind == "truncated":
        whole = save(folder / "whole.nii.gz", RAMP, affine).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "DICOM folder":
        path = folder / "series"
        path.mkdir()
    elif kind == "not a NIfTI":
        path.write_bytes(b"hello" * 200)
    elif kind == "singular":
        image = nib.Nifti1Image(RAMP, affine)
        image.header["srow_z"] = 0
        image.header["sform_code"] = 1
        content = bytearray(image.to_bytes())
        content[312:328] = b"\0" * 16  # srow_z
        (folder / "bad.nii").write_bytes(content)
        return folder / "bad.nii"
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("isotropic", "isotropic and needs no super-resolution"),
        (
            "two thick axes",
            "axes 1 and 2 are equally thick; pass --axis, the one that slices are stacked along, and --spacing",
        ),
        ("4-D", "holds 2 volumes; choose one with --volume"),
        ("RGB", "RGB"),
        ("complex", "complex"),
        ("NaN", "NaN or Inf"),
        ("Inf", "NaN or Inf"),
        ("all zero", "zero everywhere"),
        ("one slice", "1 slices"),
        ("three slices", "3 slices"),
        ("sheared", "sheared affine"),
        ("singular", "singular affine"),
        ("truncated", "damaged or truncated"),
        ("not a NIfTI", "not a readable NIfTI"),
        ("beyond float32", "intensities of up to 1e+300; expected 1e-30 to 1e+30"),
        ("below float32", "intensities of up to 1e-300; expected 1e-30 to 1e+30"),
        ("DICOM folder", "convert DICOM with dcm2niix"),
        ("missing", "does not exist"),
    ],
)
def test_bad_scans_get_one_line_exit_3_and_no_file(tmp_path, capsys, kind, message):
    scan = broken_scan(kind, tmp_path)
    before = files_in(tmp_path)
    assert run("upsample", scan, tmp_path / "out.nii.gz") == 3
    told = capsys.readouterr().err
    assert message in told
    assert told.startswith("throughplane: ")
    assert told.count("\n") == 1
    assert files_in(tmp_path) == before


@pytest.mark.parametrize("argv", [(".", "out.nii.gz"), ("scan.nii.gz", "."), ("scan.nii.gz", ".", "--maps")])
def test_a_folder_instead_of_a_file_gets_one_line(thick_scan, tmp_path, monkeypatch, capsys, argv):
    monkeypatch.chdir(thick_scan.parent)
    before = files_in(tmp_path)
    assert run("upsample", *argv) == 3
    told = capsys.readouterr().err
    assert "." in told
    assert told.count("\n") == 1
    assert files_in(tmp_path) == before


def test_names_and_reasons_are_shown_as_they_are(thick_scan, tmp_path, capsys):
    """Brackets mean colours to the library that draws the table."""
    odd = tmp_path / "scan[red][b].nii.gz"
    odd.write_bytes(thick_scan.read_bytes())
    (tmp_path / "scan[red][b].json").write_text('{"SliceThickness": ["a"]}')
    assert run("inspect", odd) == 3
    told = "".join(capsys.readouterr().out.replace("\u2502", "").split())
    assert told.count("scan[red][b]") == 2
    assert "SliceThicknessis['a']" in told


def test_a_gap_of_rounding_is_told_as_none(tmp_path, capsys):
    scan = save(tmp_path / "scan.nii.gz", RAMP, oblique_affine((1, 1, 2.9999995)))
    (tmp_path / "scan.json").write_text('{"SliceThickness": 3}')
    assert run("inspect", scan) == 0
    assert "gap\u25020mm" in "".join(capsys.readouterr().out.split())


def test_two_thick_axes_need_axis_and_spacing(tmp_path, capsys):
    scan = broken_scan("two thick axes", tmp_path)
    argv = ["upsample", scan, tmp_path / "out.nii.gz", "--method", "cubic", "--axis", 1]
    assert run(*argv) == 3
    told = capsys.readouterr().err
    assert "voxels of 4 mm in plane are no smaller than the slice spacing of 4 mm" in told
    assert "pass --spacing in mm" in told
    assert run(*argv, "--spacing", 1) == 0
    assert nib.load(tmp_path / "out.nii.gz").shape == (20, 88, 12)


def test_a_thickness_passed_makes_a_bad_one_in_the_sidecar_irrelevant(thick_scan, tmp_path, capsys):
    (tmp_path / "scan.json").write_text('{"SliceThickness": -3}')
    argv = ["upsample", thick_scan, tmp_path / "out.nii.gz", "--method", "cubic"]
    assert run(*argv) == 3
    assert "SliceThickness is -3; expected a positive number of mm" in capsys.readouterr().err
    assert run("inspect", thick_scan) == 3
    assert "SliceThickness is -3" in " ".join(capsys.readouterr().out.split())
    assert run(*argv, "--thickness", 3) == 0


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--thickness", "0"], 3, "expected a positive number"),
        (["--thickness", "-3"], 3, "expected a positive number"),
        (["--thickness", "1000"], 3, "exceeds the stack's length"),
        (["--thickness", "3", "--gap", "2"], 3, "add up to 5 mm"),
        (["--gap", "9"], 3, "leaves no slice"),
        (["--axis", "5"], 3, "expected 0, 1 or 2"),
        (["--axis", "0"], 3, "less than 1.1 times that in plane"),
        (["--spacing", "7"], 3, "pass a spacing between 0 and"),
        (["--spacing", "-1"], 3, "pass a spacing between 0 and"),
        (["--spacing", "3.2"], 3, "thicker than the scan's own"),
        (["--volume", "0"], 3, "would be ignored"),
        (["--profile", "missing.json"], 3, "does not exist"),
        (["--device", "cuda:7"], 3, "not available on this machine"),
        (["--device", "toaster"], 3, "not a device"),
        (["--spacing", "1e-4", "--method", "cubic"], 3, "expected at most 4096; pass a larger spacing"),
        (["--profile", "lorentz"], 3, "expected gaussian, box, slr"),
        (["--threads", "0", "--method", "cubic"], 3, "expected at least 1"),
        (["--threads", "1000000", "--method", "cubic"], 3, "at most 1024"),
        (["--seed", "-1"], 2, "for --seed. Must be >= 0"),
        (["--seed", "99999999999999999999"], 2, "for --seed. Must be < 9223372036854775808"),
        (["--method", "cubic", "--preset", "fast"], 2, "--preset fast would be ignored: --method cubic"),
        (["--method", "inverse", "--seed", "1"], 2, "--seed 1 would be ignored: --method inverse"),
        (["--quiet", "--verbose"], 2, "--quiet and --verbose"),
        (["--threads", "0", "--dry-run"], 3, "--threads 0; expected at least 1"),
        (["--dry-run", "-q"], 2, "--quiet would leave --dry-run nothing to say"),
        (["--dry-run", "-v"], 2, "--verbose would be ignored with --dry-run"),
        (["--dry-run", "--json-record", "r.json"], 2, "--json-record r.json would be ignored with --dry-run"),
        (["--network", "missing.safetensors"], 3, "missing.safetensors does not exist"),
        (["--init", "missing.safetensors"], 3, "missing.safetensors does not exist"),
        (
            ["--method", "smore", "--init", "none"],
            2,
            "--init would be ignored: it is for eclare, not --method smore",
        ),
        (
            ["--preset", "instant", "--init", "none"],
            2,
            "needs the network that eclare starts from, so it cannot go with",
        ),
        (["--preset", "instant", "--method", "smore"], 2, "so it cannot go with --method smore"),
        (["--method", "cubic", "--no-consistent"], 2, "--no-consistent would be ignored: it is for eclare"),
        (["--save-network", "net.pt"], 3, "must end in .safetensors"),
        (
            ["--method", "cubic", "--save-network", "n.safetensors"],
            2,
            "ignored: --method cubic has no network",
        ),
        (["--dry-run", "--save-network", "n.safetensors"], 2, "would be ignored: --dry-run trains none"),
        (["--save-network", "a.safetensors", "--network", "b.safetensors"], 2, "ignored: --network trains none"),
        (["--method", "magic"], 2, "magic"),
        (["--thickness", "thin"], 2, "thin"),
        (["--unknown"], 2, "--unknown"),
    ],
)
def test_bad_flags_get_one_line_and_no_file(thick_scan, tmp_path, capsys, flags, code, message):
    before = files_in(tmp_path)
    assert run("upsample", thick_scan, tmp_path / "out.nii.gz", *flags) == code
    told = capsys.readouterr().err
    assert message in told
    assert told.count("throughplane: ") == 1
    assert "Traceback" not in told
    assert files_in(tmp_path) == before


def test_a_profile_file_beside_thickness_names_both_flags(thick_scan, tmp_path, capsys):
    profile = tmp_path / "p.json"
    profile.write_text('{"offsets_mm": [-2, -1, 0, 1, 2], "weights": [0, 1, 2, 1, 0]}')
    argv = ["upsample", thick_scan, tmp_path / "o.nii.gz", "--method", "cubic", "--profile", profile]
    assert run(*argv, "--thickness", 3) == 2
    assert "--thickness 3 would be ignored: --profile" in capsys.readouterr().err
    assert run(*argv) == 0
    assert json.loads((tmp_path / "o.json").read_text())["acquisition"]["thickness_mm"] == pytest.approx(2.0)


def test_a_file_that_is_not_a_profile_is_refused(thick_scan, tmp_path, capsys):
    assert run("upsample", thick_scan, tmp_path / "o.nii.gz", "--profile", thick_scan) == 3
    assert "is not a slice profile" in capsys.readouterr().err


def test_outputs_are_checked_before_any_work(thick_scan, tmp_path, capsys):
    argv = ["upsample", thick_scan]
    assert run(*argv, tmp_path / "no" / "o.nii.gz") == 3
    assert "does not exist; create it first" in capsys.readouterr().err
    assert run(*argv, tmp_path / "o.png") == 3
    assert "must end in .nii.gz, .nii or .mgz" in capsys.readouterr().err
    assert run(*argv, thick_scan) == 3
    assert "would overwrite an input" in capsys.readouterr().err
    assert run(*argv, tmp_path / "scan.nii") == 3  # its record would replace the scan's sidecar
    assert "would overwrite an input" in capsys.readouterr().err
    (tmp_path / "folder.nii").mkdir()
    assert run(*argv, tmp_path / "folder.nii") == 3
    assert "is a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "flag", "file"),
    [
        (["upsample", "scan.nii.gz", "prof.nii.gz", "--method", "cubic"], "--profile", "prof.json"),
        (["upsample", "scan.nii.gz", "o.nii.gz", "--save-network", "head.safetensors"], "--init", "head.safetensors"),
        (["upsample", "scan.nii.gz", "o.nii.gz", "--json-record", "prior/config.json"], "--prior", "prior/config.json"),
        (["project", "scan.nii.gz", "scan.nii.gz", "prof.nii.gz"], "--profile", "prof.json"),
        (["simulate", "scan.nii.gz", "prof.nii.gz"], "--profile", "prof.json"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_no_force_replaces_what_a_flag_reads(thick_scan, tmp_path, monkeypatch, capsys, argv, flag, file):
    monkeypatch.chdir(thick_scan.parent)
    (tmp_path / "prior").mkdir()
    profile = '{"offsets_mm": [-2, -1, 0, 1, 2], "weights": [0, 1, 2, 1, 0]}'
    Path(file).write_text(profile)
    given = "prior" if flag == "--prior" else file
    assert run(*argv, flag, given, "--force") == 3
    assert f"output {file} would overwrite an input" in capsys.readouterr().err
    assert Path(file).read_text() == profile


def test_a_record_may_be_named_as_the_network_that_is_read(thick_scan, tmp_path, capsys):
    """Scans have sidecars, networks have none."""
    (tmp_path / "o.json").write_text("{}")
    assert run("upsample", thick_scan, tmp_path / "o.nii.gz", "--init", tmp_path / "o.safetensors", "--force") == 3
    assert "o.safetensors does not exist" in capsys.readouterr().err


def test_existing_output_needs_force(thick_scan, tmp_path, capsys):
    out = tmp_path / "o.nii.gz"
    out.write_text("old")
    assert run("upsample", thick_scan, out, "--method", "cubic") == 3
    assert "exists; pass --force" in capsys.readouterr().err
    assert out.read_text() == "old"
    assert run("upsample", thick_scan, out, "--method", "cubic", "--dry-run") == 3  # checked in a dry run too
    assert run("upsample", thick_scan, out, "--method", "cubic", "--dry-run", "--force") == 0
    assert out.read_text() == "old"
    assert run("upsample", thick_scan, out, "--method", "cubic", "--force") == 0
    assert nib.load(out).shape == (32, 34, 33)


def test_one_name_for_two_outputs_is_refused(thick_scan, tmp_path, capsys):
    out = tmp_path / "o.nii.gz"
    assert run("upsample", thick_scan, out, "--also", thick_scan, out, "--method", "cubic") == 2
    assert "two outputs" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that nobody can write to")
def test_an_unwritable_folder_is_refused(thick_scan, capsys):
    assert run("upsample", thick_scan, "/proc/o.nii.gz", "--method", "cubic") == 3
    told = capsys.readouterr().err
    assert "not writable" in told or "nothing was written" in told


def test_a_full_disk_leaves_nothing(thick_scan, tmp_path, capsys):
    """A limit on file size stands in for the disk."""
    before = files_in(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        code = run("upsample", thick_scan, tmp_path / "o.nii.gz", "--method", "cubic")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert code == 3
    assert "nothing was written" in capsys.readouterr().err
    assert files_in(tmp_path) == before


def test_companions_on_another_grid_are_refused(thick_scan, tmp_path, capsys):
    shifted = save(tmp_path / "s.nii.gz", np.ones((32, 34, 9), np.uint8), oblique_affine(origin=(0.0, 0, 0)))
    smaller = save(tmp_path / "t.nii.gz", np.ones((32, 34, 8), np.uint8), oblique_affine())
    for file, message in ((shifted, "mm away from the scan"), (smaller, "shape is (32, 34, 8)")):
        assert run("upsample", thick_scan, tmp_path / "o.nii.gz", "--also", file, tmp_path / "m.nii.gz") == 3
        told = capsys.readouterr().err
        assert message in told
        assert file.name in told


def test_project_refuses_other_grids(thick_scan, tmp_path, capsys):
    rotated = save(tmp_path / "r.nii.gz", np.ones((32, 34, 33), np.float32), oblique_affine((0.9,) * 3, (0.5, 0, 0)))
    cropped = save(tmp_path / "c.nii.gz", np.ones((30, 34, 33), np.float32), oblique_affine((0.9,) * 3))
    beside = oblique_affine((0.9,) * 3)
    beside[:3, 3] += 2 * beside[:3, 0]
    moved = save(tmp_path / "m.nii.gz", np.ones((32, 34, 33), np.float32), beside)
    series = save(tmp_path / "s.nii.gz", np.ones((32, 34, 33, 2), np.float32), oblique_affine((0.9,) * 3))
    for file, message in (
        (rotated, "rotated"),
        (cropped, "voxels in plane"),
        (moved, "beside the scan in plane"),
        (series, "s.nii.gz holds 2 volumes; expected one: extract it to a file of its own\n"),
    ):
        assert run("project", file, thick_scan, tmp_path / "o.nii.gz") == 3
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        ([], 2, "needs --thickness"),
        (["--thickness", "4", "--seed", "1"], 2, "--seed 1 would be ignored without --noise"),
        (["--thickness", "0.5"], 3, "must not be smaller"),
        (["--thickness", "4", "--gap", "-3.5"], 3, "must be larger"),
        (["--thickness", "4", "--noise", "-1"], 3, "standard deviation of 0 or more"),
        (["--thickness", "4", "--noise", "inf"], 3, "standard deviation of 0 or more"),
        (["--thickness", "4", "--gap", "nan"], 3, "--gap nan; expected a number of mm"),
        (["--thickness", "4", "--axis", "7"], 3, "expected 0, 1 or 2"),
        (["--thickness", "100"], 3, "no slice"),
    ],
)
def test_simulations_that_make_no_sense_are_refused(thin, tmp_path, capsys, flags, code, message):
    before = files_in(tmp_path)
    assert run("simulate", thin, tmp_path / "o.nii.gz", *flags) == code
    assert message in capsys.readouterr().err
    assert files_in(tmp_path) == before


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_interruption_exits_130_and_leaves_nothing(thick_scan, tmp_path, signum):
    before = files_in(tmp_path)
    # a shell starts what runs in its background with SIGINT ignored, and children inherit that
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from throughplane.cli import main; sys.exit(main())"
    )
    argv = [sys.executable, "-c", program, "upsample", str(thick_scan), str(tmp_path / "o.nii.gz"), "--verbose"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stderr is not None
            assert "scan" in process.stderr.readline()  # the plan
            time.sleep(2)  # by then it trains
            process.send_signal(signum)
            assert process.wait(timeout=60) == 130
            told = process.stderr.read()
        finally:
            process.kill()
    assert "interrupted; nothing was written" in told
    assert files_in(tmp_path) == before


def test_running_out_of_memory_exits_4(thick_scan, tmp_path, capsys, monkeypatch):
    def exhausted(*_):
        raise MemoryError

    monkeypatch.setattr("throughplane.pipeline.stack_of", exhausted)
    assert run("upsample", thick_scan, tmp_path / "o.nii.gz", "--method", "cubic") == 4
    assert "out of memory; pass a coarser --spacing" in capsys.readouterr().err


def test_the_unexpected_is_one_line_unless_debugging(thick_scan, tmp_path, capsys, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr("throughplane.pipeline.stack_of", broken)
    assert run("upsample", thick_scan, tmp_path / "o.nii.gz", "--method", "cubic") == 1
    told = capsys.readouterr().err
    assert "unexpected ZeroDivisionError: surprise; please report it" in told
    assert "Traceback" not in told
    assert run("upsample", thick_scan, tmp_path / "o.nii.gz", "--method", "cubic", "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


def test_training_that_diverges_is_told_plainly(thick_scan, tmp_path, capsys, monkeypatch):
    def diverging(*_):
        raise eclare.TrainingDiverged("the loss is nan at step 7")

    monkeypatch.setattr("throughplane.pipeline.stack_of", diverging)
    before = files_in(tmp_path)
    assert run("upsample", thick_scan, tmp_path / "o.nii.gz") == 1
    told = capsys.readouterr().err
    assert told.startswith(
        "throughplane: training diverged: the loss is nan at step 7; nothing was written; try another"
    )
    assert told.count("\n") == 1
    assert files_in(tmp_path) == before


@pytest.mark.parametrize("argv", [("upsample", "--help"), ("inspect", "{scan}", "--json")])
def test_a_reader_who_leaves_early_is_no_error(thick_scan, argv):
    """`throughplane ... | head`, with a head that reads nothing."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "throughplane.cli", *(part.format(scan=thick_scan) for part in argv)]
    ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, "")
