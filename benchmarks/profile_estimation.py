"""Slice profiles estimated from simulated scans of thin volumes never trained on, and from real scans.

    python benchmarks/profile_estimation.py OUT.json THIN.nii.gz... [--estimators NAME...] [--thick SCAN=MM...]
        [--table-only]

Every thin volume becomes a scan along the superior-inferior axis with each of 8 profiles at each of 3 spacings that are
at least half its FWHM. OUT.json is written after every case, and cases in it are not repeated. `--thick` adds real
scans and the thickness that their protocol says. At the end one table shows the estimators side by side.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from forward_models import Box, Gaussian, SliceProfile, Volume, acquisition_of, read_volume, simulate, slr
from throughplane.outputs import json_writer, write_all
from throughplane.profile import ESTIMATORS, Estimator
from throughplane.studies.cases import superior_axis

PROFILES: tuple[SliceProfile, ...] = (
    *(Gaussian(mm) for mm in (2.0, 4.0, 8.0)),
    *(Box(mm) for mm in (3.0, 5.0, 9.0)),
    *(slr(mm) for mm in (3.0, 5.0)),
)
SPACINGS_MM = (4.0, 2.0, 8.0)
Results = dict[str, dict[str, dict[str, Any]]]  # of a case, by each estimator


@dataclass(frozen=True)
class Simulated:
    """A scan made of a thin volume."""

    path: Path
    profile: SliceProfile
    spacing_mm: float

    @property
    def name(self) -> str:
        return f"{stem(self.path)} {self.profile.name} {self.profile.fwhm_mm:g} | {self.spacing_mm:g}"

    @property
    def truth_mm(self) -> float:
        return self.profile.fwhm_mm

    def scan(self) -> tuple[Volume, int | None]:
        thin = read_volume(self.path)
        axis = superior_axis(thin)
        return simulate(thin, self.profile, self.spacing_mm - self.profile.fwhm_mm, axis=axis), axis


@dataclass(frozen=True)
class Real:
    """A scan, and the thickness that its protocol says."""

    path: Path
    truth_mm: float

    @property
    def name(self) -> str:
        return f"{stem(self.path)} | real"

    def scan(self) -> tuple[Volume, int | None]:
        return read_volume(self.path), None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("thin", type=Path, nargs="*")
    parser.add_argument("--thick", nargs="*", default=[], help="SCAN=MM")
    parser.add_argument("--estimators", nargs="+", choices=ESTIMATORS, default=list(ESTIMATORS))
    parser.add_argument("--table-only", action="store_true")
    arguments = parser.parse_args()
    results: Results = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    for case in cases(arguments.thin, arguments.thick) if not arguments.table_only else []:
        for estimator in arguments.estimators:
            if estimator not in results.setdefault(case.name, {}):
                results[case.name][estimator] = judged(case, ESTIMATORS[estimator])
                write_all({arguments.out: json_writer(results)})
                print(case.name, estimator, results[case.name][estimator], flush=True)
    print(table(results, arguments.estimators))


def cases(thin: list[Path], thick: list[str]) -> list[Simulated | Real]:
    """Those where the spacing is at least half the FWHM, then the real ones."""
    grid = [
        Simulated(path, profile, spacing)
        for path in thin
        for spacing in SPACINGS_MM
        for profile in PROFILES
        if spacing >= profile.fwhm_mm / 2 * (1 - 1e-6)
    ]
    return [*grid, *(Real(Path(name), float(mm)) for name, mm in (scan.split("=") for scan in thick))]


def stem(path: Path) -> str:
    return path.name.split(".")[0]


def judged(case: Simulated | Real, estimator: Estimator) -> dict[str, Any]:
    """Estimate and compare."""
    scan, axis = case.scan()
    acquisition = acquisition_of(scan, axis=axis)
    _, trace = estimator(scan, acquisition)
    return {
        "spacing_mm": round(acquisition.spacing_mm, 3),
        "truth_mm": case.truth_mm,
        "fwhm_mm": round(trace.fwhm_mm, 3),
        "repeatability_mm": [round(mm, 2) for mm in trace.repeatability_mm],
        "plausible_mm": [round(mm, 2) for mm in trace.plausible_mm],
        "sd_mm": round(trace.sd_mm, 3),
        "error": round(trace.fwhm_mm / case.truth_mm - 1, 4),
        "informative": trace.informative,
        "seconds": round(trace.seconds, 1),
    }


def table(results: Results, estimators: list[str]) -> str:
    """Markdown: a row per case, with FWHM and error of each estimator, * where flagged; then a summary of each."""
    lines = [f"| case, spacing | truth | {' | '.join(estimators)} |", "|---" * (2 + len(estimators)) + "|"]
    for name, row in results.items():
        truth_mm = next(iter(row.values()))["truth_mm"]
        cells = (told(row[estimator]) if estimator in row else "" for estimator in estimators)
        lines.append(f"| {name.replace(' |', ',')} | {truth_mm:g} | {' | '.join(cells)} |")
    lines += ["", f"| | {' | '.join(estimators)} |", "|---" * (1 + len(estimators)) + "|"]
    done = [row for name, row in results.items() if not name.endswith("real") and all(e in row for e in estimators)]
    by_estimator = [groups([row[estimator] for row in done]) for estimator in estimators]
    for name in by_estimator[0]:
        lines.append(f"| {name} | {' | '.join(summary(found[name]) for found in by_estimator)} |")
    return "\n".join(lines)


def groups(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    return {
        "all": rows,
        **{f"{mm:g} mm apart": [row for row in rows if row["spacing_mm"] == mm] for mm in SPACINGS_MM},
        "FWHM at least the spacing": [row for row in rows if row["truth_mm"] >= row["spacing_mm"]],
        "not flagged": [row for row in rows if row["informative"]],
    }


def told(row: dict[str, Any]) -> str:
    return f"{row['fwhm_mm']:.2f} ({100 * row['error']:+.0f} %){'' if row['informative'] else ' *'}"


def summary(rows: list[dict[str, Any]]) -> str:
    """Cases: median error of the FWHM, share of errors under 20 %, of truths in the plausible range; longest run."""
    if not rows:
        return "0"
    errors = np.abs([row["error"] for row in rows])
    within = np.mean([row["plausible_mm"][0] <= row["truth_mm"] <= row["plausible_mm"][1] for row in rows])
    return (
        f"{len(rows)}: {100 * np.median(errors):.0f} %, {100 * np.mean(errors < 0.2):.0f} %, {100 * within:.0f} %; "
        f"{max(row['seconds'] for row in rows):.0f} s"
    )


if __name__ == "__main__":
    main()
