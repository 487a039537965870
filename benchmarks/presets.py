"""What each preset costs and gains: minutes, memory, and dB against `best`.

    python benchmarks/presets.py OUT.json THIN.nii.gz... [--grid 5|0] [--presets fast,standard,best] [--threads 2]

Cases are simulated, reconstructed and scored as in `eclare_vs_cubic.py`, each in a process of its own, one after the
other, so that minutes are those of an otherwise idle machine. One validation volume tells the order of things:
coreg_T1w takes half an hour or so. OUT.json is written after every case, and cases in it are not repeated.
"""

import argparse
import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
from eclare_vs_cubic import run_case

from throughplane.outputs import json_writer, write_all

REFERENCE = "best"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("thin", type=Path, nargs="+")
    parser.add_argument("--grid", default="5|0", help="thickness|gap in mm, comma separated")
    parser.add_argument("--presets", default="fast,standard,best")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    results: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    presets = arguments.presets.split(",")
    cases = [(path, cell) for path in arguments.thin for cell in arguments.grid.split(",")]
    for path, cell in cases:
        for preset in presets:
            key = f"{path.name.split('.')[0]} {cell} {preset} {arguments.threads} threads"
            if key not in results:
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    results[key] = pool.apply(run_case, (path, cell, "eclare", preset, arguments.threads))
                write_all({arguments.out: json_writer(results)})
                print(key, results[key], flush=True)
    print(table(results, [f"{path.name.split('.')[0]} {cell}" for path, cell in cases], presets, arguments.threads))


def table(results: dict[str, Any], cases: list[str], presets: list[str], threads: int) -> str:
    """Markdown: a row per preset, means over the cases."""
    lines = ["| preset | minutes | peak GiB | PSNR / SSIM | against best |", "|---|---|---|---|---|"]
    for preset in presets:
        found = [results[f"{case} {preset} {threads} threads"] for case in cases]
        best = [results.get(f"{case} {REFERENCE} {threads} threads") for case in cases]
        minutes, peak = np.mean([r["seconds"] for r in found]) / 60, max(r["peak_gib"] for r in found)
        psnr, ssim = (np.mean([r[name] for r in found]) for name in ("psnr_db", "ssim"))
        pairs = [(r, b) for r, b in zip(found, best, strict=True) if b is not None]
        lost = f"{np.mean([r['psnr_db'] - b['psnr_db'] for r, b in pairs]):+.2f} dB" if pairs else ""
        lines.append(f"| {preset} | {minutes:.1f} | {peak:.2f} | {psnr:.2f} / {ssim:.4f} | {lost} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
