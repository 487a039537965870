"""Fit the networks of `eclare.profile_spectra` to scans simulated from the training subjects among thin heads.

    python scripts/fit_profile_spectra.py draw FOLDER CASES.npz [--count 1500] [--seed 0]
    python scripts/fit_profile_spectra.py fit CASES.npz... --out OUT.safetensors [--steps 800] [--networks 4]

Every scan is drawn anew: head, slice axis, family, FWHM, spacing, position of slices, part of the head, intensities,
noise, interpolation in plane. What is kept of it are its spectra; CASES.npz is written every minute.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.signal
import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from eclare.profile_estimation import FAMILIES
from eclare.profile_spectra import WIDTHS, ProfileScores, spectra, transform
from forward_models import InputRefused, SliceProfile, read_volume
from forward_models.profiles import integrate, thin_to_thick
from priors.split import find_scans, split_by_subject, subject_of

SPACINGS, NARROWEST, WIDEST, WIDEST_RATIO = (1.8, 9.0), 1.45, 12.0, 2.2  # in voxels; the last to the spacing
SLICES, SIDE = 32, 176  # at most
TURNED = 0.15  # share of intensity maps that fall again


@dataclass(frozen=True, eq=False)
class Head:
    """A thin head of cubic voxels, over its robust maximum, cropped to what is not air."""

    subject: str
    values: Float[np.ndarray, "i j k"]


@dataclass(frozen=True, eq=False)
class Cases:
    """Simulated scans: what `ProfileScores` sees, and the answers."""

    log_ratio: Float[Tensor, "scan candidate axis along across"]
    log_power: Float[Tensor, "scan candidate axis along across"]
    spacing: Float[Tensor, " scan"]
    answer: Float[Tensor, "scan candidate"]

    @classmethod
    def read(cls, paths: list[Path]) -> "Cases":
        files = [np.load(path) for path in paths]
        ratio, power, spacing, width, family = (
            np.concatenate([file[name] for file in files])
            for name in ("log_ratio", "log_power", "spacing", "width", "family")
        )
        near = np.exp(-0.5 * ((np.log(width)[:, None] - np.log(WIDTHS)) / np.log(WIDTHS[1] / WIDTHS[0])) ** 2)
        near /= near.sum(axis=1, keepdims=True)
        answer = (np.eye(len(FAMILIES))[family][:, :, None] * near[:, None]).reshape(len(width), -1)
        return cls(*(torch.from_numpy(part.astype(np.float32)) for part in (ratio, power, spacing, answer)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    drawing = commands.add_parser("draw")
    drawing.add_argument("folder", type=Path)
    drawing.add_argument("cases", type=Path)
    drawing.add_argument("--count", type=int, default=1500)
    drawing.add_argument("--seed", type=int, default=0)
    drawing.set_defaults(run=draw)
    fitting = commands.add_parser("fit")
    fitting.add_argument("cases", type=Path, nargs="+")
    fitting.add_argument("--out", type=Path, required=True)
    fitting.add_argument("--steps", type=int, default=800)
    fitting.add_argument("--networks", type=int, default=4)
    fitting.set_defaults(run=fit)
    arguments = parser.parse_args()
    arguments.run(arguments)


def draw(arguments: argparse.Namespace) -> None:
    rng = np.random.default_rng(arguments.seed)
    heads = read_heads(arguments.folder)
    subjects = sorted({head.subject for head in heads})
    print("training subjects:", ", ".join(subjects), flush=True)
    found: dict[str, list[object]] = {
        name: [] for name in ("log_ratio", "log_power", "spacing", "width", "family", "subject")
    }
    saved = time.monotonic()
    while len(found["width"]) < arguments.count:
        own = [head for head in heads if head.subject == subjects[rng.integers(len(subjects))]]
        case = draw_case(own[rng.integers(len(own))], rng) if own else None
        if case is None:
            continue
        for name, value in case.items():
            found[name].append(value)
        if time.monotonic() - saved > 60 or len(found["width"]) == arguments.count:
            saved = time.monotonic()
            np.savez(arguments.cases, **{name: np.array(values) for name, values in found.items()})
            print(len(found["width"]), flush=True)


def read_heads(folder: Path) -> list[Head]:
    """Each at its coarsest voxel size, and at 1 mm where that is finer."""
    scans = find_scans([folder])
    train = split_by_subject(subject_of(path) for path in scans).train
    heads = []
    for path in scans:
        if subject_of(path) not in train:
            continue
        volume = read_volume(path)
        coarsest = max(volume.voxel_mm)
        for size in (coarsest, 1.0) if coarsest < 0.95 else (coarsest,):
            values = np.asarray(volume.data, np.float32)
            for axis, mm in enumerate(volume.voxel_mm):
                count = round(values.shape[axis] * mm / size)
                values = values if count == values.shape[axis] else scipy.signal.resample(values, count, axis=axis)
            values = np.maximum(values / np.percentile(values[values > 0], 99), 0)
            heads.append(Head(subject_of(path), cropped(values)))
    return heads


def cropped(values: Float[np.ndarray, "i j k"]) -> Float[np.ndarray, "_ _ _"]:
    inside = np.argwhere(values > 0.1)
    first, last = np.maximum(inside.min(axis=0) - 6, 0), inside.max(axis=0) + 7
    return values[tuple(slice(a, b) for a, b in zip(first, last, strict=True))].copy()


def draw_case(head: Head, rng: np.random.Generator) -> dict[str, object] | None:
    """None where the head is too short for the slices, or the part drawn is air."""
    spacing = log_uniform(*SPACINGS, rng)
    width = log_uniform(NARROWEST, min(WIDEST_RATIO * spacing, WIDEST), rng)
    family = int(rng.integers(len(FAMILIES)))
    thin = np.moveaxis(head.values, rng.integers(3), 0)
    if thin.shape[0] < 8 * spacing:
        return None
    a, b = (int(rng.integers(max(n - SIDE, 0) + 1)) for n in thin.shape[1:])
    part = other_contrast(thin[:, a : a + SIDE, b : b + SIDE], rng)
    slices = degraded(thick(part, list(FAMILIES.values())[family](width), spacing, rng), rng)
    try:
        transformed = transform(slices.transpose(1, 2, 0), spacing)
        ratio, power = spectra(transformed, (1.0, 1.0), spacing, [(0, len(slices))])[0].log_ratio_and_power()
    except InputRefused:
        return None
    return {
        "log_ratio": ratio.astype(np.float16),
        "log_power": power.astype(np.float16),
        "spacing": spacing,
        "width": width,
        "family": family,
        "subject": head.subject,
    }


def thick(
    thin: Float[np.ndarray, "z a b"], profile: SliceProfile, spacing: float, rng: np.random.Generator
) -> Float[np.ndarray, "k a b"]:
    """Slices at a random position; the head goes on beyond its ends as its last voxel says."""
    count = min(SLICES, int(len(thin) / spacing))
    room = max(len(thin) - count * spacing, 0)
    centres = rng.uniform(0, room) + (np.arange(count) + 0.5) * spacing - 0.5
    margin = int(np.ceil(profile.half_width_mm)) + 1
    weights = integrate(thin_to_thick(profile, 1.0), centres, np.arange(-margin, len(thin) + margin, dtype=float))
    weights[:, margin] += weights[:, :margin].sum(axis=1)
    weights[:, -margin - 1] += weights[:, -margin:].sum(axis=1)
    return np.tensordot(weights[:, margin:-margin].astype(np.float32), thin, 1)


def other_contrast(values: Float[np.ndarray, "z a b"], rng: np.random.Generator) -> Float[np.ndarray, "z a b"]:
    """As it is, to a power, or through a piecewise linear map that may fall again; air stays dark."""
    kind = rng.random()
    if kind < 0.45:
        return values
    if kind < 0.75:
        return values ** log_uniform(0.6, 1.6, rng)
    rises = 0.2 + rng.random(6)
    if kind > 1 - TURNED:
        rises[int(rng.integers(1, 4)) :] *= -0.7
    heights = np.concatenate([[0], np.cumsum(rises)])
    return np.maximum(np.interp(values, np.linspace(0, 1.2, 7), heights / np.abs(heights).max()), 0).astype(np.float32)


def degraded(slices: Float[np.ndarray, "k a b"], rng: np.random.Generator) -> Float[np.ndarray, "k a b"]:
    """Half of the scans with Rician noise, a third interpolated in plane by the scanner."""
    if rng.random() < 0.5:
        noise = log_uniform(0.002, 0.04, rng)
        real, imaginary = (noise * rng.standard_normal(slices.shape, dtype=np.float32) for _ in range(2))
        slices = np.hypot(slices + real, imaginary)
    if rng.random() < 0.3:
        kept = [rng.uniform(0.35, 0.5) if rng.random() < 0.7 else 0.5 for _ in range(2)]
        inside = [np.abs(np.fft.fftfreq(n)) <= edge for n, edge in zip(slices.shape[1:], kept, strict=True)]
        slices = np.fft.ifft2(np.fft.fft2(slices) * np.outer(*inside)).real.astype(np.float32)
    return slices


def log_uniform(low: float, high: float, rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def fit(arguments: argparse.Namespace) -> None:
    cases = Cases.read(arguments.cases)
    weights = {}
    for seed in range(arguments.networks):
        network = fitted(cases, arguments.steps, seed)
        weights |= {f"{seed}.{name}": value.half() for name, value in network.state_dict().items()}
    save_file(weights, arguments.out)


def fitted(cases: Cases, steps: int, seed: int) -> ProfileScores:
    """Cross entropy to the true candidate and its neighbours; ratios are shifted a little, alike for all candidates."""
    torch.manual_seed(seed)  # torch draws initial weights and dropout from the global generator
    network = ProfileScores()
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    for _ in range(steps):
        batch = torch.randint(len(cases.spacing), (32,))
        ratio = cases.log_ratio[batch]
        ratio = ratio + 0.15 * torch.randn((len(batch), 1, *ratio.shape[2:]))
        told = network(ratio, cases.log_power[batch], cases.spacing[batch])
        loss = -(cases.answer[batch] * told).sum(1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return network.eval()


if __name__ == "__main__":
    main()
