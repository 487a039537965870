"""What undoing the scanner's in-plane interpolation is worth, on scans whose k-space was filled with zeros.

    python benchmarks/in_plane.py THIN.nii.gz... [--factors 2,2] [--cell 5|0] [--slab 64] [--preset fast]

Thick slices are simulated along the superior-inferior axis from a slab of the thin volume, noise is added to them in
k-space, which is then filled up with zeros by the two factors. The truth is the thin slab filled up likewise. `auto` is
what `upsample` does; `file` trusts the voxels and makes thin slices as thin as they are; `file, same spacing` makes
them as thick as `auto` does. Scores are taken at the spacing of the thin volume, in the head mask.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
import torch

from forward_models import Gaussian, Volume, read_volume, resample, simulate, truth_for
from throughplane.metrics import data_range_of, head_mask, score
from throughplane.pipeline import super_resolve
from throughplane.studies.cases import superior_axis

NOISE = 0.01  # of the brightest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("thin", type=Path, nargs="+")
    parser.add_argument("--factors", default="2,2", help="in plane, in the order of the file")
    parser.add_argument("--cell", default="5|0", help="thickness|gap in mm")
    parser.add_argument("--slab", type=int, default=64, help="voxels of the first in-plane axis")
    parser.add_argument("--preset", default="fast")
    arguments = parser.parse_args()
    first, second = (float(number) for number in arguments.factors.split(","))
    print(
        "| volume | in plane | thin mm | PSNR / SSIM | seconds | peak GiB so far |\n|---|---|---|---|---|---|",
        flush=True,
    )
    for path in arguments.thin:
        for row in rows(path, (first, second), arguments.cell, arguments.slab, arguments.preset):
            print(f"| {path.name.split('.')[0]} | {row} |", flush=True)


def rows(path: Path, factors: tuple[float, float], cell: str, slab: int, preset: Any) -> Any:
    thickness, gap = (float(number) for number in cell.split("|"))
    thin = read_volume(path)
    axis = superior_axis(thin)
    spacing, profile = thin.voxel_mm[axis], Gaussian(thickness)
    thin = middle_slab(thin, axis, slab)
    scan = filled_up(simulate(thin, profile, gap, axis=axis), axis, factors, NOISE)
    truth = filled_up(truth_for(thin, profile, gap, axis), axis, factors).data
    mask = head_mask(truth)
    for name, in_plane_mm, spacing_mm in (
        ("auto", "auto", None),
        ("file, same spacing", None, spacing),
        ("file", None, None),
    ):
        result = super_resolve(
            scan.image(),
            thickness_mm=thickness,
            axis=axis,
            in_plane_mm=in_plane_mm,
            spacing_mm=spacing_mm,
            preset=preset,
        )
        made = result.record["SliceThickness"]
        volume = torch.from_numpy(np.ascontiguousarray(result.volume.data))
        at_truth = volume if abs(made / spacing - 1) < 0.001 else resample(volume, made, spacing, axis)
        got = score(truth, at_truth.numpy(), mask, data_range_of(truth, mask))
        seconds, peak = result.record["seconds"], result.record["peak_memory_bytes"] / 2**30
        yield f"{name} | {made:.3g} | {got.psnr_db:.2f} / {got.ssim:.4f} | {seconds:.0f} | {peak:.2f}"


def middle_slab(volume: Volume, axis: int, count: int) -> Volume:
    """`count` voxels of the first axis that is not `axis`."""
    across = 1 if axis == 0 else 0
    start = max(0, (volume.data.shape[across] - count) // 2)
    data = np.take(volume.data, range(start, min(start + count, volume.data.shape[across])), across)
    return replace(volume, data=np.asarray(data, np.float32))


def filled_up(volume: Volume, axis: int, factors: tuple[float, float], noise: float = 0.0) -> Volume:
    """Magnitude of the image whose k-space is filled up with zeros in plane; the first voxel stays where it is."""
    data, affine = np.asarray(volume.data, np.complex128), volume.affine.copy()
    if noise:
        rng = np.random.default_rng(0)
        data += noise * np.abs(data).max() * (rng.normal(size=data.shape) + 1j * rng.normal(size=data.shape))
    for across, factor in zip((i for i in range(3) if i != axis), factors, strict=True):
        count = data.shape[across]
        more = round(count * factor) - count
        before = (count + more) // 2 - count // 2
        spectrum = scipy.fft.fftshift(scipy.fft.fft(data, axis=across), axes=across)
        widths = [(before, more - before) if i == across else (0, 0) for i in range(3)]
        filled = scipy.fft.ifftshift(np.pad(spectrum, widths), axes=across)
        data = scipy.fft.ifft(filled, axis=across) * (1 + more / count)
        affine[:3, across] /= 1 + more / count
    return replace(volume, data=np.abs(data).astype(np.float32), affine=affine)


if __name__ == "__main__":
    main()
