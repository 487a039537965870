"""Variety from few heads: where a patch lies, and what its intensities are."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from priors.planes import Plane
from priors.random import chance, gaussian_blur, log_uniform, smooth_field, uniform

RESAMPLED = 0.5  # probability; interpolation smooths a little, so half the patches keep the scan's own voxels
ROTATION_DEGREES = 8.0  # standard deviation
SCALES = (0.8, 1.25)  # mm per pixel of the patch
ASPECTS = (0.95, 1.05)
GAINS = (0.7, 1.42)  # what forward_models.intensity_scale leaves, a power of two
LOG_BIAS_SD = 0.15
NOISES = (0.003, 0.03)
WHOLE_SCALES = (0.9, 1.2)  # of whole slices: a little smaller than life rather than larger, so that heads fit
WHOLE_ASPECTS = (0.92, 1.09)
SHEAR_SD = 0.05
OFF_CENTRE = 3.0  # pixels of the patch, in either direction
BEND_SD = 0.8  # pixels of the patch, at each of BEND_NODES x BEND_NODES points
BEND_NODES = 5


@dataclass(frozen=True)
class Placement:
    """Where a patch lies in a slice: pixel (r, c) of the patch shows the slice at `offset + turn (r, c)`.

    Attributes:
        turn: 2 x 2, rotation times pixel size in slice pixels; the identity copies pixels.
        offset: of the patch's first pixel centre, in slice pixels (row, column).
        mirrored: reverse the left-right axis afterwards.
        bend: added to the position, in slice pixels (row, column), at nodes spread over the patch; bicubic between.
    """

    turn: tuple[tuple[float, float], tuple[float, float]]
    offset: tuple[float, float]
    mirrored: bool
    bend: Float[Tensor, "2 nodes nodes"] | None = None

    @property
    def copies_pixels(self) -> bool:
        return self.turn == ((1.0, 0.0), (0.0, 1.0)) and self.bend is None

    def finer(self, ratio: int) -> "Placement":
        """The same patch with pixels `ratio` times smaller and as many more, centred on the coarse ones."""
        shift = (1 / ratio - 1) / 2
        turn = tuple(tuple(value / ratio for value in row) for row in self.turn)
        offset = tuple(o + shift * (row[0] + row[1]) for o, row in zip(self.offset, self.turn, strict=True))
        finer = ((turn[0][0], turn[0][1]), (turn[1][0], turn[1][1]))
        return Placement(finer, (offset[0], offset[1]), self.mirrored, self.bend)


def draw_placement(shape: tuple[int, ...], size: int, plane: Plane, *, generator: torch.Generator) -> Placement:
    """A random placement of a `size` x `size` patch, its middle uniform over where it mostly overlaps the slice."""
    turn = ((1.0, 0.0), (0.0, 1.0))
    if chance(RESAMPLED, generator=generator):
        turn = _draw_turn(generator=generator)
    offset = []
    for length, row in zip(shape, turn, strict=True):
        slack = max(0.0, (length - 0.75 * size) / 2)  # a quarter of the patch may hang over
        middle = (length - 1) / 2 + uniform(-slack, slack, generator=generator)
        offset.append(middle - (row[0] + row[1]) * (size - 1) / 2)
    if turn == ((1.0, 0.0), (0.0, 1.0)):
        offset = [float(round(o)) for o in offset]
    mirrored = plane.mirror_axis is not None and chance(0.5, generator=generator)
    return Placement(turn, (offset[0], offset[1]), mirrored)


def draw_whole(shape: tuple[int, ...], size: int, pixel: int, plane: Plane, *, generator: torch.Generator) -> Placement:
    """A whole slice in a patch whose pixels are `pixel` times as wide: turned, sheared, bent, off centre."""
    angle = math.radians(ROTATION_DEGREES * float(torch.randn((), generator=generator)))
    scale = pixel * log_uniform(*WHOLE_SCALES, generator=generator)
    aspect = log_uniform(*WHOLE_ASPECTS, generator=generator)
    shear = SHEAR_SD * float(torch.randn((), generator=generator))
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    turn = ((c * aspect, (shear * c - s) / aspect), (s * aspect, (shear * s + c) / aspect))
    offset = []
    for length, row in zip(shape, turn, strict=True):
        middle = (length - 1) / 2 + pixel * uniform(-OFF_CENTRE, OFF_CENTRE, generator=generator)
        offset.append(middle - (row[0] + row[1]) * (size - 1) / 2)
    bend = pixel * BEND_SD * torch.randn((2, BEND_NODES, BEND_NODES), generator=generator)
    mirrored = plane.mirror_axis is not None and chance(0.5, generator=generator)
    return Placement(turn, (offset[0], offset[1]), mirrored, bend)


def _draw_turn(*, generator: torch.Generator) -> tuple[tuple[float, float], tuple[float, float]]:
    angle = math.radians(ROTATION_DEGREES * float(torch.randn((), generator=generator)))
    scale = log_uniform(*SCALES, generator=generator)
    aspect = log_uniform(*ASPECTS, generator=generator)
    c, s = math.cos(angle), math.sin(angle)
    return ((c * scale * aspect, -s * scale / aspect), (s * scale * aspect, c * scale / aspect))


def extract(
    image: Shaped[Tensor, "rows columns"], placement: Placement, size: int, mirror_axis: int | None
) -> Shaped[Tensor, "size size"]:
    """The patch at `placement`; air, 0, outside the slice. Floats are interpolated (bicubic), labels are picked."""
    if placement.copies_pixels:
        patch = _cropped(image, (round(placement.offset[0]), round(placement.offset[1])), size)
    else:
        mode = "bicubic" if image.is_floating_point() else "nearest"
        grid = _sampling_grid(image.shape, placement, size)
        patch = F.grid_sample(image.float()[None, None], grid[None], mode=mode, align_corners=True)[0, 0]
        patch = patch.clamp(min=0).to(image.dtype)
    return patch.flip(mirror_axis) if placement.mirrored and mirror_axis is not None else patch


def _cropped(image: Shaped[Tensor, "rows columns"], first: tuple[int, int], size: int) -> Shaped[Tensor, "size size"]:
    pads = [p for start, n in zip(first[::-1], image.shape[::-1], strict=True) for p in (-start, start + size - n)]
    return F.pad(image, pads)  # negative padding crops


def _sampling_grid(shape: tuple[int, ...], placement: Placement, size: int) -> Float[Tensor, "size size 2"]:
    """Positions as grid_sample wants them: (column, row), -1 and 1 at the centres of the outer pixels."""
    r, c = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    rows, columns = (
        offset + row[0] * r + row[1] * c for offset, row in zip(placement.offset, placement.turn, strict=True)
    )
    if placement.bend is not None:
        bend = F.interpolate(placement.bend[None], size=(size, size), mode="bicubic", align_corners=True)[0]
        rows, columns = rows + bend[0], columns + bend[1]
    return torch.stack([2 * columns / (shape[1] - 1) - 1, 2 * rows / (shape[0] - 1) - 1], dim=-1)


def vary_intensities(
    patch: Float[Tensor, "rows columns"], *, generator: torch.Generator, recontrast: bool
) -> Float[Tensor, "rows columns"]:
    """Another scanner and, sometimes, another contrast. Air stays at 0.

    Args:
        patch: intensities from 0, robust maximum 1.
        generator: of every draw.
        recontrast: whether intensity maps may be drawn; synthetic heads have had theirs.
    """
    if recontrast and chance(0.5, generator=generator):
        patch = patch.clamp(min=0) ** log_uniform(0.67, 1.5, generator=generator)
    if recontrast and chance(0.35, generator=generator):
        patch = intensity_map(patch, inverting=chance(0.6, generator=generator), generator=generator)
    if chance(0.5, generator=generator):
        patch = patch * torch.exp(LOG_BIAS_SD * smooth_field(patch.shape, nodes=3, generator=generator))
    patch = patch * log_uniform(*GAINS, generator=generator)
    if chance(0.1, generator=generator):
        patch = gaussian_blur(patch, uniform(0.3, 0.7, generator=generator))
    if chance(0.15, generator=generator):
        patch = with_rician_noise(patch, log_uniform(*NOISES, generator=generator), generator=generator)
    return patch


def intensity_map(
    patch: Float[Tensor, "rows columns"], *, inverting: bool, generator: torch.Generator
) -> Float[Tensor, "rows columns"]:
    """A piecewise linear map of intensity, fixed at 0: rising, or rising up to about a fifth and falling beyond.

    The falling one makes of a T1w head one whose fluid is brighter than its white matter, while air stays dark.
    """
    knots = torch.linspace(0, 1.2, 7)
    if inverting:
        peak = uniform(0.12, 0.3, generator=generator)
        knots = torch.cat([torch.zeros(1), torch.linspace(peak, 1.2, 6)])
        steps = -(0.3 + torch.rand(5, generator=generator))
        falling = 1 + torch.cumsum(steps, 0) / (-steps.sum()) * uniform(0.6, 0.95, generator=generator)
        values = torch.cat([torch.zeros(1), torch.ones(1), falling])
    else:
        steps = 0.2 + torch.rand(6, generator=generator)
        values = torch.cat([torch.zeros(1), torch.cumsum(steps, 0) / steps.sum() * 1.2])
    x = patch.clamp(0, float(knots[-1]))
    right = torch.searchsorted(knots, x.contiguous()).clamp(1, len(knots) - 1)
    share = (x - knots[right - 1]) / (knots[right] - knots[right - 1])
    return values[right - 1] + share * (values[right] - values[right - 1])


def with_rician_noise(x: Float[Tensor, "*shape"], sd: float, *, generator: torch.Generator) -> Float[Tensor, "*shape"]:
    """The magnitude, with noise of `sd` in the real and in the imaginary channel."""
    real, imaginary = sd * torch.randn((2, *x.shape), generator=generator)
    return torch.hypot(x + real, imaginary)
