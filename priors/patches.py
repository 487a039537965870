"""Training patches: patch number i of run `seed` is a function of the two, whatever process makes it and when."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.data import Dataset

from priors.augment import draw_placement, draw_whole, extract, vary_intensities
from priors.blocks import block_mean
from priors.data import HeadScan, LabelMap
from priors.noise import NoiseLevels
from priors.planes import Plane, slice_of
from priors.random import chance, generator_for
from priors.synthetic import FINER, synthetic_slice

LEAST_SIGNAL = 0.05


@dataclass(frozen=True)
class PatchConfig:
    """What is drawn.

    Attributes:
        size: pixels along either side of a patch; a multiple of 16.
        pixel_mm: of its pixels before scaling. 1: patches of slices as they are. More, an even number: slices as a
            whole, means over blocks of so many mm.
        synthetic_ratio: share of patches from label maps. They bring contrasts and brain-only heads that the scans
            lack, but their texture is noise: a fifth, so that most of what the prior knows of texture is real.
        noise_levels: at which sigmas.
    """

    size: int = 96
    pixel_mm: int = 1
    synthetic_ratio: float = 0.2
    noise_levels: NoiseLevels = field(default_factory=NoiseLevels)

    def __post_init__(self) -> None:
        if self.pixel_mm != 1 and (self.pixel_mm < FINER or self.pixel_mm % FINER):
            raise ValueError(f"pixel_mm is {self.pixel_mm}; expected 1 or a multiple of {FINER}")


@dataclass(frozen=True, eq=False)
class Batch:
    """Patches and the noise to add to them.

    Attributes:
        clean: x0.
        noise: standard normal.
        sigma: one per patch.
        plane: `Plane` values.
        sources: index of the scan, or of the label map counted after the scans.
    """

    clean: Float[Tensor, "batch rows columns"]
    noise: Float[Tensor, "batch rows columns"]
    sigma: Float[Tensor, " batch"]
    plane: Tensor
    sources: Tensor

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(field.to(device) for field in (self.clean, self.noise, self.sigma, self.plane, self.sources)))


class Patches(Dataset):
    """An endless, randomly accessible sequence of patches."""

    def __init__(
        self, scans: tuple[HeadScan, ...], label_maps: tuple[LabelMap, ...], config: PatchConfig, seed: int
    ) -> None:
        self.scans = scans
        self.label_maps = label_maps
        self.config = config
        self.seed = seed

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, float, int, int]:
        generator = generator_for(self.seed, index)
        synthetic = bool(self.label_maps) and chance(self.config.synthetic_ratio, generator=generator)
        plane = list(Plane)[_pick(3, generator=generator)]
        if synthetic:
            source = _pick(len(self.label_maps), generator=generator)
            clean = _synthetic_patch(self.label_maps[source], plane, self.config, generator=generator)
            source += len(self.scans)
        else:
            source = _pick(len(self.scans), generator=generator)
            make = _real_patch if self.config.pixel_mm == 1 else _whole_slice
            clean = make(self.scans[source], plane, self.config, generator=generator)
        noise = torch.randn(clean.shape, generator=generator)
        sigma = self.config.noise_levels.draw(generator=generator)
        return clean, noise, sigma, plane.value, source

    def name_of(self, source: int) -> str:
        """The file that patch came from."""
        if source < len(self.scans):
            return self.scans[source].name
        return self.label_maps[source - len(self.scans)].name


def collate(items: list[tuple[Tensor, Tensor, float, int, int]]) -> Batch:
    """Stack patches."""
    clean, noise, sigma, plane, source = zip(*items, strict=True)
    return Batch(torch.stack(clean), torch.stack(noise), torch.tensor(sigma), torch.tensor(plane), torch.tensor(source))


@dataclass(frozen=True)
class BatchIndices:
    """Indices of the patches in each batch from `first_step` on, for process `rank` of `world_size`."""

    batch_size: int
    first_step: int
    rank: int = 0
    world_size: int = 1

    def __iter__(self) -> Iterator[list[int]]:
        step = self.first_step
        while True:
            start = (step * self.world_size + self.rank) * self.batch_size
            yield list(range(start, start + self.batch_size))
            step += 1


def _pick(count: int, *, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator))


def _real_patch(
    scan: HeadScan, plane: Plane, config: PatchConfig, *, generator: torch.Generator
) -> Float[Tensor, "rows columns"]:
    useful = scan.slices[plane.value]
    image = slice_of(scan.voxels, plane, int(useful[_pick(len(useful), generator=generator)])).float()
    drawn = (draw_placement(image.shape, config.size, plane, generator=generator) for _ in range(2))
    patches = [extract(image, placement, config.size, plane.mirror_axis) for placement in drawn]
    patch = max(patches, key=lambda candidate: float((candidate > LEAST_SIGNAL).sum()))  # less often mere air
    return vary_intensities(patch, recontrast=True, generator=generator)


def _whole_slice(
    scan: HeadScan, plane: Plane, config: PatchConfig, *, generator: torch.Generator
) -> Float[Tensor, "rows columns"]:
    """Placed and recoloured on pixels half as large, so that averaging makes partial volume."""
    image = slice_of(scan.voxels, plane, _inner(scan.slices[plane.value], generator=generator)).float()
    image = block_mean(image[None], config.pixel_mm // FINER)[0]
    placement = draw_whole(image.shape, config.size, FINER, plane, generator=generator).finer(FINER)
    fine = extract(image, placement, FINER * config.size, plane.mirror_axis)
    return block_mean(vary_intensities(fine, recontrast=True, generator=generator)[None], FINER)[0]


def _synthetic_patch(
    label_map: LabelMap, plane: Plane, config: PatchConfig, *, generator: torch.Generator
) -> Float[Tensor, "rows columns"]:
    useful = label_map.slices[plane.value]
    if config.pixel_mm == 1:
        labels = slice_of(label_map.voxels, plane, int(useful[_pick(len(useful), generator=generator)]))
        placement = draw_placement(labels.shape, config.size, plane, generator=generator)
    else:
        labels = slice_of(label_map.voxels, plane, _inner(useful, generator=generator))
        placement = draw_whole(labels.shape, config.size, config.pixel_mm, plane, generator=generator)
    fine = extract(labels, placement.finer(FINER), FINER * config.size, plane.mirror_axis)
    return vary_intensities(synthetic_slice(fine, generator=generator), recontrast=False, generator=generator)


def _inner(useful: Int64[Tensor, " slice"], *, generator: torch.Generator) -> int:
    """A slice; those through the middle of the head are the most likely, outer ones show little of it."""
    one, other = (_pick(len(useful), generator=generator) for _ in range(2))
    return int(useful[(one + other) // 2])
