"""FOCVS beside interpolation, other solvers over the same prior, and ECLARE, on simulated scans of validation volumes.

    python benchmarks/focvs_vs_others.py OUT.json THIN.nii.gz... [--cells 4|1,5|0,8|0,10|0,16|0] [--methods
        cubic,inverse,focvs] [--shares 1,1,1] [--samples 4] [--steps 16]
        [--preset fast] [--prior DIR]

Every case is simulated along the superior-inferior axis with a gaussian profile and reconstructed by each method in a
process of its own, so that peak memory is that of the method. `--shares` crops a box around the middle of the head
first, as shares of its extent to the right, anterior and superior. Scores are taken in the head mask: PSNR and 3-D SSIM
(data range 0.1 to 99.9 % of the truth), and the distance of gradient statistics: between the distributions of absolute
first differences of result and truth, mean absolute difference of their 0.5 to 99.5 % quantiles (Wasserstein-1) over
the truth's mean, averaged over the three axes; 0 is best, blur and noise both raise it. `focvs` makes two rows, its
first sample and the mean of all; `covered` is the share of head voxels within the 90 % band that Student's t gives for
these samples. OUT.json is written after every case, and cases in it are not repeated; `--table-only` prints the table.
"""

import argparse
import json
import multiprocessing
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from scipy import stats

import eclare
import focvs
from focvs import comparison
from forward_models import Volume, read_volume
from forward_models.progress import silent
from forward_models.stack import Stack
from throughplane.device import Stopwatch, peak_memory_bytes
from throughplane.methods import METHODS, learned
from throughplane.metrics import data_range_of, gradient_distances, head_mask, score
from throughplane.outputs import json_writer, write_all
from throughplane.sampling import DEFAULT_PRIOR, eclare_start, load_sampler
from throughplane.studies.cases import case_of
from throughplane.studies.records import Degradation

SOLVERS: Mapping[str, Callable[..., torch.Tensor]] = {
    "dps": comparison.dps,
    "diffpir": comparison.diffpir,
    "dds": comparison.dds,
    "red-diff": comparison.red_diff,
}
Named = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("thin", type=Path, nargs="*")
    parser.add_argument("--cells", default="4|1,5|0,8|0,10|0,16|0", help="thickness|gap in mm, comma separated")
    parser.add_argument("--methods", default="cubic,inverse,focvs,dps,diffpir")
    parser.add_argument("--shares", default="1,1,1")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--steps", type=int, default=focvs.PRESETS["standard"].steps)
    parser.add_argument("--preset", default="fast", help="of eclare, and of what the others start from")
    parser.add_argument("--prior", type=Path, default=DEFAULT_PRIOR)
    parser.add_argument("--table-only", action="store_true")
    arguments = parser.parse_args()
    results: Named = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    shares = tuple(float(share) for share in arguments.shares.split(","))
    how = {"samples": arguments.samples, "steps": arguments.steps, "preset": arguments.preset}
    how["prior"] = arguments.prior
    for path in arguments.thin if not arguments.table_only else []:
        for cell in arguments.cells.split(","):
            for method in arguments.methods.split(","):
                case = f"{path.name.split('.')[0]} {cell}"
                if any(key.startswith(f"{case} {method}") for key in results):
                    continue
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    rows = pool.apply(run_case, (path, shares, cell, method, how))
                results |= {f"{case} {name}": row for name, row in rows.items()}
                write_all({arguments.out: json_writer(results)})
                print(case, rows, flush=True)
    print(table(results))


def run_case(path: Path, shares: tuple[float, ...], cell: str, method: str, how: Named) -> dict[str, Named]:
    """Simulate, reconstruct, score: rows by name."""
    stack, truth, mask = middle_case(path, shares, cell)
    clock = Stopwatch()
    found = reconstruct(stack, method, how)
    seconds = clock.seconds
    rows = {name: scores(truth, x, mask, stack) for name, x in found.items() if not name.endswith("all")}
    for row in rows.values():
        row |= {"seconds": round(seconds, 1), "peak_gib": round(peak_memory_bytes() / 2**30, 2), "shape": truth.shape}
    if "focvs all" in found:
        rows[f"focvs mean of {how['samples']}"]["covered"] = covered(truth, found["focvs all"], mask)
        rows["focvs sample"]["seconds"] = round(seconds / how["samples"], 1)
    return rows


