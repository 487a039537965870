"""Slices of synthetic heads: one Gaussian per label, after Billot et al. 2023 (SynthSeg)."""

from enum import Enum

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from priors.random import gaussian_blur, log_uniform, smooth_field, uniform

FINER = 2  # labels are drawn on a grid this much finer, so that averaging makes partial volume

WHITE = (2, 7, 16, 28, 41, 46, 60, 85)
CORTEX = (3, 8, 42, 47)
DEEP_GREY = (10, 11, 12, 13, 17, 18, 26, 49, 50, 51, 52, 53, 54, 58)
FLUID = (4, 5, 14, 15, 24, 43, 44, 72)
VESSELS_AND_RESIDUE = (25, 30, 57, 62, 77, 80, 136, 137, 163, 164)
SCALP = (507,)
BONE = (515,)
OTHER_OUTSIDE = (502, 506, 508, 509, 511, 512, 514, 516, 530)
CLASSES = (WHITE, CORTEX, DEEP_GREY, FLUID, VESSELS_AND_RESIDUE, SCALP, BONE, OTHER_OUTSIDE)
KNOWN_LABELS = tuple(sorted({0}.union(*CLASSES)))
LEFT_OF_RIGHT = {
    41: 2,
    46: 7,
    60: 28,
    42: 3,
    47: 8,
    49: 10,
    50: 11,
    51: 12,
    52: 13,
    53: 17,
    54: 18,
    58: 26,
    43: 4,
    44: 5,
}
LEFT_OF_RIGHT |= {57: 25, 62: 30, 137: 136, 164: 163}
BRAIN = tuple(label for label in KNOWN_LABELS if 0 < label < 500)
MOST_BRIGHT = 1.2


class Contrast(Enum):
    """Ranges of mean intensity for the tissues of `CLASSES`, in their order."""

    T1 = ((0.75, 1.0), (0.45, 0.7), (0.5, 0.8), (0.03, 0.25), (0.1, 1.0), (0.5, 1.2), (0.0, 0.15), (0.0, 1.2))
    T2 = ((0.2, 0.4), (0.4, 0.65), (0.2, 0.55), (0.8, 1.1), (0.0, 0.8), (0.2, 0.9), (0.0, 0.15), (0.0, 1.0))
    FLAIR = ((0.4, 0.65), (0.55, 0.85), (0.45, 0.75), (0.0, 0.15), (0.0, 1.0), (0.2, 0.9), (0.0, 0.15), (0.0, 1.0))
    PD = ((0.55, 0.75), (0.7, 0.95), (0.6, 0.85), (0.6, 1.0), (0.0, 1.0), (0.4, 1.1), (0.0, 0.2), (0.0, 1.0))
    FREE = ((0.0, 1.0),) * 8


def synthetic_slice(
    labels: UInt8[Tensor, "rows columns"], *, generator: torch.Generator
) -> Float[Tensor, "rows/2 columns/2"]:
    """A slice of random contrast from label indices (into `KNOWN_LABELS`) on a grid twice as fine.

    Partial volume comes from averaging 2 x 2 and a small blur, both after texture was drawn within labels.
    """
    contrast = list(Contrast)[int(torch.randint(len(Contrast), (), generator=generator))]
    means, sds = _tissues(contrast, generator=generator)
    if torch.rand((), generator=generator) < 0.25:
        means = means * _is_brain()
        sds = sds * _is_brain()
    which = labels.long()
    # grain of tissue: noise of one to three fine pixels across
    grain = gaussian_blur(torch.randn(labels.shape, generator=generator), uniform(0.5, 1.5, generator=generator))
    field = smooth_field(labels.shape, nodes=6, generator=generator)
    fine = means[which] + sds[which] * (grain / grain.std() + field)
    fine = gaussian_blur(fine.clamp(min=0), uniform(0.3, 1.6, generator=generator))
    return F.avg_pool2d(fine[None], FINER)[0]


def _tissues(
    contrast: Contrast, *, generator: torch.Generator
) -> tuple[Float[Tensor, " label"], Float[Tensor, " label"]]:
    """Mean and standard deviation of every label; left and right are alike, background is 0."""
    means, sds = torch.zeros(len(KNOWN_LABELS)), torch.zeros(len(KNOWN_LABELS))
    within = 0.0 if contrast is Contrast.FREE else 0.05  # labels of one class differ a little
    for members, (low, high) in zip(CLASSES, contrast.value, strict=True):
        of_class = uniform(low, high, generator=generator)
        for label in members:
            own = uniform(low, high, generator=generator) if within == 0 or members is OTHER_OUTSIDE else of_class
            mean = own + within * float(torch.randn((), generator=generator))
            means[KNOWN_LABELS.index(label)] = min(max(mean, 0.0), MOST_BRIGHT)
            sds[KNOWN_LABELS.index(label)] = log_uniform(0.01, 0.08, generator=generator)
    for right, left in LEFT_OF_RIGHT.items():
        means[KNOWN_LABELS.index(right)] = means[KNOWN_LABELS.index(left)]
        sds[KNOWN_LABELS.index(right)] = sds[KNOWN_LABELS.index(left)]
    return means, sds


def _is_brain() -> Float[Tensor, " label"]:
    return torch.tensor([float(label in BRAIN) for label in KNOWN_LABELS])
