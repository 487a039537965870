"""What cross-planar adaptation gains: denoising of a head's thin slices before and after.

python benchmarks/prior_adaptation.py CHECKPOINT SCAN [SCAN ...] [--steps 300] [--thickness 5]

Each SCAN is the thin scan of a validation head. A thick-slice axial scan with Rician noise is simulated from it; the
prior is adapted to the slices of that scan, and then denoises thin slices it has not seen, ten of each plane. PSNR in
dB over the head, data range 1 (the robust maximum).
"""

import argparse
import time
from pathlib import Path
from statistics import mean

import nibabel as nib
import numpy as np
import torch

from forward_models import Gaussian, simulate, volume_from_image
from priors.adapt import AdaptConfig, adapt, in_plane_slices, pixel_mm_for
from priors.checkpoint import load_checkpoint
from priors.data import HeadScan, read_scan
from priors.denoiser import Prior
from priors.planes import Plane
from priors.split import split_by_subject, subject_of
from priors.validation import SIGMAS, FixedSlice, denoising_psnr, fixed_slices

SHARES = (0.3, 0.4, 0.5, 0.6, 0.7)
NOISE_SD = 0.02
AXIS = 2


def thick_slices(scan: HeadScan, thickness_mm: float, pixel_mm: float) -> tuple[torch.Tensor, Plane]:
    """Slices of an axial scan of the head, with noise."""
    image = nib.Nifti1Image(scan.voxels.float().numpy(), np.eye(4))
    image.header.set_xyzt_units("mm")
    thin = volume_from_image(image)
    generator = torch.Generator().manual_seed(0)
    thick = simulate(thin, Gaussian(thickness_mm), 0.0, axis=AXIS, noise_sd=NOISE_SD, generator=generator)
    return in_plane_slices(thick, AXIS, pixel_mm)


def scores(prior: Prior, slices: tuple[FixedSlice, ...]) -> dict[tuple[str, float], float]:
    """Mean PSNR by plane and noise level."""
    found = {}
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for plane in Plane:
            of_plane = tuple(item for item in slices if item.plane is plane)
            for sigma in SIGMAS:
                found[plane.name.lower(), sigma] = mean(denoising_psnr(prior.denoise, of_plane, sigma))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("scans", type=Path, nargs="+")
    parser.add_argument("--thickness", type=float, default=5.0)
    parser.add_argument("--pixel", type=float, help="mm at which slices are shown; default: by thickness")
    parser.add_argument("--steps", type=int, default=AdaptConfig.steps)
    parser.add_argument("--learning-rate", type=float, default=AdaptConfig.learning_rate)
    parser.add_argument("--other-labels", type=float, default=AdaptConfig.other_labels)
    args = parser.parse_args()
    prior = load_checkpoint(args.checkpoint).prior
    pixel_mm = pixel_mm_for(args.thickness) if args.pixel is None else args.pixel
    config = AdaptConfig(args.steps, learning_rate=args.learning_rate, other_labels=args.other_labels, half=True)
    print(f"| scan | plane | {' | '.join(f'sigma {sigma:g}' for sigma in SIGMAS)} | seconds |")
    print(f"|---|---|{'---|' * (len(SIGMAS) + 1)}")
    for path in args.scans:
        if subject_of(path) not in split_by_subject([subject_of(path)]).validation:
            raise SystemExit(f"{path} is of a training subject")
        scan = read_scan(path)
        slices = fixed_slices((scan,), SHARES)
        before = scores(prior, slices)
        began = time.perf_counter()
        adapted = adapt(
            prior, *thick_slices(scan, args.thickness, pixel_mm), config, generator=torch.Generator().manual_seed(0)
        )
        seconds = time.perf_counter() - began
        after = scores(adapted, slices)
        for plane in (plane.name.lower() for plane in Plane):
            cells = [f"{before[plane, s]:.2f} {after[plane, s] - before[plane, s]:+.2f}" for s in SIGMAS]
            print(f"| {scan.name} | {plane} | {' | '.join(cells)} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
