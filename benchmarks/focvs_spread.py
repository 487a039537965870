"""Fit what `_std` is made of (focvs/spread.py) on training heads, and check it on validation heads.

    python benchmarks/focvs_spread.py FOLDER THIN.nii.gz... [--cells 4|1,5|0,8|0,10|0,16|0] [--shares .3,.4,.5]
        [--samples 4] [--preset standard] [--prior DIR] [--table-only]

Every case is simulated along the superior-inferior axis with a gaussian profile; its samples are kept in FOLDER and not
drawn again. Which heads are for training is decided by `priors.split`, and only these are fitted: gain and growth that
minimise the pinball loss of 1.645 sd as the 90 % quantile of |truth - mean|, each case relative to its mean error, over
20 000 voxels of its head. To be put into `focvs.spread.HEAD_2D` by hand.

Columns, over the head mask: root mean square error of the mean of the samples; `covered`, share of voxels within the
90 % band, before (raw spread, Student's t) and after (1.645 sd); `rank`, Spearman's correlation of |error| with sd;
`width`, mean sd over the root mean square error.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from focvs_vs_others import middle_case
from scipy import optimize, stats

import eclare
import focvs
from focvs.spread import SpreadFit
from forward_models.stack import Stack
from priors.split import split_by_subject, subject_of
from throughplane.sampling import DEFAULT_PRIOR, eclare_start, load_sampler

VOXELS = 20_000
SHARE = 0.9
WITHIN = float(stats.norm.ppf(0.5 + SHARE / 2))


@dataclass(frozen=True, eq=False)
class Drawn:
    """Samples of one simulated scan whose truth is known."""

    name: str
    stack: Stack
    truth: np.ndarray
    mask: np.ndarray
    each: np.ndarray

    @property
    def off(self) -> np.ndarray:
        return np.abs(self.truth - self.each.mean(axis=0))

    @property
    def raw(self) -> np.ndarray:
        return self.each.std(axis=0, ddof=1)

    def sd(self, fit: SpreadFit) -> np.ndarray:
        return fit.sd(torch.from_numpy(self.raw), self.stack).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("thin", type=Path, nargs="+")
    parser.add_argument("--cells", default="4|1,5|0,8|0,10|0,16|0", help="thickness|gap in mm, comma separated")
    parser.add_argument("--shares", default=".3,.4,.5", help="of the head: right, anterior, superior")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--preset", default="standard")
    parser.add_argument("--prior", type=Path, default=DEFAULT_PRIOR)
    parser.add_argument("--table-only", action="store_true", help="fit nothing: check the numbers in the package")
    arguments = parser.parse_args()
    shares = tuple(float(share) for share in arguments.shares.split(","))
    draw = partial(
        drawn, arguments.folder, shares=shares, n=arguments.samples, preset=arguments.preset, prior=arguments.prior
    )
    arguments.folder.mkdir(parents=True, exist_ok=True)
    cases = [draw(path, cell) for path in arguments.thin for cell in arguments.cells.split(",")]
    training = [case for case in cases if split_by_subject([subject_of(Path(case.name))]).train]
    fit = focvs.HEAD_2D
    if training and not arguments.table_only:
        fit = fitted(training)
        print(f"fitted on {len(training)} cases of training heads: gain {fit.gain:.3g}, growth {fit.growth:.3g}\n")
    print(table(cases, fit))


def drawn(folder: Path, path: Path, cell: str, shares: tuple[float, ...], n: int, preset: str, prior: Path) -> Drawn:
    """One case, from `folder` where it was drawn before."""
    stack, truth, mask = middle_case(path, shares, cell)
    name = f"{path.name.split('.')[0]} {cell}"
    kept = folder / f"{name.replace(' ', '_').replace('|', '-')}_{preset}_{n}_{'-'.join(map(str, shares))}.npy"
    if not kept.exists():
        np.save(kept, draws(stack, n, preset, prior))
    return Drawn(name, stack, truth, mask, np.load(kept).astype(np.float32))


def draws(stack: Stack, n: int, preset: str, folder: Path) -> np.ndarray:
    prior = load_sampler(folder, 1, torch.device("cpu")).prior.on(stack)
    estimate = partial(eclare_start, eclare.load_starting_network(), preset)
    generator = torch.Generator().manual_seed(0)
    grid = focvs.prior_grid(stack, prior.spacing_mm)
    config = replace(focvs.PRESETS[preset])
    each = focvs.draws(grid, prior, config, n, estimate=estimate, generator=generator)
    return torch.stack(list(each)).numpy().astype(np.float16)


def fitted(cases: Sequence[Drawn]) -> SpreadFit:
    """See the head of this file."""
    unit, spacings, errors, spreads = SpreadFit(1.0, 0.0), [], [], []
    for case in cases:
        inside = np.flatnonzero(case.mask)
        some = np.random.default_rng(0).choice(inside, min(VOXELS, len(inside)), replace=False)
        error = case.off.ravel()[some]
        errors.append(error / error.mean())
        spreads.append(case.sd(unit).ravel()[some] / error.mean())
        spacings.append(case.stack.selection.thick.spacing_mm)

    def loss(parameters: np.ndarray) -> float:
        fit = SpreadFit(float(np.exp(parameters[0])), float(parameters[1]))
        losses = []
        for spacing_mm, error, spread in zip(spacings, errors, spreads, strict=True):
            beyond = error - WITHIN * fit.factor(spacing_mm) * spread
            losses.append(np.maximum(SHARE * beyond, (SHARE - 1) * beyond).mean())
        return float(np.mean(losses))

    found = optimize.minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-7})
    return SpreadFit(float(np.exp(found.x[0])), float(found.x[1]))


def table(cases: Sequence[Drawn], fit: SpreadFit) -> str:
    lines = ["| volume, mm | split | rmse | covered | rank | width |", "|---" * 6 + "|"]
    for case in cases:
        off, inside = case.off, case.mask
        rmse = float(np.sqrt((off[inside] ** 2).mean()))
        n = len(case.each)
        student = float(stats.t.ppf(0.5 + SHARE / 2, n - 1)) * (1 + 1 / n) ** 0.5
        cells = []
        for sd, reach in ((case.raw, student), (case.sd(fit), WITHIN)):
            covered = float((off <= reach * sd)[inside].mean())
            rank = float(stats.spearmanr(off[inside], sd[inside])[0])
            cells.append((f"{covered:.0%}", f"{rank:.2f}", f"{float(sd[inside].mean()) / rmse:.2f}"))
        split = "training" if split_by_subject([subject_of(Path(case.name))]).train else "validation"
        both = [f"{before} to {after}" for before, after in zip(*cells, strict=True)]
        name = case.name.replace("|", chr(92) + "|")
        lines.append(f"| {name} | {split} | {rmse:.3f} | {' | '.join(both)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
