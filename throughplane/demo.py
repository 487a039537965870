"""`throughplane demo`: a packaged head made thick, and thin again."""

import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from rich.table import Table

from forward_models import (
    Gaussian,
    InputRefused,
    Sidecar,
    Volume,
    acquisition_of,
    thin_grid_for,
    truth_for,
    volume_from_image,
)
from throughplane.metrics import Scores, data_range_of, head_mask, score
from throughplane.names import MethodName, Preset
from throughplane.outputs import check_targets, image_writer, json_writer, write_all
from throughplane.pictures import comparison, nearest_slices
from throughplane.pipeline import How, Result, carry_out, plan
from throughplane.reading import Scan
from throughplane.simulation import Simulation, simulate_volume
from throughplane.terminal import Teller

METHODS: tuple[MethodName, ...] = ("cubic", "inverse", "eclare")
THIN_MM = 1.0  # as the packaged head is


def run_demo(folder: Path, thickness_mm: float, gap_mm: float, preset: Preset, force: bool, teller: Teller) -> None:
    """Simulate a scan of the ICBM 152 head, super-resolve it by every method, score and show the results.

    Files are written when all is done, or not at all.

    Raises:
        InputRefused: the folder cannot be made, or holds an earlier demo and `force` is not given.
    """
    _check_folder(folder, force)
    head, profile = packaged_head(), Gaussian(thickness_mm)
    scan, sidecar = simulate_volume(head, "ICBM 152 2009a symmetric T1w", Simulation(profile, gap_mm, 2, 0.0, None))
    truth = np.asarray(truth_for(head, profile, gap_mm, 2).data, np.float32)
    mask = head_mask(truth)
    data_range = data_range_of(truth, mask)
    results: dict[str, Result] = {}
    scores: dict[str, Scores] = {}
    acquisition = acquisition_of(scan, Sidecar(thickness_mm, thickness_mm + gap_mm, "2D"))
    read = Scan("scan.nii.gz", scan, acquisition)
    for method in METHODS:
        planned = plan(read, How(method, THIN_MM, preset if method == "eclare" else None))
        with teller.progress() as progress:
            results[method] = carry_out(planned, progress)
        scores[method] = score(truth, results[method].volume.data, mask, data_range)
    title = f"ICBM 152 T1w, {thickness_mm:g}|{gap_mm:g} mm, gaussian profile, back to {THIN_MM:g} mm"
    captions = {name: f"{one.psnr_db:.2f} dB, SSIM {one.ssim:.3f}" for name, one in scores.items()}
    captions["scan"] = f"{acquisition.slices.count} slices of {thickness_mm:g} mm"
    shown = {"scan": nearest_slices(scan.data, acquisition.slices, thin_grid_for(acquisition.slices, THIN_MM))}
    shown |= {name: result.volume.data for name, result in results.items()}
    writers = {
        folder / "scan.nii.gz": image_writer(scan.image()),
        folder / "scan.json": json_writer(sidecar),
        **{folder / f"{method}.nii.gz": image_writer(result.image) for method, result in results.items()},
        folder / "comparison.png": lambda path: comparison(truth, shown, captions, title, path),
        folder / "scores.json": json_writer(_record(title, scores, results, data_range)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_all(writers)
    teller.table(_table(title, scores, results))
    teller.written(list(writers), {})


def packaged_head() -> Volume:
    """The ICBM 152 T1w template at 1 mm that nilearn ships (skull-stripped, so it has no face)."""
    from nilearn.datasets import load_mni152_template

    template: nib.Nifti1Image = load_mni152_template(resolution=1)
    image = nib.Nifti1Image(np.asarray(template.get_fdata(), np.float32) * 1000, template.affine)
    image.header.set_xyzt_units("mm")
    return volume_from_image(image, name="ICBM 152 T1w")


def _check_folder(folder: Path, force: bool) -> None:
    """Whatever would stop the files from being written, before the work starts."""
    if folder.is_dir():
        names = (
            "scan.nii.gz",
            "scan.json",
            *(f"{method}.nii.gz" for method in METHODS),
            "comparison.png",
            "scores.json",
        )
        check_targets([folder / name for name in names], [], force)
        return
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not there.is_dir():
        raise InputRefused(f"folder {folder} cannot be made: {there} is a file; give another name")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputRefused(f"folder {folder} cannot be made: {there} is not writable; give another name")


def _table(title: str, scores: dict[str, Scores], results: dict[str, Result]) -> Table:
    table = Table(
        title=title, caption="PSNR and 3-D SSIM in the head mask; data range 0.1 to 99.9 % of the truth in it"
    )
    for name in ("method", "PSNR dB", "SSIM", "|Wx-y| / |y|", "seconds"):
        table.add_column(name, justify="left" if name == "method" else "right")
    for name, one in scores.items():
        record = results[name].record
        relative = record["residual"]["relative_to_scan"]
        table.add_row(name, f"{one.psnr_db:.2f}", f"{one.ssim:.4f}", f"{relative:.1e}", f"{record['seconds']:.0f}")
    return table


def _record(title: str, scores: dict[str, Scores], results: dict[str, Result], data_range: float) -> dict[str, Any]:
    return {
        "title": title,
        "mask": "head",
        "data_range": data_range,
        "methods": {
            name: {"psnr_db": one.psnr_db, "ssim_3d": one.ssim, **results[name].record} for name, one in scores.items()
        },
    }
