"""Denoising of whole slices by a prior, by one of larger pixels, and by the two together.

python benchmarks/prior_two_scales.py PRIOR LAYOUT SCANS

SCANS is a folder of thin heads; some slices of the training heads are denoised, on which the crossover was chosen, and
one per plane of the validation heads. PSNR in dB, data range 1 (the robust maximum), over the head and over all of the
slice. `layout alone` is enlarged linearly; `detail and layout` is `priors.two_scales` with all block means taken from
the layout; `as sampled` is what `throughplane prior sample --layout` uses.
"""

import argparse
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor

from priors.checkpoint import Checkpoint, load_checkpoint
from priors.corpus import read_corpus
from priors.denoiser import pad_to_multiple
from priors.two_scales import block_mean, enlarged, two_scales
from priors.validation import FixedSlice, fixed_slices, head_psnr
from throughplane.prior_samples import CROSSOVER

SIGMAS = (0.2, 0.5, 0.7, 1.0, 1.5, 2.0, 4.0, 8.0)
ALWAYS = (1e-9, 2e-9)  # a crossover below every sigma
SHARES = (0.45,)
TUNING_EVERY = 4  # of the slices of training heads: three per scan, so another plane each time


def estimates(prior: Checkpoint, layout: Checkpoint, item: FixedSlice, sigma: float) -> dict[str, Tensor]:
    """Of one slice, by each denoiser; the prior works once."""
    x = (item.clean + sigma * item.noise)[None]
    ratio = round(layout.preprocess["spacing_mm"] / prior.preprocess["spacing_mm"])
    coarse = layout.prior.of_plane(item.plane)
    padded, inside = pad_to_multiple(x, ratio)
    fine = prior.prior.denoise(x, sigma, item.plane)

    def together(crossover: tuple[float, float]) -> Tensor:
        return two_scales(lambda *_: fine, coarse, ratio, crossover)(x, sigma)

    return {
        "prior alone": fine[0],
        "layout alone": enlarged(coarse(block_mean(padded, ratio), sigma / ratio), ratio)[inside][0],
        "detail and layout": together(ALWAYS)[0],
        "as sampled": together(CROSSOVER)[0],
    }


def scores(prior: Checkpoint, layout: Checkpoint, slices: tuple[FixedSlice, ...], sigma: float) -> dict[str, str]:
    """Mean PSNR over the head, and over all of the slice, by denoiser."""
    pairs = [(item, estimates(prior, layout, item, sigma)) for item in slices]

    def told(name: str) -> str:
        of_heads = mean(head_psnr(found[name], item.clean, item.head) for item, found in pairs)
        of_slices = mean(head_psnr(found[name], item.clean, torch.ones_like(item.head)) for item, found in pairs)
        return f"{of_heads:.2f}, {of_slices:.2f}"

    return {name: told(name) for name in pairs[0][1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("prior", "layout", "scans"):
        parser.add_argument(name, type=Path)
    args = parser.parse_args()
    prior, layout = load_checkpoint(args.prior), load_checkpoint(args.layout)
    corpus = read_corpus([args.scans])
    groups = {
        "training": fixed_slices(corpus.train, SHARES)[::TUNING_EVERY],
        "validation": fixed_slices(corpus.validation, SHARES),
    }
    for group, slices in groups.items():
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            table = {sigma: scores(prior, layout, slices, sigma) for sigma in SIGMAS}
        names = list(table[SIGMAS[0]])
        print(f"\n{group}, {len(slices)} slices: head, slice\n\n| sigma | {' | '.join(names)} |")
        print("|---" * (1 + len(names)) + "|")
        for sigma, row in table.items():
            print(f"| {sigma:g} | {' | '.join(row.values())} |", flush=True)


if __name__ == "__main__":
    main()
