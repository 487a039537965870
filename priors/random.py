"""Random numbers and smooth random fields; every draw takes a generator."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def generator_for(seed: int, index: int) -> torch.Generator:
    """The generator of draw `index` in run `seed`: patches do not depend on the order in which they are made.

    A CPU generator keeps 32 bits of its seed; runs are spread over them by the golden ratio.
    """
    return torch.Generator().manual_seed((seed * 0x9E3779B1 + index) % 2**32)


def uniform(low: float, high: float, *, generator: torch.Generator) -> float:
    """One number between `low` and `high`."""
    return low + (high - low) * float(torch.rand((), generator=generator))


def log_uniform(low: float, high: float, *, generator: torch.Generator) -> float:
    """One number between `low` and `high`, its logarithm uniform."""
    return low * (high / low) ** float(torch.rand((), generator=generator))


def chance(probability: float, *, generator: torch.Generator) -> bool:
    """True with this probability."""
    return float(torch.rand((), generator=generator)) < probability


def smooth_field(shape: tuple[int, ...], nodes: int, *, generator: torch.Generator) -> Float[Tensor, "rows columns"]:
    """A standard normal at each of `nodes` x `nodes` points spread over `shape`, bicubic between them."""
    coarse = torch.randn((1, 1, nodes, nodes), generator=generator)
    return F.interpolate(coarse, size=shape, mode="bicubic", align_corners=True)[0, 0]


def gaussian_blur(image: Float[Tensor, "rows columns"], sd: float) -> Float[Tensor, "rows columns"]:
    """Blur by a Gaussian of `sd` pixels, edges replicated."""
    half = max(1, math.ceil(3 * sd))
    taps = torch.exp(-0.5 * (torch.arange(-half, half + 1) / sd) ** 2)
    taps = taps / taps.sum()
    padded = F.pad(image[None, None], (half, half, half, half), mode="replicate")
    return F.conv2d(F.conv2d(padded, taps[None, None, :, None]), taps[None, None, None, :])[0, 0]
