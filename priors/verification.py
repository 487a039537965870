"""Whether a prior on disk can be trusted to be what it says."""

from pathlib import Path

import torch

from forward_models import InputRefused
from priors.checkpoint import load_checkpoint
from priors.folders import CONFIG, read_json, refuse_pickles
from priors.planes import Plane
from priors.volumes import FORMAT as VOLUMES
from priors.volumes import load_volume_prior

SIGMA = 0.2
SIZE = 64


def verify(folder: Path) -> str:
    """Load a prior of slices or of volumes with every check there is, let it denoise, and return its hash.

    Raises:
        InputRefused: a check failed, or what it makes of a noisy patch is not finite.
    """
    refuse_pickles(folder)
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        if read_json(folder, CONFIG).get("format") == VOLUMES:
            volumes = load_volume_prior(folder)
            estimates = [volumes.denoise(SIGMA * torch.randn((1, 16, 16, 16), generator=generator), SIGMA)]
            sha256 = volumes.sha256 or ""
        else:
            slices = load_checkpoint(folder)
            noise = SIGMA * torch.randn((1, SIZE, SIZE), generator=generator)
            estimates = [slices.prior.denoise(noise, SIGMA, plane) for plane in Plane]
            sha256 = slices.sha256
    if not all(torch.isfinite(estimate).all() for estimate in estimates):
        raise InputRefused(f"{folder} denoises air to values that are not finite; its weights are damaged")
    return sha256
