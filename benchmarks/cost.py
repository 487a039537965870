"""Seconds and peak memory of every method and preset, beside what --dry-run announces.

    python benchmarks/cost.py [--shape 200,200,40] [--in-plane 1] [--spacing 5] [--methods cubic,inverse,eclare,focvs]
        [--presets fast,standard,best]

The scan is made of random blobs: neither time nor memory depends on what is in it, unless training stops early. Each
method runs in a process of its own. Processor seconds are those of all threads together.
"""

import argparse
import multiprocessing
import time
from typing import Any

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter

from throughplane.methods import METHODS
from throughplane.pipeline import Acquired, How, carry_out, plan, read_scan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="200,200,40")
    parser.add_argument("--in-plane", type=float, default=1.0)
    parser.add_argument("--spacing", type=float, default=5.0)
    parser.add_argument("--methods", default="cubic,inverse,eclare,focvs")
    parser.add_argument("--presets", default="fast,standard,best")
    arguments = parser.parse_args()
    shape = tuple(int(n) for n in arguments.shape.split(","))
    rows = [
        (method, preset)
        for method in arguments.methods.split(",")
        for preset in (arguments.presets.split(",") if METHODS[method].learns else [None])
    ]
    print("| method | seconds | processor seconds | peak GiB | announced GiB |\n|---|---|---|---|---|")
    for method, preset in rows:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            cost = pool.apply(run, (shape, arguments.in_plane, arguments.spacing, method, preset))
        name = method if preset is None else f"{method} {preset}"
        numbers = f"{cost['seconds']:.0f} | {cost['processor']:.0f} | {cost['peak']:.2f} | {cost['announced']:.2f}"
        print(f"| {name} | {numbers} |", flush=True)


def run(
    shape: tuple[int, int, int], in_plane_mm: float, spacing_mm: float, method: Any, preset: Any
) -> dict[str, float]:
    blobs = gaussian_filter(np.random.default_rng(0).normal(size=shape), (2, 2, 0.5)).astype(np.float32)
    image = nib.Nifti1Image(1000 * np.abs(blobs), np.diag([in_plane_mm, in_plane_mm, spacing_mm, 1]))
    image.header.set_xyzt_units("mm")
    planned = plan(read_scan(image, Acquired()), How(method, preset=preset, device="cpu"))
    record = carry_out(planned).record
    return {
        "seconds": record["seconds"],
        "processor": time.process_time(),
        "peak": record["peak_memory_bytes"] / 2**30,
        "announced": planned.memory_bytes / 2**30,
    }


if __name__ == "__main__":
    main()
