"""A denoiser of whole volumes made to work on a part at a time, where the whole does not fit."""

import math
from collections.abc import Callable, Iterator
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from focvs.denoising import VolumeDenoiser

OVERLAP = 32  # voxels that neighbouring tiles share
TRIM = 8  # of these, what a tile says next to its cut sides is not used

Shape = tuple[int, int, int]
Box = tuple[slice, slice, slice]


def by_tiles(denoise: VolumeDenoiser, tile_for: Callable[[Shape], Shape]) -> VolumeDenoiser:
    """`denoise` on overlapping tiles, blended smoothly; on the whole volume where that is what `tile_for` says.

    Exact where what is said of a voxel depends on no voxel farther than `TRIM` away.

    Args:
        denoise: of volumes of any size.
        tile_for: shape of a volume to shape of its tiles, see `tile_within`.
    """

    def denoise_volume(x: Float[Tensor, "a b z"], sigma: float) -> Float[Tensor, "a b z"]:
        shape = (x.shape[0], x.shape[1], x.shape[2])
        boxes = list(blended_tiles(shape, tile_for(shape)))
        if len(boxes) == 1:
            return denoise(x, sigma)
        total = torch.zeros_like(x)
        for box, weights in boxes:
            total[box] += weights.to(x) * denoise(x[box], sigma)
        return total

    return denoise_volume


def tile_within(shape: Shape, fits: Callable[[Shape], bool], multiple: int = 1) -> Shape:
    """The largest tile that fits, from the whole volume down, its longest side divided first.

    Args:
        shape: of the volume.
        fits: whether there is memory for a tile.
        multiple: sides are multiples of it, for networks that want that. No side gets shorter than two overlaps.
    """
    parts = [1, 1, 1]
    while True:
        tile = _rounded_up([_side(n, p) for n, p in zip(shape, parts, strict=True)], multiple)
        smaller = [axis for axis in range(3) if _side(shape[axis], parts[axis] + 1) >= 2 * OVERLAP]
        if fits(tile) or not smaller:
            return tile
        parts[max(smaller, key=lambda axis: tile[axis])] += 1


def _side(n: int, parts: int) -> int:
    """Of tiles that cover `n` voxels."""
    return -(-(n + (parts - 1) * OVERLAP) // parts)


def _rounded_up(sides: list[int], multiple: int) -> Shape:
    a, b, z = (-(-side // multiple) * multiple for side in sides)
    return a, b, z


def times_seen(shape: Shape, tile: Shape) -> float:
    """By how much overlaps multiply the work: voxels of all tiles over those of the volume."""
    return math.prod(
        sum(line.stop - line.start for line, _ in _along(n, s)) / n for n, s in zip(shape, tile, strict=True)
    )


def blended_tiles(shape: Shape, tile: Shape) -> Iterator[tuple[Box, Float[Tensor, "a b z"]]]:
    """Where the tiles lie, and what each one's answer weighs; the weights of a voxel add up to one."""
    lines = [_along(n, side) for n, side in zip(shape, tile, strict=True)]
    for (a, wa), (b, wb), (z, wz) in product(*lines):
        yield (a, b, z), wa[:, None, None] * wb[:, None] * wz


def _along(n: int, side: int) -> list[tuple[slice, Float[Tensor, " side"]]]:
    """Tiles along one axis, evenly spread."""
    if side >= n:
        return [(slice(0, n), torch.ones(n, dtype=torch.float64))]
    count = 1 + -(-(n - side) // (side - OVERLAP))
    starts = [round(i * (n - side) / (count - 1)) for i in range(count)]
    places = torch.arange(n)
    weights = torch.zeros(count, n, dtype=torch.float64)
    for weight, start in zip(weights, starts, strict=True):
        left = torch.full((n,), float(n)) if start == 0 else places - start + 0.5
        right = torch.full((n,), float(n)) if start + side == n else start + side - places - 0.5
        ramp = ((torch.minimum(left, right) - TRIM) / (OVERLAP - 2 * TRIM)).clamp(0, 1)
        weight += torch.sin(torch.pi / 2 * ramp) ** 2
    weights = weights / weights.sum(dim=0)
    return [(slice(s, s + side), weight[s : s + side]) for s, weight in zip(starts, weights, strict=True)]
