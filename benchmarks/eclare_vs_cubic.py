"""Cubic, inverse and ECLARE on simulated thick-slice scans of thin volumes never trained on.

    python benchmarks/eclare_vs_cubic.py OUT.json THIN.nii.gz... [--grid 3|0,4|1,5|0,5|1.5] [--preset standard]

Every case is simulated along the superior-inferior axis with a gaussian profile, reconstructed by each method in a
process of its own (so that peak memory is that of the method), and scored in the head mask with the data range of the
truth in it (0.1 to 99.9 %). OUT.json is written after every case, and cases in it are not repeated. The table is
printed at the end; `--table-only` prints it without running anything.
"""

import argparse
import json
import multiprocessing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from forward_models import Gaussian, Volume, read_volume, simulate, truth_for
from throughplane.metrics import data_range_of, head_mask, score
from throughplane.outputs import json_writer, write_all
from throughplane.pipeline import super_resolve

METHODS = ("cubic", "inverse", "eclare")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("thin", type=Path, nargs="+")
    parser.add_argument("--grid", default="3|0,4|1,5|0,5|1.5", help="thickness|gap in mm, comma separated")
    parser.add_argument("--preset", default="standard")
    parser.add_argument("--table-only", action="store_true")
    arguments = parser.parse_args()
    results: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    for path in arguments.thin if not arguments.table_only else []:
        for cell in arguments.grid.split(","):
            for method in METHODS:
                key = f"{path.name.split('.')[0]} {cell} {method}" + (f" {arguments.preset}" * (method == "eclare"))
                if key not in results:
                    results[key] = in_own_process(path, cell, method, arguments.preset)
                    write_all({arguments.out: json_writer(results)})
                    print(key, results[key], flush=True)
    print(table(results))


def in_own_process(path: Path, cell: str, method: str, preset: str) -> dict[str, Any]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(run_case, (path, cell, method, preset))


def run_case(path: Path, cell: str, method: Any, preset: Any, threads: int | None = None) -> dict[str, Any]:
    """Simulate, reconstruct, score."""
    thickness, gap = (float(number) for number in cell.split("|"))
    thin = read_volume(path)
    axis = int(np.argmax(np.abs(nib.io_orientation(thin.affine)[:, 0] == 2)))
    profile = Gaussian(thickness)
    scan: Volume = simulate(thin, profile, gap, axis=axis)
    result = super_resolve(
        scan.image(),
        method=method,
        thickness_mm=thickness,
        axis=axis,
        spacing_mm=thin.voxel_mm[axis],
        preset=preset if method == "eclare" else None,
        threads=threads,
    )
    truth = np.asarray(truth_for(thin, profile, gap, axis).data, np.float32)
    mask = head_mask(truth)
    scores = score(truth, result.volume.data, mask, data_range_of(truth, mask))
    record = result.record
    return {
        **asdict(scores),
        "shape": record["input"]["shape"],
        "seconds": record["seconds"],
        "peak_gib": round(record["peak_memory_bytes"] / 2**30, 2),
        "residual": record["residual"]["relative_to_scan"],
        **{k: record["method_details"][k] for k in ("steps", "stopped_early") if k in record["method_details"]},
    }


def table(results: dict[str, Any]) -> str:
    """Markdown: a row per case, and the mean gain over cubic of every column of results."""
    columns = sorted({key.split(" ", 2)[2] for key in results}, key=lambda name: (METHODS.index(name.split()[0]), name))
    cases = list(dict.fromkeys(" ".join(key.split(" ")[:2]) for key in results))
    lines = ["| volume | mm | " + " | ".join(columns) + " |", "|---" * (2 + len(columns)) + "|"]
    for case in cases:
        cells = [results.get(f"{case} {column}") for column in columns]
        shown = [
            f"{c['psnr_db']:.2f} / {c['ssim']:.4f} ({c['seconds']:.0f} s, {c['peak_gib']:.1f} GiB)" if c else ""
            for c in cells
        ]
        volume, cell = case.split(" ")
        lines.append(f"| {volume} | {cell.replace('|', chr(92) + '|')} | " + " | ".join(shown) + " |")
    gains = []
    for column in columns:
        pairs = [
            (results[f"{c} {column}"], results[f"{c} cubic"])
            for c in cases
            if f"{c} {column}" in results and f"{c} cubic" in results
        ]
        psnr, ssim = (np.mean([a[k] - b[k] for a, b in pairs]) if pairs else np.nan for k in ("psnr_db", "ssim"))
        gains.append(f"{psnr:+.2f} dB / {ssim:+.4f}")
    lines.append("| mean over cubic | | " + " | ".join(gains) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
