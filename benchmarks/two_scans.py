"""Two scans of one head beside either alone, on simulated scans of volumes never trained on.

    python benchmarks/two_scans.py OUT.json THIN.nii.gz... [--cells 5|0,4|1,8|0] [--pairs axial+sagittal,axial+coronal]
        [--methods inverse,eclare] [--preset instant] [--samples 1] [--crop 96] [--misplaced "5|0 axial+sagittal"]
        [--threads 1]

Both scans are simulated from the same thin volume with a gaussian profile; the first is always axial. `--crop` takes a
box of so many voxels around the middle of the head first. Scores are those of the thin volume on the grid of the axial
scan: PSNR and 3-D SSIM in the head mask, data range 0.1 to 99.9 % of the truth in it. The second scan alone is brought
to that grid by cubic splines. For the case of --misplaced, `misplaced` gives the second scan a header that is off by
2.5 mm and 2.5 degrees and an intensity 1.3 times as high, and `aligned` lets --align find that and says by how much its
motion is wrong, at most, within the head. OUT.json is written after every case, and cases in it are not repeated; the
table is printed at the end.
"""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from forward_models import Gaussian, Volume, read_volume, simulate, truth_for
from forward_models.lattices import Lattice, LatticeResampling
from throughplane.methods import METHODS
from throughplane.metrics import data_range_of, head_mask, score
from throughplane.outputs import json_writer, write_all
from throughplane.pipeline import How, Result, carry_out, plan
from throughplane.reading import Acquired, Scan, read_scan

AXES = {"sagittal": 0, "coronal": 1, "axial": 2}  # of a volume in RAS order
TURN_DEGREES, SHIFT_MM, GAIN = (1.5, -1.2, 1.6), (1.6, -1.2, 1.5), 1.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("thin", type=Path, nargs="*")
    parser.add_argument("--cells", default="5|0,4|1,8|0", help="thickness|gap in mm, comma separated")
    parser.add_argument("--pairs", default="axial+sagittal,axial+coronal")
    parser.add_argument("--methods", default="inverse,eclare")
    parser.add_argument("--preset", default="instant", help="of eclare and focvs")
    parser.add_argument("--samples", type=int, default=1, help="of focvs")
    parser.add_argument("--crop", type=int)
    parser.add_argument("--misplaced", default="5|0 axial+sagittal")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    results: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    for path in arguments.thin:
        thin = middle_of(read_volume(path), arguments.crop)
        for method in arguments.methods.split(","):
            how = How(method=method, threads=arguments.threads, spacing_mm=1.0)
            how = replace(how, preset=arguments.preset) if METHODS[method].learns else how
            how = replace(how, samples=arguments.samples) if method == "focvs" else how
            for cell in arguments.cells.split(","):
                for pair in arguments.pairs.split(","):
                    key = f"{path.name.split('.')[0]} {cell} {pair} {method}"
                    if key not in results:
                        results[key] = run_case(thin, cell, pair, how, f"{cell} {pair}" == arguments.misplaced)
                        write_all({arguments.out: json_writer(results)})
                        print(key, results[key], flush=True)
    print(table(results))


