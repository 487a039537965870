"""Which lesions a result keeps, and which spots it makes up.

Everything is measured on contrast, the mean of a lesion less the median of what surrounds it: no detector has to be
trusted, and a lesion that is merely blurred counts as kept as long as half of its contrast is.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

TOUCHING = np.ones((3, 3, 3), bool)  # by a face, an edge or a corner
SHELL_MM = (1.0, 4.0)  # from the lesion: past what its edge blurs into, near enough to be the same tissue
LEAST_SHELL = 20  # voxels
KEPT_RATIO = 0.5
SIZES_MM3 = (  # name, least, less than
    ("lesions", 0.0, np.inf),
    ("lesions_under_30_mm3", 0.0, 30.0),
    ("lesions_30_to_100_mm3", 30.0, 100.0),
    ("lesions_from_100_mm3", 100.0, np.inf),
)
SPOT_MM, SURROUND_MM = 0.85, 4.0  # standard deviations: a spot 2 mm wide, and what it stands out from
SPARED_MM = 2.0  # around lesions: their own blur is no false spot


@dataclass(frozen=True)
class Lesion:
    """A connected part of the lesion mask.

    Attributes:
        volume_mm3: of its voxels.
        in_truth, in_result: contrast, in units of the image.
        spread: standard deviation of its surround in the truth.
    """

    volume_mm3: float
    in_truth: float
    in_result: float
    spread: float

    @property
    def visible(self) -> bool:
        """Whether the truth shows it: by more than a standard deviation of its surround."""
        return abs(self.in_truth) > self.spread

    @property
    def kept(self) -> bool:
        """Whether at least half of its contrast is left, with its sign."""
        return self.in_result / self.in_truth >= KEPT_RATIO


def lesion_measures(
    truth: Float[np.ndarray, "i j k"],
    result: Float[np.ndarray, "i j k"],
    lesions: Bool[np.ndarray, "i j k"],
    mask: Bool[np.ndarray, "i j k"],
    voxel_mm: tuple[float, float, float],
) -> dict[str, float]:
    """Of visible lesions, by size: how many there are, and the share kept; and false spots per litre of the mask.

    Empty where no lesion is visible.
    """
    visible = [lesion for lesion in lesions_in(truth, result, lesions, mask, voxel_mm) if lesion.visible]
    if not visible:
        return {}
    values: dict[str, float] = {}
    for name, least, less_than in SIZES_MM3:
        kept = [lesion.kept for lesion in visible if least <= lesion.volume_mm3 < less_than]
        if kept:
            values[f"lesions_visible_count/{name}"] = float(len(kept))
            values[f"lesions_kept_ratio/{name}"] = float(np.mean(kept))
    sign = float(np.sign(np.median([lesion.in_truth for lesion in visible])))  # brighter than around them, or darker
    litres = float(mask.sum() * np.prod(voxel_mm) / 1e6)
    values["false_spots_per_litre"] = false_spots(sign * truth, sign * result, lesions, mask, voxel_mm) / litres
    return values


def lesions_in(
    truth: Float[np.ndarray, "i j k"],
    result: Float[np.ndarray, "i j k"],
    lesions: Bool[np.ndarray, "i j k"],
    mask: Bool[np.ndarray, "i j k"],
    voxel_mm: tuple[float, float, float],
) -> Iterator[Lesion]:
    """Every connected lesion with enough surround: 1 to 4 mm from it, further than 1 mm from any, in the mask."""
    labels, _ = ndimage.label(lesions, TOUCHING)
    margin = [int(np.ceil(SHELL_MM[1] / mm)) + 1 for mm in voxel_mm]
    for number, found in enumerate(ndimage.find_objects(labels), start=1):
        box = tuple(slice(max(s.start - m, 0), s.stop + m) for s, m in zip(found, margin, strict=True))
        here = labels[box] == number
        to_this, to_any = (ndimage.distance_transform_edt(~part, voxel_mm) for part in (here, lesions[box]))
        shell = (to_any > SHELL_MM[0]) & (to_this <= SHELL_MM[1]) & mask[box]
        if shell.sum() < LEAST_SHELL:
            continue
        contrasts = [
            float(image[box][here].mean(dtype=np.float64) - np.median(image[box][shell])) for image in (truth, result)
        ]
        spread = float(truth[box][shell].std(dtype=np.float64))
        yield Lesion(float(here.sum() * np.prod(voxel_mm)), contrasts[0], contrasts[1], spread)


def false_spots(
    truth: Float[np.ndarray, "i j k"],
    result: Float[np.ndarray, "i j k"],
    lesions: Bool[np.ndarray, "i j k"],
    mask: Bool[np.ndarray, "i j k"],
    voxel_mm: tuple[float, float, float],
) -> int:
    """Connected spots of the result, away from lesions, as bright as the median lesion, where the truth has none.

    How far a voxel stands out is the mean around it (Gaussian of 0.85 mm) less that further around (4 mm), both within
    the mask. A spot stands out by as much as the median over lesions of their peak in the truth, at voxels around which
    (one voxel each way) the truth stands out by less than half of that.
    """
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    outlined, inside = lesions[box], mask[box]
    in_truth, in_result = (standing_out(image[box], inside, voxel_mm) for image in (truth, result))
    labels, count = ndimage.label(outlined & inside, TOUCHING)
    if count == 0:
        return 0
    threshold = float(np.median(ndimage.maximum(in_truth, labels, np.arange(1, count + 1))))
    far = ndimage.distance_transform_edt(~outlined, voxel_mm) > SPARED_MM
    nothing_there = ndimage.maximum_filter(in_truth, 3) < KEPT_RATIO * threshold
    return int(ndimage.label((in_result >= threshold) & nothing_there & far & inside, TOUCHING)[1])


def standing_out(
    image: Float[np.ndarray, "i j k"], mask: Bool[np.ndarray, "i j k"], voxel_mm: tuple[float, float, float]
) -> Float[np.ndarray, "i j k"]:
    """Mean near a voxel less that further around it, of voxels in the mask; in units of the image, 0 outside."""
    weight, values = mask.astype(np.float32), np.where(mask, image, 0).astype(np.float32)
    means = []
    for reach_mm in (SPOT_MM, SURROUND_MM):
        sigma = [reach_mm / mm for mm in voxel_mm]
        near, counted = (ndimage.gaussian_filter(part, sigma, mode="constant") for part in (values, weight))
        means.append(near / np.maximum(counted, 1e-6))
    return np.where(mask, means[0] - means[1], 0)
