"""Seconds and peak memory of every method and preset, beside what `upsample` announces.

    python benchmarks/cost.py [--shape 200,200,40] [--in-plane 1] [--thickness 5] [--gap 0] [--scan SCAN.nii.gz]
        [--methods cubic,inverse,eclare,focvs] [--presets fast,standard,best] [--threads 2] [--steps N]

Without --scan, the scan is made of random blobs: neither time nor memory depends on what is in it, unless training
stops early. Each method runs in a process of its own. --steps shortens training, to know memory only.
"""

import argparse
import multiprocessing
from dataclasses import replace
from typing import Any

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter

import eclare
from throughplane.device import Stopwatch
from throughplane.methods import METHODS
from throughplane.pipeline import How, carry_out, expected_seconds, plan
from throughplane.reading import Acquired, read_scan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="200,200,40")
    parser.add_argument("--in-plane", type=float, default=1.0)
    parser.add_argument("--thickness", type=float, default=5.0)
    parser.add_argument("--gap", type=float, default=0.0)
    parser.add_argument("--scan")
    parser.add_argument("--methods", default="cubic,inverse,eclare,focvs")
    parser.add_argument("--presets", default="fast,standard,best")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--steps", type=int)
    arguments = parser.parse_args()
    presets = [preset for preset in arguments.presets.split(",") if preset]
    print("| method | announced s | took s | announced GiB | peak GiB | seconds to announce |\n" + "|---" * 6 + "|")
    rows = [
        (method, preset)
        for method in arguments.methods.split(",")
        for preset in (presets if METHODS[method].learns else [None])
    ]
    for method, preset in rows:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            cells = pool.apply(run, (arguments, method, preset))
        print("| " + " | ".join([method if preset is None else f"{method} {preset}", *cells]) + " |", flush=True)


def run(arguments: argparse.Namespace, method: Any, preset: Any) -> list[str]:
    if preset is not None and arguments.steps is not None:
        eclare.PRESETS[preset] = replace(eclare.PRESETS[preset], steps=arguments.steps)
    scan = blobs(arguments) if arguments.scan is None else arguments.scan
    thickness = arguments.thickness if arguments.scan is None else None
    how = How(method, preset=preset, device="cpu", threads=arguments.threads)
    planned = plan(read_scan(scan, Acquired(thickness, in_plane_mm="auto")), how)
    clock = Stopwatch()
    expected = expected_seconds(planned)
    announcing = clock.seconds
    record = carry_out(planned).record
    announced, peak = planned.memory_bytes / 2**30, record["peak_memory_bytes"] / 2**30
    seconds = record["seconds"]
    return [f"{expected:.1f}", f"{seconds:.1f}", f"{announced:.2f}", f"{peak:.2f}", f"{announcing:.1f}"]


def blobs(arguments: argparse.Namespace) -> nib.Nifti1Image:
    shape = tuple(int(n) for n in arguments.shape.split(","))
    data = gaussian_filter(np.random.default_rng(0).normal(size=shape), (2, 2, 0.5)).astype(np.float32)
    voxels = [arguments.in_plane, arguments.in_plane, arguments.thickness + arguments.gap]
    image = nib.Nifti1Image(1000 * np.abs(data), np.diag([*voxels, 1]))
    image.header.set_xyzt_units("mm")
    return image


if __name__ == "__main__":
    main()
