"""`throughplane demo`: a packaged head made thick, and thin again."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from rich.table import Table

from forward_models import Gaussian, InputRefused, Volume, truth_for, volume_from_image
from throughplane.methods import MethodName, Preset
from throughplane.metrics import Scores, data_range_of, head_mask, score
from throughplane.outputs import check_targets, image_writer, json_writer, write_all
from throughplane.pictures import comparison
from throughplane.pipeline import Acquired, Result, carry_out, plan, read_scan
from throughplane.simulation import Simulation, simulate_volume
from throughplane.terminal import Teller

METHODS: tuple[MethodName, ...] = ("cubic", "inverse", "eclare")


def run_demo(folder: Path, thickness_mm: float, gap_mm: float, preset: Preset, force: bool, teller: Teller) -> None:
    """Simulate a scan of the ICBM 152 head, super-resolve it by every method, score and show the results.

    Raises:
        InputRefused: the folder holds an earlier demo and `force` is not given, or nilearn is not installed.
    """
    files = {name: folder / name for name in ("scan.nii.gz", "scan.json", "comparison.png", "scores.json")}
    folder.mkdir(parents=True, exist_ok=True)
    check_targets([*files.values(), *(folder / f"{method}.nii.gz" for method in METHODS)], [], force)
    head = packaged_head()
    profile = Gaussian(thickness_mm)
    scan, sidecar = simulate_volume(head, "ICBM 152 2009a symmetric T1w", Simulation(profile, gap_mm, 2, 0.0, None))
    write_all({files["scan.nii.gz"]: image_writer(scan.image()), files["scan.json"]: json_writer(sidecar)})
    truth = np.asarray(truth_for(head, profile, gap_mm, 2).data, np.float32)
    mask = head_mask(truth)
    data_range = data_range_of(truth, mask)
    results: dict[str, Result] = {}
    scores: dict[str, Scores] = {}
    read = read_scan(files["scan.nii.gz"], Acquired())
    for method in METHODS:
        chosen = preset if method == "eclare" else None
        with teller.progress() as progress:
            results[method] = carry_out(plan(read, method, 1.0, chosen, "auto", None, None), progress)
        scores[method] = score(truth, results[method].volume.data, mask, data_range)
        write_all({folder / f"{method}.nii.gz": image_writer(results[method].image)})
    title = f"ICBM 152 T1w, {thickness_mm:g}|{gap_mm:g} mm, gaussian profile, back to 1 mm"
    captions = {name: f"{name}  {s.psnr_db:.2f} dB, SSIM {s.ssim:.3f}" for name, s in scores.items()}
    volumes = {name: result.volume.data for name, result in results.items()}
    write_all(
        {
            files["comparison.png"]: lambda path: comparison(truth, volumes, captions, title, path),
            files["scores.json"]: json_writer(_record(title, scores, results, data_range)),
        }
    )
    teller.table(_table(title, scores, results))
    teller.written(list(files.values()), {})


def packaged_head() -> Volume:
    """The ICBM 152 T1w template at 1 mm that nilearn ships (skull-stripped, so it has no face)."""
    try:
        from nilearn.datasets import load_mni152_template
    except ImportError:
        raise InputRefused("the demo needs nilearn; install throughplane[demo]") from None
    template: nib.Nifti1Image = load_mni152_template(resolution=1)
    image = nib.Nifti1Image(np.asarray(template.get_fdata(), np.float32) * 1000, template.affine)
    image.header.set_xyzt_units("mm")
    return volume_from_image(image, name="ICBM 152 T1w")


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
