"""Slice profiles estimated from simulated scans of thin volumes never trained on, and from real scans.

    python benchmarks/profile_estimation.py OUT.json THIN.nii.gz... [--estimator NAME] [--thick SCAN=MM...]
        [--table-only]

Every thin volume becomes a scan along the superior-inferior axis with each of 8 profiles at each of 3 spacings that are
at least half its FWHM. OUT.json is written after every case, and cases in it are not repeated. `--thick` adds real
scans and the thickness that their protocol says. Table and summary are printed at
the end.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from eclare import espreso, estimate_profile
from forward_models import Box, Gaussian, SliceProfile, Volume, acquisition_of, read_volume, simulate, slr
from throughplane.outputs import json_writer, write_all
from throughplane.profile import Estimator

PROFILES: tuple[SliceProfile, ...] = (
    *(Gaussian(mm) for mm in (2.0, 4.0, 8.0)),
    *(Box(mm) for mm in (3.0, 5.0, 9.0)),
    *(slr(mm) for mm in (3.0, 5.0)),
)
SPACINGS_MM = (8.0, 4.0, 2.0)
ESTIMATORS: dict[str, Estimator] = {
    "variograms": estimate_profile,
    "espreso": espreso,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("thin", type=Path, nargs="*")
    parser.add_argument("--thick", nargs="*", default=[], help="SCAN=MM")
    parser.add_argument("--estimator", choices=ESTIMATORS, default="variograms")
    parser.add_argument("--table-only", action="store_true")
    arguments = parser.parse_args()
    estimator = ESTIMATORS[arguments.estimator]
    results: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    for path, spacing, profile in cases(arguments.thin if not arguments.table_only else []):
        key = f"{path.name.split('.')[0]} {profile.name} {profile.fwhm_mm:g} {spacing:g}"
        if key not in results:
            tell(arguments.out, results, key, simulated(path, profile, spacing, estimator))
    for scan in arguments.thick if not arguments.table_only else []:
        name, thickness = scan.split("=")
        key = f"{Path(name).name.split('.')[0]} real {thickness}"
        if key not in results:
            tell(arguments.out, results, key, case(read_volume(Path(name)), None, float(thickness), estimator))
    print(table(results))


def cases(volumes: list[Path]) -> list[tuple[Path, float, SliceProfile]]:
    """Where the spacing is at least half the FWHM."""
    return [
        (path, spacing, profile)
        for path in volumes
        for spacing in SPACINGS_MM
        for profile in PROFILES
        if spacing >= profile.fwhm_mm / 2 * (1 - 1e-6)
    ]


def tell(out: Path, results: dict[str, Any], key: str, result: dict[str, Any]) -> None:
    results[key] = result
    write_all({out: json_writer(results)})
    print(key, result, flush=True)


def simulated(path: Path, profile: SliceProfile, spacing_mm: float, estimator: Estimator) -> dict[str, Any]:
    thin = read_volume(path)
    axis = int(np.argmax(np.abs(nib.io_orientation(thin.affine)[:, 0] == 2)))
    return case(simulate(thin, profile, spacing_mm - profile.fwhm_mm, axis=axis), axis, profile.fwhm_mm, estimator)


def case(scan: Volume, axis: int | None, truth_mm: float, estimator: Estimator) -> dict[str, Any]:
    """Estimate and compare."""
    acquisition = acquisition_of(scan, axis=axis)
    _, trace = estimator(scan, acquisition)
    return {
        "spacing_mm": round(acquisition.spacing_mm, 3),
        "truth_mm": truth_mm,
        "fwhm_mm": round(trace.fwhm_mm, 3),
        "repeatability_mm": [round(mm, 2) for mm in trace.repeatability_mm],
        "plausible_mm": [round(mm, 2) for mm in trace.plausible_mm],
        "sd_mm": round(trace.sd_mm, 3),
        "error": round(trace.fwhm_mm / truth_mm - 1, 4),
        "informative": trace.informative,
        "seconds": round(trace.seconds, 1),
    }


def table(results: dict[str, Any]) -> str:
    """Markdown: a row per case, then the summary."""
    lines = ["| case | truth | spacing | estimate | repeatability | plausible | error | told |", "|---" * 8 + "|"]
    for key, row in results.items():
        bands = (" to ".join(f"{mm:.2f}" for mm in row[name]) for name in ("repeatability_mm", "plausible_mm"))
        lines.append(
            f"| {key.rsplit(' ', 1)[0]} | {row['truth_mm']:g} | {row['spacing_mm']:g} | {row['fwhm_mm']:.2f} | "
            f"{' | '.join(bands)} | {100 * row['error']:+.0f} % | {'yes' if row['informative'] else 'no'} |"
        )
    grid = [row for key, row in results.items() if " real " not in key]
    for name, rows in {
        "all": grid,
        **{f"{mm:g} mm apart": [r for r in grid if r["spacing_mm"] == mm] for mm in SPACINGS_MM},
        "FWHM at least the spacing": [r for r in grid if r["truth_mm"] >= r["spacing_mm"]],
        "told by the scan": [r for r in grid if r["informative"]],
    }.items():
        if rows:
            lines.append("")
            lines.append(summary(name, rows))
    return "\n".join(lines)


def summary(name: str, rows: list[dict[str, Any]]) -> str:
    errors = np.abs([row["error"] for row in rows])
    within = np.mean([r["plausible_mm"][0] <= r["truth_mm"] <= r["plausible_mm"][1] for r in rows])
    return (
        f"{name}: {len(rows)} cases, error {100 * np.median(errors):.0f} % in the median, under 20 % in "
        f"{100 * np.mean(errors < 0.2):.0f} %, truth in the plausible range in {100 * within:.0f} %, at most "
        f"{max(row['seconds'] for row in rows):.0f} s"
    )


if __name__ == "__main__":
    main()
