"""Every method on simulated thick-slice scans of thin volumes never trained on.

    python benchmarks/methods.py OUT.json THIN.nii.gz... [--grid 3|0,4|1,5|0,5|1.5,8|0] [--presets fast,standard]
        [--methods cubic,inverse,smore,scratch,eclare,estimated] [--threads 2]

Every case is simulated along the superior-inferior axis with a gaussian profile, reconstructed by each method in a
process of its own (so that peak memory is that of the method), and scored in the head mask with the data range of the
truth in it (0.1 to 99.9 %). `scratch` is eclare with --init none; `estimated` is eclare with --profile estimate, which
knows neither thickness nor profile; `smore` is told the thickness but assumes an SLR profile. OUT.json is written after
every case, and cases in it are not repeated. The table is printed at the end; `--table-only` prints it without running
anything.
"""

import argparse
import json
import multiprocessing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from cases import case_of

from eclare import estimate_profile
from throughplane.outputs import json_writer, write_all
from throughplane.pipeline import Acquired, How, carry_out, plan, read_scan

FIXED = ("cubic", "inverse")
LEARNED = {
    "smore": {"method": "smore"},
    "scratch": {"method": "eclare", "init": "none"},
    "eclare": {"method": "eclare"},
    "estimated": {"method": "eclare", "estimator": estimate_profile},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("thin", type=Path, nargs="+")
    parser.add_argument("--grid", default="3|0,4|1,5|0,5|1.5,8|0", help="thickness|gap in mm, comma separated")
    parser.add_argument("--methods", default="cubic,inverse,smore,scratch,eclare")
    parser.add_argument("--presets", default="standard")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--table-only", action="store_true")
    arguments = parser.parse_args()
    methods = arguments.methods.split(",")
    columns = {method: {"method": method} for method in methods if method in FIXED}
    for preset in arguments.presets.split(","):
        columns |= {
            f"{method} {preset}": {**LEARNED[method], "preset": preset} for method in methods if method in LEARNED
        }
    results: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    for cell in arguments.grid.split(",") if not arguments.table_only else []:
        for path in arguments.thin:
            for column, how in columns.items():
                key = f"{path.name.split('.')[0]} {cell} {column}"
                if key not in results:
                    results[key] = in_own_process(path, cell, {**how, "threads": arguments.threads})
                    write_all({arguments.out: json_writer(results)})
                    print(key, results[key], flush=True)
    print(table(results))


def in_own_process(path: Path, cell: str, how: dict[str, Any]) -> dict[str, Any]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(run_case, (path, cell, how))


def run_case(path: Path, cell: str, how: dict[str, Any]) -> dict[str, Any]:
    """Simulate, reconstruct, score."""
    case, estimator = case_of(path, cell), how.pop("estimator", None)
    thickness_mm = float(cell.split("|")[0]) if estimator is None else None
    read = read_scan(case.scan.image(), Acquired(thickness_mm, axis=case.axis, estimator=estimator))
    result = carry_out(plan(read, How(spacing_mm=case.stack.selection.thin.spacing_mm, **how)))
    record = result.record
    return {
        **asdict(case.score_volume(result.volume)),
        "shape": record["input"]["shape"],
        "seconds": record["seconds"],
        "fwhm_mm": round(record["acquisition"]["profile_fwhm_mm"], 3),
        "peak_gib": round(record["peak_memory_bytes"] / 2**30, 2),
        "residual": record["residual"]["relative_to_scan"],
        **{k: record["method_details"][k] for k in ("steps", "stopped_early") if k in record["method_details"]},
    }


def table(results: dict[str, Any]) -> str:
    """Markdown: a row per case, and the mean gain over cubic of every column of results."""
    columns = list(dict.fromkeys(key.split(" ", 2)[2] for key in results))
    cases = list(dict.fromkeys(" ".join(key.split(" ")[:2]) for key in results))
    lines = ["| volume | mm | " + " | ".join(columns) + " |", "|---" * (2 + len(columns)) + "|"]
    for case in cases:
        cells = [results.get(f"{case} {column}") for column in columns]
        shown = [f"{c['psnr_db']:.2f} / {c['ssim']:.3f} ({c['seconds']:.0f} s)" if c else "" for c in cells]
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
        gains.append(f"{psnr:+.2f} dB / {ssim:+.3f}")
    lines.append("| **mean over cubic** | | " + " | ".join(gains) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
