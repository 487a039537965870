"""`project`: any thin volume is made to explain the scan, in files as they lie on the disk."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import eclare
import throughplane
from forward_models import (
    Gaussian,
    InputRefused,
    SliceGrid,
    read_volume,
    simulate,
    slice_selection,
    volume_from_image,
    write_image,
)
from tests.conftest import head_phantom, oblique_affine, save
from throughplane.cli import main
from throughplane.pipeline import Result
from throughplane.projection import project
from throughplane.reading import Acquired, Scan, read_scan

CONSISTENT = 1e-5  # float32 files: 6e-8 per voxel, of which W averages some ten; relative to the scan

W_ROUNDING = 2e-7  # of the scan: affines in files are float32, and so is the W that follows from them

# thickness|gap, back to 1 mm; the last three are the factors that are no whole numbers
SEPARATE = [(3, 0), (4, 1), (5, 0), (5, 1.5), (8, 0), (7, 2.5), (1.5, 0), (2.3, 0), (4.4, 0)]
OVERLAPPING = (5, -1)
METHODS = ("cubic", "inverse", "eclare")


@pytest.fixture
def tiny(monkeypatch) -> None:
    """Preset `fast` trains a network of a few hundred weights for three steps."""
    config = replace(eclare.PRESETS["fast"], steps=3, channels=4, blocks=1)
    monkeypatch.setattr(eclare, "PRESETS", {**eclare.PRESETS, "fast": config})


def noisy_scan(folder: Path, thickness: float, gap: float) -> Path:
    """A simulated, oblique scan along array axis 1, with noise that no thin volume expects, and its sidecar."""
    thin = volume_from_image(nib.Nifti1Image(head_phantom((41, 48, 40)), oblique_affine((1, 1, 1))))
    scan = simulate(thin, Gaussian(float(thickness)), gap, axis=1)
    noise = np.random.default_rng(3).normal(0, 20, scan.data.shape).astype(np.float32)
    return save(folder / "scan.nii.gz", scan.data + noise, scan.affine, json.dumps({"SliceThickness": thickness}))


def stated(path: Path) -> Scan:
    return read_scan(path, Acquired())


def projected_file(scan: Path, thin: nib.Nifti1Image, name: str = "thin") -> tuple[Path, Path, Result]:
    """A thin volume written to a file, projected from that file, and written again."""
    before, after = scan.with_name(f"{name}.nii.gz"), scan.with_name(f"{name}_projected.nii.gz")
    write_image(thin, before)
    result = project(read_volume(before), str(before), stated(scan))
    write_image(result.image, after)
    return before, after, result


def mismatch(thin: Path, scan: Path, thickness: float, axis: int = 1) -> np.ndarray:
    """W x - y of two files, in float64, with W built from the thickness and the affines alone."""
    x, y = nib.load(thin), nib.load(scan)
    normal = y.affine[:3, axis] / np.linalg.norm(y.affine[:3, axis])
    grids = []
    for image in (y, x):
        middle = (image.affine[:3, 3] + image.affine[:3, axis] * (image.shape[axis] - 1) / 2) @ normal
        grids.append(SliceGrid(image.shape[axis], float(image.affine[:3, axis] @ normal), float(middle)))
    w = slice_selection(*grids, Gaussian(thickness)).weights.numpy()
    return np.moveaxis(np.tensordot(w, x.get_fdata(), axes=(1, axis)), 0, axis) - y.get_fdata()


def check_consistent(thin: Path, scan: Path, thickness: float) -> None:
    left, y = mismatch(thin, scan, thickness), nib.load(scan).get_fdata()
    relative, worst = np.linalg.norm(left) / np.linalg.norm(y), np.abs(left).max() / np.abs(y).max()
    assert max(relative, worst) <= CONSISTENT, f"W x differs from y by {relative:.1e} of the scan"


@pytest.mark.parametrize(("thickness", "gap"), SEPARATE)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.usefixtures("tiny")
def test_projected_files_explain_the_scan(tmp_path, method, thickness, gap):
    scan = noisy_scan(tmp_path, thickness, gap)
    preset = "fast" if method == "eclare" else None
    thin = throughplane.super_resolve(scan, method=method, preset=preset, spacing_mm=1.0).image
    _, after, result = projected_file(scan, thin)
    check_consistent(after, scan, float(thickness))
    assert result.record["residual"]["relative_to_scan"] <= CONSISTENT
    assert result.record["residual"]["mismatch_left_at_most"] == 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.usefixtures("tiny")
def test_overlapping_slices_are_explained_to_the_stated_damping(tmp_path, method):
    thickness, gap = OVERLAPPING
    scan = noisy_scan(tmp_path, thickness, gap)
    preset = "fast" if method == "eclare" else None
    thin = throughplane.super_resolve(scan, method=method, preset=preset, spacing_mm=1.0).image
    before, after, result = projected_file(scan, thin)
    at_most = result.record["residual"]["mismatch_left_at_most"]
    assert 0 < at_most < 0.5
    left, was = (np.linalg.norm(mismatch(file, scan, float(thickness))) for file in (after, before))
    y = np.linalg.norm(nib.load(scan).get_fdata())
    assert left <= at_most * was + CONSISTENT * y


@pytest.mark.parametrize(("thickness", "gap"), [(5, 0), (5, 1.5)])
def test_what_was_not_projected_does_not_explain_the_scan(tmp_path, thickness, gap):
    scan = noisy_scan(tmp_path, thickness, gap)
    thin = throughplane.super_resolve(scan, method="cubic", spacing_mm=1.0).image
    before, _, _ = projected_file(scan, thin)
    with pytest.raises(AssertionError, match="W x differs from y"):
        check_consistent(before, scan, float(thickness))


def test_a_w_of_another_thickness_does_not_explain_the_scan(tmp_path):
    """The check sees a profile that is 4 % too wide."""
    scan = noisy_scan(tmp_path, 5, 1.5)
    _, after, _ = projected_file(scan, throughplane.super_resolve(scan, method="cubic", spacing_mm=1.0).image)
    with pytest.raises(AssertionError, match="W x differs from y"):
        check_consistent(after, scan, 5.2)


def test_projecting_twice_changes_nothing_more(tmp_path):
    scan = noisy_scan(tmp_path, 5, 1.5)
    thin = throughplane.super_resolve(scan, method="cubic", spacing_mm=1.0).image
    _, once, _ = projected_file(scan, thin)
    _, twice, _ = projected_file(scan, nib.load(once), "again")
    first, second = nib.load(once).get_fdata(), nib.load(twice).get_fdata()
    assert np.abs(second - first).max() <= CONSISTENT * np.abs(first).max()


def test_only_what_the_scan_measured_is_replaced(tmp_path):
    """A thin volume that explains the scan already, with any null-space detail, comes back as it was."""
    head = head_phantom((20, 48, 18))
    thin = volume_from_image(nib.Nifti1Image(head, oblique_affine((1, 1, 1))))
    scan = simulate(thin, Gaussian(5.0), 1.0, axis=1)
    path = save(tmp_path / "scan.nii.gz", scan.data, scan.affine, '{"SliceThickness": 5}')
    _, after, _ = projected_file(path, nib.Nifti1Image(head, thin.affine))
    assert np.abs(nib.load(after).get_fdata() - head).max() <= CONSISTENT * head.max()


def random_thin(scan: Path, thin_mm: float = 1.0) -> nib.Nifti1Image:
    """Noise on the thin grid of a scan."""
    image = throughplane.super_resolve(scan, method="cubic", spacing_mm=thin_mm).image
    noise = np.random.default_rng(0).normal(300, 100, image.shape).astype(np.float32)
    return nib.Nifti1Image(noise, image.affine)


@pytest.mark.parametrize(
    "orientation",
    [[[0, 1], [1, -1], [2, 1]], [[2, 1], [0, 1], [1, 1]], [[1, -1], [2, 1], [0, -1]]],
    ids=["flipped", "permuted", "both"],
)
def test_the_order_that_the_thin_volume_is_stored_in_is_kept(tmp_path, orientation):
    scan = noisy_scan(tmp_path, 4, 1)
    thin = random_thin(scan)
    _, straight, _ = projected_file(scan, thin)
    stored = thin.as_reoriented(np.array(orientation))
    _, reordered, _ = projected_file(scan, stored, "stored")
    got, expected = nib.load(reordered), nib.load(straight).as_reoriented(np.array(orientation))
    assert np.allclose(got.affine, stored.affine, atol=1e-5)  # rounded to float32 once more
    # the grid's phase is read off another float32 affine
    assert np.abs(got.get_fdata() - expected.get_fdata()).max() <= CONSISTENT * np.abs(expected.get_fdata()).max()


@pytest.mark.parametrize("shift_mm", [0.37, -0.4])
def test_a_thin_volume_may_start_anywhere_along_the_slice_normal(tmp_path, shift_mm):
    """Of 4 slices more at either end, not on the phase of the scan."""
    scan = noisy_scan(tmp_path, 5, 0)
    thin = random_thin(scan)
    affine = thin.affine.copy()
    affine[:3, 3] += (shift_mm - 4.0) * affine[:3, 1]
    wider = np.pad(thin.get_fdata(), ((0, 0), (4, 4), (0, 0)), mode="edge").astype(np.float32)
    _, after, _ = projected_file(scan, nib.Nifti1Image(wider, affine))
    check_consistent(after, scan, 5.0)
    assert np.allclose(nib.load(after).affine, affine, atol=1e-4)


def without_its_first_slices(thin: nib.Nifti1Image) -> nib.Nifti1Image:
    return nib.Nifti1Image(thin.get_fdata()[:, 8:].astype(np.float32), thin.affine)


def rotated(thin: nib.Nifti1Image) -> nib.Nifti1Image:
    return nib.Nifti1Image(thin.get_fdata(), oblique_affine((1, 1, 1), (0.6, 0, 0)))


def cropped(thin: nib.Nifti1Image) -> nib.Nifti1Image:
    return nib.Nifti1Image(thin.get_fdata()[2:], thin.affine)


def holed(thin: nib.Nifti1Image) -> nib.Nifti1Image:
    data = thin.get_fdata()
    data[1, 2, 3] = np.nan
    return nib.Nifti1Image(data, thin.affine)


def beside(thin: nib.Nifti1Image) -> nib.Nifti1Image:
    affine = thin.affine.copy()
    affine[:3, 3] += 0.02 * affine[:3, 0]
    return nib.Nifti1Image(thin.get_fdata(), affine)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rotated, "rotated against the scan"),
        (cropped, r"has \(39, 40\) voxels in plane, the scan \(41, 40\)"),
        (beside, "lies 0.02 mm beside the scan in plane"),
        (without_its_first_slices, "outside the .* mm of the thin volume"),
        (holed, r"thin holds 1 voxels that are NaN or Inf, the first at index \(1, 2, 3\)"),
    ],
)
def test_volumes_that_cannot_be_projected_are_refused(tmp_path, change: Callable, message):
    scan = noisy_scan(tmp_path, 5, 0)
    thin = volume_from_image(change(random_thin(scan)))
    with pytest.raises(InputRefused, match=message):
        project(thin, "thin", stated(scan))


def test_the_record_says_what_was_found_and_what_is_left(tmp_path):
    scan = noisy_scan(tmp_path, 4, 1)
    before, after, result = projected_file(scan, random_thin(scan))
    record = json.loads(json.dumps(result.record, allow_nan=False))
    assert record["method"] == "project"
    assert record["thin_input"]["file"] == str(before)
    assert record["input"]["file"] == str(scan)
    y = np.sqrt(np.mean(nib.load(scan).get_fdata() ** 2))
    for file, suffix in ((before, "_before"), (after, "")):
        left = mismatch(file, scan, 4.0)
        assert record["residual"]["rms" + suffix] == pytest.approx(np.sqrt(np.mean(left**2)), abs=W_ROUNDING * y)
    residual = result.residual
    assert np.allclose(residual.affine, nib.load(scan).affine, atol=1e-4)
    assert np.abs(residual.get_fdata()).max() <= CONSISTENT * y


@pytest.mark.parametrize("dtype", ["float32", "like-input"])
@pytest.mark.parametrize(
    ("command", "thin_order"),
    [("upsample", None), ("project", [[0, 1], [1, 1], [2, 1]]), ("project", [[2, 1], [0, -1], [1, -1]])],
    ids=["upsample", "project", "project, other order"],
)
def test_the_residual_is_that_of_the_file(tmp_path, dtype, command, thin_order):
    """Whole numbers miss the scan by thousands of times as much as float32 does."""
    scan = noisy_scan(tmp_path, 4, 1)
    stored = read_volume(scan)
    save(scan, np.round(stored.data).astype(np.int16), stored.affine)
    out = tmp_path / "out.nii.gz"
    argv = ["upsample", scan, out, "--method", "inverse", "--spacing", 1]
    if command == "project":
        thin = random_thin(scan).as_reoriented(np.array(thin_order))
        argv = [
            "project",
            save(tmp_path / "thin.nii", np.asarray(thin.dataobj).astype(np.int16), thin.affine),
            scan,
            out,
        ]
    assert main([*map(str, argv), "--dtype", dtype, "-q"]) == 0
    left = mismatch(in_order_of(scan, out), scan, 4.0)
    stated = json.loads((tmp_path / "out.json").read_text())["residual"]
    rms, y = (float(np.sqrt(np.mean(values**2))) for values in (left, nib.load(scan).get_fdata()))
    assert stated["rms"] == pytest.approx(rms, rel=1e-3, abs=W_ROUNDING * y)
    assert stated["relative_to_scan"] == pytest.approx(rms / y, rel=1e-3, abs=W_ROUNDING)
    assert (rms > 0.05) == (dtype == "like-input")


def in_order_of(scan: Path, thin: Path) -> Path:
    """The thin file with its array axes in the order and direction of those of the scan."""
    y, x = nib.load(scan), nib.load(thin)
    there, here = nib.io_orientation(y.affine), nib.io_orientation(x.affine)
    reordered = thin.with_name("reordered.nii")
    x.as_reoriented(nib.orientations.ornt_transform(here, there)).to_filename(reordered)
    return reordered
