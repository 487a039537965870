"""Pre-train the network that ECLARE starts with, on the training subjects among thin scans.

    python scripts/pretrain_eclare.py FOLDER OUT.safetensors [--steps 40000] [--seed 0]

OUT is written every few minutes with the averaged weights so far. The one that ships, eclare/weights/head.safetensors,
came from the scans named in its model card beside it, in 80 000 steps.
"""

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from eclare.pretraining import PretrainingConfig, StartingNetwork, pretrain
from eclare.saved import save_starting_network
from priors.augment import LOG_BIAS_SD, NOISES, intensity_map, with_rician_noise
from priors.corpus import read_corpus
from priors.data import HeadScan
from priors.random import chance, log_uniform, smooth_field

NEIGHBOURS = 24  # slices of one lesson
SAVE_SECONDS = 240
SCALES = (0.75, 1.3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=PretrainingConfig.steps)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    corpus = read_corpus([arguments.scans])
    print("training scans:", ", ".join(scan.name for scan in corpus.train), flush=True)
    saved = time.monotonic()

    def keep(step: int, network: StartingNetwork) -> None:
        nonlocal saved
        if time.monotonic() - saved > SAVE_SECONDS:
            saved = time.monotonic()
            save_starting_network(network, arguments.out)
            print(f"step {step}", flush=True)

    network = pretrain(
        PretrainingConfig(steps=arguments.steps),
        lambda generator: draw_head(corpus.train, generator),
        generator=torch.Generator().manual_seed(arguments.seed),
        keep=keep,
    )
    save_starting_network(network, arguments.out)


def draw_head(scans: tuple[HeadScan, ...], generator: torch.Generator) -> Float[Tensor, "a b c"]:
    """A slab of neighbouring slices of any plane, sometimes scaled, with other intensities."""
    scan = scans[int(torch.randint(len(scans), (), generator=generator))]
    axis = int(torch.randint(3, (), generator=generator))
    allowed = scan.slices[axis]
    middle = int(allowed[torch.randint(len(allowed), (), generator=generator)])
    slab = scan.voxels.movedim(axis, -1)[..., max(0, middle - NEIGHBOURS // 2) : middle + NEIGHBOURS // 2].float()
    if chance(0.5, generator=generator):
        scale = log_uniform(*SCALES, generator=generator)
        slab = F.interpolate(slab[None, None], scale_factor=scale, mode="trilinear", align_corners=False)[0, 0]
    if chance(0.5, generator=generator):
        slab = slab.clamp(min=0) ** log_uniform(0.67, 1.5, generator=generator)
    if chance(0.4, generator=generator):
        slab = intensity_map(slab, inverting=chance(0.6, generator=generator), generator=generator)
    if chance(0.5, generator=generator):
        slab = slab * torch.exp(LOG_BIAS_SD * smooth_field(slab.shape[:2], nodes=3, generator=generator))[..., None]
    if chance(0.3, generator=generator):
        slab = with_rician_noise(slab, log_uniform(*NOISES, generator=generator), generator=generator)
    return slab.contiguous()


if __name__ == "__main__":
    main()
