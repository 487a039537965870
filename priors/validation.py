"""How well a prior denoises slices of subjects it was not trained on."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from priors.blocks import block_mean
from priors.data import HeadScan, head_mask
from priors.planes import Plane, slice_of
from priors.random import generator_for

SIGMAS = (0.05, 0.1, 0.2, 0.5)
SHARES = (0.35, 0.55)  # which slices: at these shares of the way through the head
SEED = 20_250_101


@dataclass(frozen=True, eq=False)
class FixedSlice:
    """A validation slice, where its head is, and standard normal noise that is always the same."""

    scan: str
    contrast: str
    plane: Plane
    clean: Float[Tensor, "rows columns"]
    head: Bool[Tensor, "rows columns"]
    noise: Float[Tensor, "rows columns"]


def fixed_slices(scans: tuple[HeadScan, ...], shares: tuple[float, ...] = SHARES) -> tuple[FixedSlice, ...]:
    """Slices of every scan in every plane, the same at every call."""
    slices: list[FixedSlice] = []
    for scan in scans:
        voxels = scan.voxels.float()
        head = head_mask(voxels)
        for plane in Plane:
            useful = scan.slices[plane.value]
            for share in shares:
                index = int(useful[int(share * (len(useful) - 1))])
                clean = slice_of(voxels, plane, index)
                noise = torch.randn(clean.shape, generator=generator_for(SEED, len(slices)))
                inside = slice_of(head, plane, index)
                slices.append(FixedSlice(scan.name, scan.contrast, plane, clean, inside, noise))
    return tuple(slices)


def averaged(slices: tuple[FixedSlice, ...], ratio: int) -> tuple[FixedSlice, ...]:
    """On pixels `ratio` times as large; the noise is that of the means, standard normal again."""

    def of(item: FixedSlice) -> FixedSlice:
        clean, head, noise = block_mean(torch.stack([item.clean, item.head.float(), item.noise]), ratio)
        return replace(item, clean=clean, head=head > 0.5, noise=ratio * noise)

    return tuple(map(of, slices))


def head_psnr(
    estimate: Float[Tensor, "rows columns"], truth: Float[Tensor, "rows columns"], head: Bool[Tensor, "rows columns"]
) -> float:
    """Peak signal-to-noise ratio in dB over the head, for a data range of 1, the robust maximum."""
    return float(-10 * torch.log10(((estimate - truth)[head] ** 2).double().mean()))


def denoising_psnr(
    denoise: Callable[[Float[Tensor, "batch rows columns"], float, Plane], Float[Tensor, "batch rows columns"]],
    slices: tuple[FixedSlice, ...],
    sigma: float,
) -> tuple[float, ...]:
    """Head PSNR in dB of every slice after noise of `sigma` was added and removed."""
    scores = []
    for item in slices:
        estimate = denoise((item.clean + sigma * item.noise)[None], sigma, item.plane)[0]
        scores.append(head_psnr(estimate, item.clean, item.head))
    return tuple(scores)


def mean_psnr_by_sigma(
    denoise: Callable[[Float[Tensor, "batch rows columns"], float, Plane], Float[Tensor, "batch rows columns"]],
    slices: tuple[FixedSlice, ...],
    sigmas: tuple[float, ...] = SIGMAS,
) -> dict[float, float]:
    """Mean over slices, per noise level."""
    return {sigma: float(torch.tensor(denoising_psnr(denoise, slices, sigma)).mean()) for sigma in sigmas}
