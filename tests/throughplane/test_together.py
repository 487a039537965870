"""`upsample --with`: several scans of one head, from files to a volume that explains them all."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import throughplane
from forward_models import Gaussian, Volume, simulate, truth_for, volume_from_image
from forward_models.solve import total_variation_inverse
from tests.conftest import head_phantom, oblique_affine, placed_image, rotation, save
from throughplane import FlagConflict, InputRefused
from throughplane.cli import main

EXACT = 1e-5  # of the scan, for the file as written
THICKNESS, GAP = 3.0, 0.5
SIDECAR = json.dumps({"SliceThickness": THICKNESS})

HEAD = volume_from_image(
    placed_image(np.pad(head_phantom((30, 32, 28)), 3), oblique_affine((1, 1, 1), origin=(-17.0, -18.0, -15.0)))
)
TRUTH = truth_for(HEAD, Gaussian(THICKNESS), GAP, 2)


def scan_file(path: Path, axis: int, gain: float = 1.0, sidecar: str | None = SIDECAR, head=HEAD) -> Path:
    """A simulated scan along an array axis of the oblique head."""
    scan = simulate(head, Gaussian(THICKNESS), GAP, axis=axis)
    return save(path, scan.data * np.float32(gain), scan.affine, sidecar)


@pytest.fixture(autouse=True)
def few_iterations(monkeypatch) -> None:
    """Of total variation: joint consistency ends every run anyway."""
    quick = partial(total_variation_inverse, iterations=12)
    monkeypatch.setattr("throughplane.together.total_variation_inverse", quick)


@pytest.fixture
def axial(tmp_path) -> Path:
    return scan_file(tmp_path / "axial.nii.gz", 2)


@pytest.fixture
def sagittal(tmp_path) -> Path:
    return scan_file(tmp_path / "sagittal.nii.gz", 0)


def run(*argv: object) -> int:
    return main([str(a) for a in argv])


def error(image: nib.Nifti1Image, truth: Volume = TRUTH) -> float:
    """Root mean square, against the head that was scanned."""
    return float(np.sqrt(np.mean((image.get_fdata() - truth.data) ** 2)))


# ---- what it is for ----


def test_two_scans_beat_either_alone(axial, sagittal):
    alone = throughplane.super_resolve(axial, method="inverse", spacing_mm=1.0)
    both = throughplane.super_resolve(axial, others=[sagittal], method="inverse", spacing_mm=1.0)
    assert np.allclose(both.image.affine, alone.image.affine)
    second = throughplane.super_resolve(sagittal, method="inverse", spacing_mm=1.0)
    assert error(both.image) < 0.9 * error(alone.image)
    assert error(both.image) < 0.9 * error(second.image, truth_for(HEAD, Gaussian(THICKNESS), GAP, 0))
    assert both.record["residual"]["relative_to_scan"] < EXACT
    (other,) = both.record["others"]
    assert other["residual"]["relative_to_scan"] < 0.02
    assert other["gain"] == pytest.approx(1, rel=0.02)
    assert other["alignment"]["source"] == "header"
    assert other["acquisition"]["thickness_source"] == "sidecar"
    assert other["share_counted"] > 0.6


def test_eclare_super_resolves_each_scan(axial, sagittal):
    both = throughplane.super_resolve(axial, others=[sagittal], preset="instant", spacing_mm=1.0)
    alone = throughplane.super_resolve(axial, preset="instant", spacing_mm=1.0)
    assert error(both.image) < error(alone.image)
    assert both.record["residual"]["relative_to_scan"] < EXACT
    assert len(both.record["method_details"]["others"]) == 1


def test_three_scans_beat_two(tmp_path, axial, sagittal):
    coronal = scan_file(tmp_path / "coronal.nii.gz", 1)
    two, three = (
        throughplane.super_resolve(axial, others=others, method="inverse", spacing_mm=1.0)
        for others in ([sagittal], [sagittal, coronal])
    )
    assert error(three.image) < error(two.image)
    assert set(three.maps) == {"residual", "measured", "residual_2", "residual_3"}


def test_a_scan_of_another_gain_is_brought_to_that_of_the_first(tmp_path, axial, sagittal):
    brighter = scan_file(tmp_path / "brighter.nii.gz", 0, gain=2.5)
    one, other = (
        throughplane.super_resolve(axial, others=[scan], method="inverse", spacing_mm=1.0)
        for scan in (sagittal, brighter)
    )
    assert other.record["others"][0]["gain"] == pytest.approx(2.5 * one.record["others"][0]["gain"], rel=1e-3)
    assert np.abs(one.image.get_fdata() - other.image.get_fdata()).max() < 0.01 * TRUTH.data.max()


def seen_through(path: Path, factor: np.ndarray) -> Path:
    """The sagittal scan times a factor that varies along its second axis."""
    scan = simulate(HEAD, Gaussian(THICKNESS), GAP, axis=0)
    return save(path, scan.data * np.float32(factor)[:, None], scan.affine, SIDECAR)


def test_shading_of_another_scan_is_undone_and_told(tmp_path, axial, sagittal):
    shaded = seen_through(tmp_path / "shaded.nii.gz", 1 + 0.15 * np.linspace(-1, 1, HEAD.data.shape[1]))
    even, uneven = (
        throughplane.super_resolve(axial, others=[scan], method="inverse", spacing_mm=1.0)
        for scan in (sagittal, shaded)
    )
    assert error(uneven.image) < 1.2 * error(even.image)
    (told,), (none,) = (result.record["others"] for result in (uneven, even))
    assert told["shading_sd"] > 0.02 > 2 * none["shading_sd"]
    assert told["residual"]["relative_to_scan"] < 0.05
    assert not any("beside place and shading" in note for note in even.record["warnings"])


def test_what_differs_beside_shading_is_noted(tmp_path, axial):
    striped = seen_through(
        tmp_path / "striped.nii.gz", 1 + 0.25 * np.sin(np.arange(HEAD.data.shape[1]) * 2 * np.pi / 9)
    )
    result = throughplane.super_resolve(axial, others=[striped], method="inverse", spacing_mm=1.0)
    assert result.record["others"][0]["disagreement"] > 0.05
    (note,) = (note for note in result.record["warnings"] if "beside place and shading" in note)
    assert "times its noise" in note or "without noise" in note


def test_the_same_scan_twice_is_harmless(axial):
    one = throughplane.super_resolve(axial, method="inverse", spacing_mm=1.0)
    twice = throughplane.super_resolve(axial, others=[axial], method="inverse", spacing_mm=1.0)
    assert twice.record["others"][0]["residual"]["relative_to_scan"] < 1e-3
    assert error(twice.image) < 1.1 * error(one.image)


def misplaced(path: Path, head=HEAD) -> Path:
    """The sagittal scan with a header that is 2 degrees and 2 mm off."""
    scan = simulate(head, Gaussian(THICKNESS), GAP, axis=0)
    middle = scan.affine @ [*((np.array(scan.data.shape) - 1) / 2), 1]
    motion = np.eye(4)
    motion[:3, :3] = rotation((0.02, -0.02, 0.02))
    motion[:3, 3] = middle[:3] - motion[:3, :3] @ middle[:3] + np.array([1.4, -1.0, 1.2])
    return save(path, scan.data, motion @ scan.affine, SIDECAR)


def test_a_wrong_header_is_told_and_refined_when_asked(tmp_path, axial, capsys):
    wrong, out = misplaced(tmp_path / "wrong.nii.gz"), tmp_path / "out.nii.gz"
    flags = ["--with", wrong, "--method", "inverse", "--spacing", 1.0]
    assert run("upsample", axial, out, *flags, "--dry-run") == 0
    assert "its header seems to misplace it by" in capsys.readouterr().err
    assert run("upsample", axial, out, *flags, "--align", "--quiet") == 0
    record = json.loads((tmp_path / "out.json").read_text())
    found = record["others"][0]["alignment"]
    assert found["source"] == "estimate"
    assert np.linalg.norm(found["shift_mm"]) == pytest.approx(np.linalg.norm([1.4, -1.0, 1.2]), abs=0.2)
    assert not any("misplace" in warning for warning in record["warnings"])


# ---- files and words ----


def test_files_record_and_residual_maps(axial, sagittal, tmp_path, capsys):
    out = tmp_path / "out.nii.gz"
    assert run("upsample", axial, out, "--with", sagittal, "--method", "inverse", "--maps") == 0
    told = capsys.readouterr().err
    assert f"of {sagittal}" in told
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["arguments"]["with"] == [str(sagittal)]
    assert record["others"][0]["input"]["sha256"]
    left = nib.load(tmp_path / "out_residual_2.nii.gz")
    assert left.shape == nib.load(sagittal).shape
    assert np.allclose(left.affine, nib.load(sagittal).affine, atol=1e-4)
    rms = np.sqrt(np.mean(left.get_fdata() ** 2) / record["others"][0]["share_counted"])
    assert rms == pytest.approx(record["others"][0]["residual"]["rms"], rel=1e-3)


def test_the_dry_run_says_where_the_other_scan_lies(axial, sagittal, tmp_path, capsys):
    flags = ["--with", sagittal, "--method", "inverse", "--dry-run"]
    assert run("upsample", axial, tmp_path / "out.nii.gz", *flags) == 0
    told = capsys.readouterr().err
    assert "placed by its header, correlation 1.00" in told
    assert not (tmp_path / "out.nii.gz").exists()


def test_a_thickness_given_describes_the_first_scan(tmp_path, axial):
    bare = scan_file(tmp_path / "bare.nii.gz", 0, sidecar=None)
    result = throughplane.super_resolve(axial, others=[bare], method="inverse", thickness_mm=2.9)
    assert result.record["acquisition"]["thickness_mm"] == 2.9
    assert result.record["others"][0]["acquisition"]["thickness_mm"] == pytest.approx(3.5)
    (note,) = (warning for warning in result.record["warnings"] if "ASSUMING NO GAP" in warning)
    assert note.startswith(f"{bare}: ")
    assert "its sidecar can say it" in note


# ---- refusals ----


def refusal(capsys, tmp_path: Path, code: int, *argv: object) -> str:
    before = {path.name for path in tmp_path.iterdir()}
    assert run("upsample", *argv) == code
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == before
    return told


def other_contrast(path: Path) -> Path:
    inverted = replace(HEAD, data=np.where(HEAD.data > 50, 900 - HEAD.data, 0).astype(np.float32))
    return scan_file(path, 0, head=inverted)


def far_away(path: Path) -> Path:
    affine = HEAD.affine.copy()
    affine[0, 3] += 400
    return scan_file(path, 0, head=replace(HEAD, affine=affine))


def isotropic(path: Path) -> Path:
    return save(path, HEAD.data, HEAD.affine)


def series(path: Path) -> Path:
    return save(path, np.stack([HEAD.data[::3]] * 2, axis=-1), HEAD.affine @ np.diag([3.0, 1, 1, 1]))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (other_contrast, "its intensities do not follow those of the first scan"),
        (far_away, "hardly overlaps with the first scan"),
        (isotropic, "the scan is isotropic"),
        (series, "holds 2 volumes; choose one with --volume 0..1; flags about the acquisition describe the first scan"),
        (lambda path: path, "does not exist"),
    ],
    ids=["other contrast", "no overlap", "isotropic", "4-D", "missing"],
)
@pytest.mark.parametrize("align", [(), ("--align",)], ids=["header", "align"])
def test_scans_that_do_not_go_together_are_refused(axial, tmp_path, capsys, other, message, align):
    path = other(tmp_path / "other.nii.gz")
    told = refusal(capsys, tmp_path, 3, axial, tmp_path / "out.nii.gz", "--with", path, "--method", "inverse", *align)
    assert f"--with {path}: " in told
    assert message in told


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--method", "cubic"), "--with would be ignored: --method cubic"),
        (("--method", "smore"), "--with would be ignored: --method smore"),
        (("--no-consistent",), "--with and --no-consistent contradict"),
        (("--save-network", "net.safetensors"), "--with trains one for every scan"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_flags_that_do_not_go_with_several_scans(axial, sagittal, tmp_path, capsys, flags, message):
    told = refusal(capsys, tmp_path, 2, axial, tmp_path / "out.nii.gz", "--with", sagittal, *flags)
    assert message in told


def test_align_needs_another_scan(axial):
    with pytest.raises(FlagConflict, match="--align would be ignored without --with"):
        throughplane.super_resolve(axial, align=True, method="inverse")


def test_another_scan_is_not_overwritten(axial, sagittal, tmp_path, capsys):
    told = refusal(capsys, tmp_path, 3, axial, sagittal, "--with", sagittal, "--method", "inverse", "--force")
    assert "would overwrite an input" in told


def test_an_image_in_memory_is_named_in_its_refusal(axial):
    with pytest.raises(InputRefused, match="--with image: "):
        throughplane.super_resolve(axial, others=[placed_image(HEAD.data, HEAD.affine)], method="inverse")
