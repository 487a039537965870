"""Denoising of validation slices: a prior against non-local means, wavelets and total variation.

python benchmarks/prior_denoising.py CHECKPOINT SCANS [--write-card] [--json FILE]

SCANS is a folder of thin heads. Six slices of each validation scan are denoised, two per plane, at noise of 5, 10, 20
and 50 % of the intensity range. The classical methods are told the noise level; their settings are those with the
best mean PSNR on eight slices of training heads, chosen per noise level. PSNR in dB over the head, data range 1 (the
robust maximum). --write-card puts the table into the checkpoint's model card.

The scans are noisy themselves, and no method can know their noise: whoever knew the head exactly, and the sd t of the
scan's own noise, would still be off by t sigma / sqrt(t^2 + sigma^2). `avoidable gain` is the gain in what error is
left beyond that; t is estimated from below (`own_noise`).
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle, denoise_wavelet
from torch import Tensor

from forward_models import InputRefused
from priors.card import add_evaluation
from priors.checkpoint import load_checkpoint
from priors.data import HEAD_LEVEL, HeadScan, read_scan
from priors.planes import Plane
from priors.split import find_scans, split_by_subject, subject_of
from priors.validation import SIGMAS, FixedSlice, denoising_psnr, fixed_slices

Denoise = Callable[[Tensor, float, Plane], Tensor]
Table = list[dict[str, object]]
NLM_STRENGTHS = (0.35, 0.5, 0.65, 0.8, 1.0)  # of the noise level
TV_STRENGTHS = (0.35, 0.5, 0.7, 0.9, 1.2, 1.6)
WAVELETS = ("haar", "db2", "sym4")
WAVELET_STRENGTHS = (0.7, 0.85, 1.0, 1.2)
SHIFTS = 3  # in either direction
TUNING_SHARES = (0.5,)
TUNING_EVERY = 4  # of these slices: three per scan, so another plane each time
WHOLE_HEADS = ("uih2",)  # of the validation subjects; the others are brains
LEAST_GAIN_DB = 1.5
BLOCK = 12  # voxels, for the noise of a scan itself
FLATTEST = 0.1  # of the blocks: little but noise is in them


def nl_means(strength: float, patch_size: int) -> Denoise:
    def denoise(x: Tensor, sigma: float, _plane: Plane) -> Tensor:
        options = {"patch_size": patch_size, "patch_distance": 6, "h": strength * sigma, "sigma": sigma}
        return torch.stack([torch.from_numpy(denoise_nl_means(image.numpy(), **options)) for image in x])

    return denoise


def total_variation(strength: float) -> Denoise:
    def denoise(x: Tensor, sigma: float, _plane: Plane) -> Tensor:
        images = [denoise_tv_chambolle(image.numpy(), weight=strength * sigma) for image in x]
        return torch.from_numpy(np.stack(images))

    return denoise


def wavelet(name: str, strength: float) -> Denoise:
    """Soft thresholds chosen per sub-band (BayesShrink, Chang et al. 2000), averaged over shifts of the image."""

    def denoise(x: Tensor, sigma: float, _plane: Plane) -> Tensor:
        options = {"wavelet": name, "sigma": strength * sigma, "method": "BayesShrink", "mode": "soft"}
        shifts = [(row, column) for row in range(SHIFTS) for column in range(SHIFTS)]
        shrunk = [
            denoise_wavelet(torch.roll(image, shift, (0, 1)).numpy(), rescale_sigma=False, **options)
            for image in x
            for shift in shifts
        ]
        parts = torch.from_numpy(np.stack(shrunk)).reshape(len(x), len(shifts), *x.shape[1:])
        back = [parts[:, i].roll((-row, -column), (1, 2)) for i, (row, column) in enumerate(shifts)]
        return torch.stack(back).mean(dim=0)

    return denoise


CLASSICAL: dict[str, dict[str, Denoise]] = {
    "non-local means": {f"h {s:g} sigma, patches of {p}": nl_means(s, p) for p in (3, 5) for s in NLM_STRENGTHS},
    "total variation": {f"weight {s:g} sigma": total_variation(s) for s in TV_STRENGTHS},
    "wavelets": {f"{name}, {s:g} sigma": wavelet(name, s) for name in WAVELETS for s in WAVELET_STRENGTHS},
}


def tuned(slices: tuple[FixedSlice, ...], sigma: float) -> dict[str, str]:
    """The setting of each classical method with the best mean PSNR on `slices`."""
    best = {}
    for method, settings in CLASSICAL.items():
        scores = {name: mean(denoising_psnr(denoise, slices, sigma)) for name, denoise in settings.items()}
        best[method] = max(scores, key=lambda name: scores[name])
    return best


def scores_of(
    prior: Denoise, slices: tuple[FixedSlice, ...], sigma: float, chosen: dict[str, str]
) -> dict[str, tuple[float, ...]]:
    """PSNR of every slice by every method."""
    scores = {"prior": denoising_psnr(prior, slices, sigma)}
    for method, name in chosen.items():
        scores[method] = denoising_psnr(CLASSICAL[method][name], slices, sigma)
    return scores


def own_noise(scan: HeadScan) -> float:
    """Standard deviation of the noise in the scan: of its diagonal Haar coefficients in the flattest blocks of tissue.

    Too low rather than too high: the flattest blocks are so by chance, too.
    """
    a, b, c = (n // (2 * BLOCK) * 2 * BLOCK for n in scan.voxels.shape)
    voxels = scan.voxels[:a, :b, :c].float()
    corners = [voxels[i::2, j::2] for i in (0, 1) for j in (0, 1)]
    diagonal = (corners[0] - corners[1] - corners[2] + corners[3]) / 2
    tissue = torch.stack([corner > HEAD_LEVEL for corner in corners]).all(dim=0)
    sides = (BLOCK // 2, BLOCK // 2, BLOCK)
    full = _blocks(tissue, sides).all(dim=1)
    return float(torch.quantile(_blocks(diagonal, sides)[full].std(dim=1), FLATTEST))


def _blocks(x: Tensor, sides: tuple[int, int, int]) -> Tensor:
    for axis, side in enumerate(sides):
        x = x.unfold(axis, side, side)
    return x.reshape(-1, math.prod(sides))


def avoidable_gain(ours: float, best: float, noise: float, sigma: float) -> float:
    """Gain in dB of one PSNR over another when the error that nobody can avoid is taken from both."""
    unavoidable = (noise * sigma) ** 2 / (noise**2 + sigma**2)
    left = [10 ** (-psnr / 10) - unavoidable for psnr in (ours, best)]
    return 10 * math.log10(left[1] / left[0]) if min(left) > 0 else math.inf


def rows(
    scores: dict[float, dict[str, tuple[float, ...]]], slices: tuple[FixedSlice, ...], noises: dict[str, float]
) -> Table:
    """Means per scan, per plane and over all slices, each at every noise level; `noises` are those of the scans."""
    table: Table = []
    for group, inside in _groups(slices).items():
        noise = mean(noises[slices[i].scan] for i in inside)
        for sigma, by_method in scores.items():
            means = {name: round(mean(values[i] for i in inside), 2) for name, values in by_method.items()}
            best = max(value for name, value in means.items() if name != "prior")
            avoidable = avoidable_gain(means["prior"], best, noise, sigma)
            gains = {"gain": round(means["prior"] - best, 2), "avoidable gain": round(avoidable, 2)}
            table.append({"slices": group, "own noise": round(noise, 3), "sigma": sigma, **means, **gains})
    return table


def _groups(slices: tuple[FixedSlice, ...]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for i, item in enumerate(slices):
        extent = "whole head" if item.scan.split("_")[0] in WHOLE_HEADS else "brain"
        for name in (f"{item.contrast}, {extent}, {item.scan.split('.')[0]}", f"{item.plane.name.lower()}", "all"):
            groups.setdefault(name, []).append(i)
    return dict(sorted(groups.items(), key=lambda group: len(group[1])))


def markdown(table: Table) -> str:
    columns = list(table[0])
    lines = [" | ".join(columns), " | ".join(["---"] * len(columns))]
    lines += [" | ".join(str(row[column]) for column in columns) for row in table]
    return "\n".join(f"| {line} |" for line in lines)


def verdict(table: Table) -> str:
    of_scans = [row for row in table if "," in str(row["slices"])]
    short = [row for row in of_scans if float(str(row["gain"])) < LEAST_GAIN_DB]
    return (
        f"{len(of_scans) - len(short)} of {len(of_scans)} scans and noise levels are at least {LEAST_GAIN_DB} dB above "
        f"the best classical method; the least gain is {min(float(str(row['gain'])) for row in of_scans):.2f} dB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("scans", type=Path)
    parser.add_argument("--json", type=Path, help="write the table here too")
    parser.add_argument("--write-card", action="store_true", help="put the table into the checkpoint's model card")
    args = parser.parse_args()
    checkpoint = load_checkpoint(args.checkpoint)
    paths = find_scans([args.scans])
    held_out = split_by_subject(subject_of(path) for path in paths).validation
    if seen := set(held_out) & set(checkpoint.data["split"]["train"]):
        raise InputRefused(f"{args.checkpoint} was trained on {', '.join(sorted(seen))}; validate on other subjects")
    train = fixed_slices(tuple(read_scan(path) for path in paths if subject_of(path) not in held_out), TUNING_SHARES)
    train = train[::TUNING_EVERY]
    validation = tuple(read_scan(path) for path in paths if subject_of(path) in held_out)
    slices = fixed_slices(validation)
    began = time.perf_counter()
    chosen = {sigma: tuned(train, sigma) for sigma in SIGMAS}
    with torch.inference_mode():
        scores = {sigma: scores_of(checkpoint.prior.denoise, slices, sigma, chosen[sigma]) for sigma in SIGMAS}
    table = rows(scores, slices, {scan.name: own_noise(scan) for scan in validation})
    settings = [f"sigma {sigma:g}: " + "; ".join(names.values()) for sigma, names in chosen.items()]
    print("\n\n".join((markdown(table), verdict(table), "\n".join(settings))))
    seconds, step = time.perf_counter() - began, checkpoint.config["reached"]["step"]
    print(f"\n{len(slices)} slices, {seconds:.0f} s; prior {checkpoint.sha256[:12]}, step {step}")
    evaluation = {"rows": table, "verdict": verdict(table), "settings": settings}
    if args.json is not None:
        record = {"prior": checkpoint.sha256, "reached": checkpoint.config["reached"], **evaluation}
        args.json.write_text(json.dumps(record, indent=2) + "\n")
    if args.write_card:
        add_evaluation(args.checkpoint, evaluation)


if __name__ == "__main__":
    main()
