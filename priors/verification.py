"""Whether a prior on disk can be trusted to be what it says."""

from pathlib import Path

import torch

from forward_models import InputRefused
from priors.loading import load_any
from priors.planes import Plane
from priors.volumes import VolumePrior

SIGMA = 0.2
SIZE = 64


def verify(folder: Path) -> str:
    """Load a prior of slices or of volumes with every check there is, let it denoise, and return its hash.

    Raises:
        InputRefused: a check failed, or what it makes of a noisy patch is not finite.
    """
    prior, generator = load_any(folder), torch.Generator().manual_seed(0)
    with torch.inference_mode():
        if isinstance(prior, VolumePrior):
            estimates = [prior.denoise(SIGMA * torch.randn((1, 16, 16, 16), generator=generator), SIGMA)]
        else:
            noise = SIGMA * torch.randn((1, SIZE, SIZE), generator=generator)
            estimates = [prior.prior.denoise(noise, SIGMA, plane) for plane in Plane]
    if not all(torch.isfinite(estimate).all() for estimate in estimates):
        raise InputRefused(f"{folder} denoises air to values that are not finite; its weights are damaged")
    return prior.sha256 or ""
