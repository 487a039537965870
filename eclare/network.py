"""The network: thick slices in, thin slices out, for any factor."""

import math
from dataclasses import dataclass
from typing import cast

import torch
from einops import rearrange
from jaxtyping import Float, Float64
from torch import Tensor, nn

from eclare.config import BlockKind, EclareConfig
from eclare.precision import reduced_precision
from forward_models import SliceGrid, SliceSelection, resampling_weights


@dataclass(frozen=True, eq=False)
class GridChange:
    """The fixed linear parts of the network for one pair of grids.

    Attributes:
        interpolate: cubic spline from thick to thin slices, (thin, thick): the skip connection.
        compose: from the cosines within every thick slice to thin slices, (thin, thick * oversampling), keeping the
            field of view.
    """

    interpolate: Float[Tensor, "thin thick"]
    compose: Float[Tensor, "thin coefficients"]

    def to(self, device: torch.device) -> "GridChange":
        return GridChange(self.interpolate.to(device), self.compose.to(device))


def oversampling_for(spacing_mm: float, thin_mm: float) -> int:
    """The factor, rounded up."""
    return math.ceil(spacing_mm / thin_mm - 1e-6)


def grid_change(thick: SliceGrid, thin: SliceGrid) -> GridChange:
    """The linear parts for these grids, in float32."""
    oversampling = oversampling_for(thick.spacing_mm, thin.spacing_mm)
    fine = SliceGrid(thick.count * oversampling, thick.spacing_mm / oversampling, thick.middle_mm)
    samples = torch.block_diag(*[_cosines(oversampling)] * thick.count)
    same = fine.count == thin.count and math.isclose(fine.spacing_mm, thin.spacing_mm, rel_tol=1e-6)
    return GridChange(
        interpolate=resampling_weights(thick, thin).float(),
        compose=(samples if same else resampling_weights(fine, thin) @ samples).float(),
    )


def _cosines(count: int) -> Float64[Tensor, "count count"]:
    """cos(pi k (j + 1/2) / n): column k is the k-th cosine at the middles of n equal parts of a slice."""
    part, order = torch.arange(count, dtype=torch.float64)[:, None] + 0.5, torch.arange(count, dtype=torch.float64)
    return torch.cos(math.pi * order * part / count)


class ThroughPlaneNetwork(nn.Module):
    """Residual of the thin slices over their cubic interpolation, computed on the thick grid.

    Works on one reformatted slice of the scan; its neighbours are further channels of the input.
    Convolutions see one value per thick slice; the last one gives `oversampling` channels: the amplitudes of as many
    cosines within the slice. Sampled that often and resampled to the thin grid, they are the pixel shuffle of the
    published network in a basis that means the same for every factor.
    """

    def __init__(self, config: EclareConfig, oversampling: int) -> None:
        super().__init__()
        make = {BlockKind.PLAIN: _plain_block, BlockKind.WIDE: _wide_block}[config.block]
        self.neighbours = config.neighbours
        self.head = nn.Conv2d(2 * config.neighbours + 1, config.channels, 3, padding=1)
        self.blocks = nn.ModuleList(make(config.channels) for _ in range(config.blocks))
        self.tail = nn.Conv2d(config.channels, oversampling, 3, padding=1)

    def forward(
        self, slices: Float[Tensor, "batch near thick width"], change: GridChange
    ) -> Float[Tensor, "batch 1 thin width"]:
        with reduced_precision(slices.device):
            amplitudes = self._amplitudes(slices)
        return change.interpolate @ slices[:, self.neighbours, None] + change.compose @ amplitudes.float()

    def _amplitudes(self, slices: Float[Tensor, "batch near thick width"]) -> Float[Tensor, "batch 1 cosine width"]:
        """Of `oversampling` cosines per slice."""
        x = start = self.head(slices)
        for block in self.blocks:
            x = x + block(x)
        return rearrange(self.tail(x + start), "batch order thick width -> batch 1 (thick order) width")


def new_network(config: EclareConfig, oversampling: int, generator: torch.Generator) -> ThroughPlaneNetwork:
    """He's initialisation, drawn from the generator; residual blocks start as the identity, the network as the skip."""
    with torch.random.fork_rng(devices=[]):  # torch draws its own initial weights from the global generator
        network = ThroughPlaneNetwork(config, oversampling)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=generator)
            nn.init.zeros_(cast(Tensor, module.bias))
    for last in (*(cast(nn.Sequential, block)[-1] for block in network.blocks), network.tail):
        nn.init.zeros_(cast(Tensor, last.weight))
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def network_for(selection: SliceSelection, config: EclareConfig, generator: torch.Generator) -> ThroughPlaneNetwork:
    """A new network with as many cosines per slice as the factor asks for."""
    return new_network(config, oversampling_for(selection.thick.spacing_mm, selection.thin.spacing_mm), generator)


def _plain_block(channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)
    )


def _wide_block(channels: int) -> nn.Module:
    narrow = int(0.8 * channels)
    return nn.Sequential(
        nn.Conv2d(channels, 4 * channels, 1),
        nn.ReLU(),
        nn.Conv2d(4 * channels, narrow, 1),
        nn.Conv2d(narrow, channels, 3, padding=1),
    )