def middle_of(thin: Volume, crop: int | None) -> Volume:
    """In RAS order, a box around the middle of the head."""
    image = nib.as_closest_canonical(thin.image())
    data = np.asarray(image.dataobj, np.float32)
    middle = np.argwhere(head_mask(data)).mean(axis=0)
    starts = [max(0, int(m) - crop // 2) if crop else 0 for m in middle]
    box = tuple(slice(start, start + crop if crop else None) for start in starts)
    affine = image.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ starts
    return Volume(np.ascontiguousarray(data[box]), affine, thin.header)


def run_case(thin: Volume, cell: str, pair: str, how: How, with_misplaced: bool) -> dict[str, Any]:
    """Scores of either scan alone and of both, with true headers, with a wrong one, and with that one refined."""
    thickness_mm, gap_mm = (float(number) for number in cell.split("|"))
    profile = Gaussian(thickness_mm)
    first, second = (
        read(simulate(thin, profile, gap_mm, axis=AXES[plane]), plane, thickness_mm) for plane in pair.split("+")
    )
    truth = truth_for(thin, profile, gap_mm, AXES["axial"])
    data = np.asarray(truth.data, np.float32)
    mask = head_mask(data)
    moved = read(misplaced(second.volume), "misplaced", thickness_mm)

    def scores(volume: np.ndarray, result: Result) -> dict[str, Any]:
        return {**asdict(score(data, volume, mask, data_range_of(data, mask))), "seconds": result.record["seconds"]}

    rows = {}
    alone = carry_out(plan(first, how))
    rows["first alone"] = scores(alone.volume.data, alone)
    alone = carry_out(plan(second, how))
    rows["second alone"] = scores(on_grid_of(alone.volume, truth), alone)
    cases = (("both", second, False), ("misplaced", moved, False), ("aligned", moved, True))
    for name, other, align in cases if with_misplaced else cases[:1]:
        result = carry_out(plan(first, replace(how, align=align), [other]))
        (said,) = result.record["others"]
        rows[name] = {
            **scores(result.volume.data, result),
            "residual_of_first": result.record["residual"]["relative_to_scan"],
            "residual_of_second": said["residual"]["relative_to_scan"],
            "correlation": said["correlation"],
            "gain": said["gain"],
        }
        if align:
            rows[name]["off_by_mm"] = off_by_mm(np.array(said["alignment"]["matrix"]), second, moved, mask, truth)
    return rows


def read(volume: Volume, name: str, thickness_mm: float) -> Scan:
    """A simulated scan as a file would be read, with its thickness known."""
    axis = int(np.argmax(volume.voxel_mm))
    return replace(read_scan(volume.image(), Acquired(thickness_mm, axis=axis)), name=name)


def misplaced(volume: Volume) -> Volume:
    """The same voxels, brighter, with a header that is wrong."""
    middle = volume.affine[:3, :3] @ ((np.array(volume.data.shape) - 1) / 2) + volume.affine[:3, 3]
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_euler("xyz", TURN_DEGREES, degrees=True).as_matrix()
    motion[:3, 3] = middle + SHIFT_MM - motion[:3, :3] @ middle
    return replace(volume, affine=motion @ volume.affine, data=volume.data * np.float32(GAIN))


def off_by_mm(found: np.ndarray, true: Scan, moved: Scan, mask: np.ndarray, truth: Volume) -> float:
    """How far a voxel of the head ends from its place at most, once the motion found has been made."""
    wrong = found @ moved.volume.affine @ np.linalg.inv(true.volume.affine)
    points = truth.affine @ np.concatenate([np.argwhere(mask).T, np.ones((1, int(mask.sum())))])
    return float(np.linalg.norm(((wrong - np.eye(4)) @ points)[:3], axis=0).max())


def on_grid_of(volume: Volume, truth: Volume) -> np.ndarray:
    """By cubic splines."""
    lattices = (Lattice(v.data.shape, v.affine) for v in (volume, truth))
    return LatticeResampling(*lattices).apply(torch.from_numpy(np.asarray(volume.data, np.float32))).numpy()


def table(results: dict[str, Any]) -> str:
    """Markdown: a row per case."""
    names = ("first alone", "second alone", "both", "misplaced", "aligned")
    lines = ["| volume | mm | scans | method | " + " | ".join(names) + " | off by |", "|---" * (5 + len(names)) + "|"]
    for key, rows in results.items():
        cells = [f"{rows[n]['psnr_db']:.2f} / {rows[n]['ssim']:.3f}" if n in rows else "" for n in names]
        off = f"{rows['aligned']['off_by_mm']:.2f} mm" if "aligned" in rows else ""
        shown = key.replace("|", "\\|").split(" ")
        lines.append(f"| {' | '.join([*shown, *cells])} | {off} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
