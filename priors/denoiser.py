"""The denoiser: noisy slices of a plane to the mean of the clean slices they may come from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from jaxtyping import Float, Int64
from torch import Tensor, nn

from priors.noise import Preconditioning, log_noise
from priors.planes import Plane

FOLD = 2


@dataclass(frozen=True)
class DenoiserConfig:
    """Architecture and intensity statistics of a `SliceDenoiser`.

    Attributes:
        channels: per resolution level; the first works on slices folded 2 x 2, each next on half the pixels.
        blocks_per_level: residual blocks on the way down; one more on the way up.
        norm_groups: of every group normalisation.
        head_channels: per attention head, at the lowest resolution only.
        mean, sigma_data: of the intensities of training patches.
    """

    channels: tuple[int, ...] = (48, 96, 128, 192)
    blocks_per_level: int = 1
    norm_groups: int = 8
    head_channels: int = 32
    mean: float = 0.35
    sigma_data: float = 0.35

    @property
    def multiple(self) -> int:
        """Slices are padded to a multiple of this many pixels."""
        return FOLD * 2 ** (len(self.channels) - 1)

    @property
    def preconditioning(self) -> Preconditioning:
        return Preconditioning(self.mean, self.sigma_data)


class SliceDenoiser(nn.Module):
    """D(x, sigma, plane), fully convolutional around a U-Net on folded slices."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.config = config
        self.unet = _unet(config)

    def forward(
        self, x: Float[Tensor, "batch rows columns"], sigma: Float[Tensor, " batch"], plane: Int64[Tensor, " batch"]
    ) -> Float[Tensor, "batch rows columns"]:
        """x0 in the dtype of `x`; the network runs in the dtype of its weights, or in autocast's."""
        edm = self.config.preconditioning
        s = sigma[:, None, None]
        network_in = (edm.c_in(s) * (x - edm.mean)).to(next(self.parameters()).dtype)
        padded, box = pad_to_multiple(network_in, self.config.multiple)
        folded = fold(padded).contiguous(memory_format=torch.channels_last)
        raw = self.unet(folded, log_noise(sigma), class_labels=plane, return_dict=False)[0]
        network_out = unfold(raw)[box].to(x.dtype)
        return edm.mean + edm.c_skip(s) * (x - edm.mean) + edm.c_out(s) * network_out


def new_denoiser(config: DenoiserConfig) -> SliceDenoiser:
    """Untrained, weights laid out channels last: convolutions on a CPU are faster that way."""
    network: SliceDenoiser = SliceDenoiser(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


@dataclass(frozen=True, eq=False)
class Prior:
    """A trained denoiser, ready to use; what `focvs` sees of this package.

    Intensities are those of `preprocess.json`: air 0, robust maximum about 1, pixels of 1 mm.
    """

    network: SliceDenoiser

    def denoise(
        self, x: Float[Tensor, "batch rows columns"], sigma: float, plane: Plane
    ) -> Float[Tensor, "batch rows columns"]:
        """The posterior mean of x0 given x = x0 + sigma * n, slice by slice, for slices of any size.

        Differentiable in x where x asks for gradients; weights that `load_checkpoint` returns ask for none.
        """
        if not sigma > 0:
            raise ValueError(f"sigma is {sigma}; expected a positive noise level, in intensity units")
        sigmas = torch.full((len(x),), sigma, device=x.device)
        planes = torch.full((len(x),), plane.value, device=x.device)
        return self.network(x, sigmas, planes)

    def of_plane(self, plane: Plane) -> Callable[[Tensor, float], Tensor]:
        """denoise(x, sigma) -> x0 for slices of one plane."""

        def denoise(x: Float[Tensor, "batch rows columns"], sigma: float) -> Float[Tensor, "batch rows columns"]:
            return self.denoise(x, sigma, plane)

        return denoise


def _unet(config: DenoiserConfig) -> nn.Module:
    """Its output starts at 0, which makes the untrained denoiser exact for Gaussian intensities."""
    levels = len(config.channels)
    unet = UNet2DModel(
        in_channels=FOLD**2,
        out_channels=FOLD**2,
        block_out_channels=config.channels,
        layers_per_block=config.blocks_per_level,
        down_block_types=("DownBlock2D",) * levels,
        up_block_types=("UpBlock2D",) * levels,
        norm_num_groups=config.norm_groups,
        attention_head_dim=config.head_channels,
        num_class_embeds=len(Plane),
    )
    module = cast(nn.Module, unet)  # diffusers is not typed
    for parameter in module.get_submodule("conv_out").parameters():
        nn.init.zeros_(parameter)
    return module


def fold(x: Float[Tensor, "batch rows columns"]) -> Float[Tensor, "batch 4 rows/2 columns/2"]:
    """Blocks of 2 x 2 pixels to channels: a quarter of the positions, nothing lost."""
    return F.pixel_unshuffle(x[:, None], FOLD)


def unfold(x: Float[Tensor, "batch 4 rows columns"]) -> Float[Tensor, "batch rows*2 columns*2"]:
    """Inverse of `fold`."""
    return F.pixel_shuffle(x, FOLD)[:, 0]


def pad_to_multiple(
    x: Float[Tensor, "batch *size"], multiple: int
) -> tuple[Float[Tensor, "batch *padded_size"], tuple[slice, ...]]:
    """Slices or volumes padded on all sides to multiples of `multiple`, and the index that undoes it.

    Mirror images continue head and noise alike; slices too small for them repeat their edge.
    """
    sizes = x.shape[1:]
    missing = [-size % multiple for size in sizes]
    before = [m // 2 for m in missing]
    pads = [p for m, b in zip(missing[::-1], before[::-1], strict=True) for p in (b, m - b)]
    mirrors = all(m - b < size for m, b, size in zip(missing, before, sizes, strict=True))
    padded = F.pad(x, pads, mode="reflect" if mirrors else "replicate")
    return padded, (slice(None), *(slice(b, b + size) for b, size in zip(before, sizes, strict=True)))