def middle_case(path: Path, shares: tuple[float, ...], cell: str) -> tuple[Stack, np.ndarray, np.ndarray]:
    """The middle of a head as a scan, its truth and the head mask of that: in working order and the stack's units."""
    thickness_mm, gap_mm = (float(number) for number in cell.split("|"))
    case = case_of(middle_of_head(read_volume(path), shares), Degradation(thickness_mm, gap_mm, "gaussian"))
    truth, mask = (
        np.ascontiguousarray(case.stack.order.apply(array))
        for array in (np.asarray(case.truth.data, np.float32), case.mask)
    )
    return case.stack, truth / case.stack.scale, mask


def reconstruct(stack: Stack, method: str, how: Named) -> dict[str, torch.Tensor]:
    """Volumes by the name of their row."""
    generator, taught = torch.Generator().manual_seed(0), eclare.load_starting_network()
    if method == "eclare":
        return {method: learned(taught, consistent=True).run(stack, how["preset"], generator, silent).thin}
    if method in ("cubic", "inverse"):
        return {method: METHODS[method].run(stack, how["preset"], generator, silent).thin}  # type: ignore[index]
    config = replace(focvs.PRESETS["standard"], steps=how["steps"])
    prior = load_sampler(how["prior"], 1, torch.device("cpu")).prior.on(stack)
    grid = focvs.prior_grid(stack, prior.spacing_mm)
    estimate = partial(eclare_start, taught, how["preset"])
    if method == "focvs":
        drawn = focvs.draws(grid, prior, config, how["samples"], estimate=estimate, generator=generator)
        each = torch.stack(list(drawn))
        return {"focvs sample": each[0], f"focvs mean of {how['samples']}": each.mean(dim=0), "focvs all": each}
    turns = focvs.take_turns(prior, grid.stack)
    start = estimate(grid.stack, silent)
    solver = SOLVERS[method]
    x = solver(turns, grid.stack.slices, grid.stack.selection, config.levels, generator=generator, start=start)
    return {method: x.detach()}


def middle_of_head(thin: Volume, shares: tuple[float, ...]) -> Volume:
    """The box around the middle of the head that takes these shares of its extent to the right, anterior, superior."""
    data = np.asarray(thin.data, np.float32)
    mask = head_mask(data)
    world = nib.io_orientation(thin.affine)[:, 0].astype(int)
    box = []
    for axis in range(3):
        inside = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
        first, last = int(inside[0]), int(inside[-1]) + 1
        cut = round((last - first) * (1 - shares[world[axis]]) / 2)
        box.append(slice(first + cut, last - cut) if shares[world[axis]] < 1 else slice(None))
    affine = thin.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ np.array([part.start or 0 for part in box])
    return replace(thin, data=np.ascontiguousarray(data[tuple(box)]), affine=affine)


def scores(truth: np.ndarray, x: torch.Tensor, mask: np.ndarray, stack: Stack) -> Named:
    result = x.numpy()
    left = stack.selection.apply(x) - stack.slices
    return {
        **asdict(score(truth, result, mask, data_range_of(truth, mask))),
        "gradients": float(np.mean(gradient_distances(truth, result, mask))),
        "residual": float(left.norm() / stack.slices.norm()),
    }


def covered(truth: np.ndarray, each: torch.Tensor, mask: np.ndarray) -> float:
    """Share of voxels whose truth lies within the 90 % prediction interval of the samples."""
    n = len(each)
    reach = stats.t.ppf(0.95, n - 1) * (1 + 1 / n) ** 0.5
    off = np.abs(truth - each.mean(dim=0).numpy())
    return float((off <= reach * each.std(dim=0).numpy())[mask].mean())


def table(results: Named) -> str:
    """Markdown: a row per cell and method, means over volumes."""
    lines = ["| mm | method | PSNR dB | SSIM | gradients | residual | covered | seconds | GiB |", "|---" * 9 + "|"]
    keys = [key.split(" ", 2) for key in results]
    for cell in dict.fromkeys(cell for _, cell, _ in keys):
        for name in dict.fromkeys(name for _, c, name in keys if c == cell):
            rows = [row for key, row in results.items() if key.split(" ", 2)[1:] == [cell, name]]
            mean = {field: np.mean([row[field] for row in rows]) for field in rows[0] if field != "shape"}
            share = f"{mean['covered']:.0%}" if "covered" in mean else ""
            lines.append(
                f"| {cell.replace('|', chr(92) + '|')} | {name} | {mean['psnr_db']:.2f} | {mean['ssim']:.4f} | "
                f"{mean['gradients']:.3f} | {mean['residual']:.1e} | {share} | {mean['seconds']:.0f} | "
                f"{mean['peak_gib']:.1f} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
