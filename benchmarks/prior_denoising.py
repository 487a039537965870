"""Denoising of validation slices: a prior against non-local means, wavelets and total variation.

python benchmarks/prior_denoising.py CHECKPOINT SCANS [--json FILE]

SCANS is a folder of thin heads; only its validation subjects are used, six slices of each scan, two per plane. The
classical methods are told the noise level and get, per noise level, the best of several strengths chosen by looking at
the truth, which favours them. PSNR in dB over the head, data range 1 (the robust maximum).
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import numpy as np
import torch
import torch.nn.functional as F
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle
from torch import Tensor

from forward_models import InputRefused
from priors.checkpoint import load_checkpoint
from priors.data import read_scan
from priors.planes import Plane
from priors.split import find_scans, split_by_subject, subject_of
from priors.validation import SIGMAS, FixedSlice, denoising_psnr, fixed_slices

Denoise = Callable[[Tensor, float, Plane], Tensor]
NLM_STRENGTHS = (0.6, 0.8, 1.0)  # of the noise level
TV_STRENGTHS = (0.5, 0.8, 1.1)
WAVELET_STRENGTHS = (1.0, 1.5, 2.0)
WAVELET_LEVELS = 4


def nl_means(strength: float) -> Denoise:
    def denoise(x: Tensor, sigma: float, _plane: Plane) -> Tensor:
        options = {"patch_size": 5, "patch_distance": 6, "h": strength * sigma, "sigma": sigma, "fast_mode": True}
        return torch.stack([torch.from_numpy(denoise_nl_means(image.numpy(), **options)) for image in x])

    return denoise


def total_variation(strength: float) -> Denoise:
    def denoise(x: Tensor, sigma: float, _plane: Plane) -> Tensor:
        images = [denoise_tv_chambolle(image.numpy(), weight=strength * sigma) for image in x]
        return torch.from_numpy(np.stack(images))

    return denoise


def wavelet(strength: float) -> Denoise:
    """Soft thresholding of the undecimated spline wavelet transform ("a trous", Starck et al. 1998).

    The detail of every level is shrunk by `strength` times the noise it holds, which is measured on white noise.
    """
    unit = torch.randn((1, 256, 256), generator=torch.Generator().manual_seed(0))
    noise_by_level = [float(detail.std()) for detail in _spline_wavelet(unit)[:-1]]

    def denoise(x: Tensor, sigma: float, _plane: Plane) -> Tensor:
        *details, coarse = _spline_wavelet(x)
        shrunk = [
            torch.sign(detail) * (detail.abs() - strength * sigma * noise).clamp(min=0)
            for detail, noise in zip(details, noise_by_level, strict=True)
        ]
        return torch.stack(shrunk).sum(dim=0) + coarse

    return denoise


def _spline_wavelet(x: Tensor) -> list[Tensor]:
    """Details from fine to coarse, then what is left; they add up to `x`."""
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    parts, coarse = [], x[:, None]
    for level in range(WAVELET_LEVELS):
        reach = 2 * 2**level
        padded = F.pad(coarse, (reach,) * 4, mode="reflect")
        rows = F.conv2d(padded, taps[None, None, :, None], dilation=2**level)
        smooth = F.conv2d(rows, taps[None, None, None, :], dilation=2**level)
        parts.append((coarse - smooth)[:, 0])
        coarse = smooth
    return [*parts, coarse[:, 0]]


CLASSICAL = {
    "non-local means": [nl_means(s) for s in NLM_STRENGTHS],
    "total variation": [total_variation(s) for s in TV_STRENGTHS],
    "wavelets": [wavelet(s) for s in WAVELET_STRENGTHS],
}


def scores_of(prior: Denoise, slices: tuple[FixedSlice, ...], sigma: float) -> dict[str, tuple[float, ...]]:
    """PSNR of every slice by every method; a classical one at the strength with the best mean."""
    scores = {"prior": denoising_psnr(prior, slices, sigma)}
    for name, strengths in CLASSICAL.items():
        scores[name] = max((denoising_psnr(denoise, slices, sigma) for denoise in strengths), key=mean)
    return scores


def rows(scores: dict[float, dict[str, tuple[float, ...]]], slices: tuple[FixedSlice, ...]) -> list[dict[str, object]]:
    """One per scan and noise level, then one per noise level over all slices."""
    scans = list(dict.fromkeys(item.scan for item in slices))
    table: list[dict[str, object]] = []
    for scan in [*scans, "all"]:
        inside = [i for i, item in enumerate(slices) if scan in (item.scan, "all")]
        for sigma, by_method in scores.items():
            means = {name: round(mean(values[i] for i in inside), 2) for name, values in by_method.items()}
            gain = means["prior"] - max(value for name, value in means.items() if name != "prior")
            table.append({"scan": scan, "sigma": sigma, **means, "gain": round(gain, 2)})
    return table


def markdown(table: list[dict[str, object]]) -> str:
    columns = list(table[0])
    lines = [" | ".join(columns), " | ".join(["---"] * len(columns))]
    lines += [" | ".join(str(row[column]) for column in columns) for row in table]
    return "\n".join(f"| {line} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("scans", type=Path)
    parser.add_argument("--json", type=Path, help="write the table here too")
    args = parser.parse_args()
    checkpoint = load_checkpoint(args.checkpoint)
    paths = find_scans([args.scans])
    held_out = split_by_subject(subject_of(path) for path in paths).validation
    if seen := set(held_out) & set(checkpoint.data["split"]["train"]):
        raise InputRefused(f"{args.checkpoint} was trained on {', '.join(sorted(seen))}; validate on other subjects")
    slices = fixed_slices(tuple(read_scan(path) for path in paths if subject_of(path) in held_out))
    began = time.perf_counter()
    scores = {sigma: scores_of(checkpoint.prior.denoise, slices, sigma) for sigma in SIGMAS}
    table = rows(scores, slices)
    print(markdown(table))
    record = {"prior": checkpoint.sha256, "reached": checkpoint.config["reached"], "rows": table}
    seconds, step = time.perf_counter() - began, checkpoint.config["reached"]["step"]
    print(f"\n{len(slices)} slices, {seconds:.0f} s; prior {checkpoint.sha256[:12]}, step {step}")
    if args.json is not None:
        args.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
