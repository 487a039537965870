"""Simulated thick-slice scans of thin volumes, and the truth that reconstructions of them are judged by."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import nibabel as nib
import numpy as np
import torch
from jaxtyping import Bool

from forward_models import (
    Box,
    Gaussian,
    InputRefused,
    Sidecar,
    Volume,
    acquisition_of,
    simulate,
    slr,
    truth_for,
)
from forward_models.acquisition import ProfileFamily
from forward_models.stack import Stack, stack_of
from forward_models.volume import corner_distance_mm
from throughplane.metrics import RANGE_PERCENTILES, data_range_of, head_mask
from throughplane.orientation import stored_like
from throughplane.reading import read_single
from throughplane.studies.records import Degradation

ROUNDED_PLACE_MM = 0.05  # more than SAME_PLACE_MM: other tools round headers on the way through quaternions
FAMILIES: Mapping[str, ProfileFamily] = MappingProxyType({"gaussian": Gaussian, "box": Box, "slr": slr})


@dataclass(frozen=True, eq=False)
class Case:
    """One scan with a known truth; arrays in file order.

    Attributes:
        scan: thick slices along the superior-inferior axis, `axis` of the array.
        stack: the same in working order, with the true slice profile.
        truth: the part of the thin volume that a reconstruction should equal.
        mask: the head in the truth (`head_mask`).
        data_range: from the 0.1st to the 99.9th percentile of the truth in the mask.
        brain, lesions: in the truth, as others outlined them; None where nobody did.
    """

    scan: Volume
    axis: int
    stack: Stack
    truth: Volume
    mask: Bool[np.ndarray, "i j k"]
    data_range: float
    brain: Bool[np.ndarray, "i j k"] | None = None
    lesions: Bool[np.ndarray, "i j k"] | None = None

    @property
    def window(self) -> tuple[float, float]:
        """The two ends of the data range; from 0 where the mask is empty."""
        inside = np.asarray(self.truth.data, np.float32)[self.mask]
        low = float(np.percentile(inside, RANGE_PERCENTILES[0])) if inside.size else 0.0
        return low, low + self.data_range


def case_of(
    thin: Volume,
    degradation: Degradation,
    seed: int = 0,
    *,
    brain: Volume | None = None,
    lesions: Volume | None = None,
) -> Case:
    """The scan that `degradation` makes of a thin volume, stacked along the superior-inferior axis.

    `brain` and `lesions` are masks on the grid of the thin volume, as `read_mask` gives them.

    Raises:
        InputRefused: the profile is unknown, or the scan cannot be simulated.
    """
    if degradation.profile not in FAMILIES:
        raise InputRefused(f"profile {degradation.profile!r} is unknown; expected one of {', '.join(FAMILIES)}")
    axis, profile = superior_axis(thin), FAMILIES[degradation.profile](degradation.thickness_mm)
    truth = truth_for(thin, profile, degradation.gap_mm, axis)
    values = np.asarray(truth.data, np.float32)
    mask = head_mask(values)
    data_range = data_range_of(values, mask)
    scan = simulate(
        thin,
        profile,
        degradation.gap_mm,
        axis=axis,
        noise_sd=degradation.noise_sd * data_range,
        generator=torch.Generator().manual_seed(seed),
    )
    acquisition = acquisition_of(scan, Sidecar(), axis=axis, profile=profile)
    stack = stack_of(scan, acquisition, thin.voxel_mm[axis])
    outlined = [
        None if given is None else truth_for(given, profile, degradation.gap_mm, axis).data.astype(bool)
        for given in (brain, lesions)
    ]
    return Case(scan, axis, stack, truth, mask, data_range, *outlined)


def read_mask(path: Path, thin: Volume) -> Volume:
    """The voxels above one half, in the order of the thin volume that they belong to.

    Raises:
        InputRefused: the file cannot be read, lies on another grid, or holds no such voxel.
    """
    mask = on_grid_of(read_single(path), thin, str(path))
    inside = np.asarray(mask.data) > 0.5
    if not inside.any():
        raise InputRefused(f"{path} is no mask: no voxel is above 0.5")
    return replace(mask, data=inside)


def on_grid_of(volume: Volume, model: Volume, name: str) -> Volume:
    """`volume`, stored in the order of `model`, whose very voxels it must hold.

    Axes may be permuted and flipped, because that is undone without loss. Nothing is resampled.

    Raises:
        InputRefused: axes are rotated, there are other voxels, or they lie elsewhere.
    """
    ordered = stored_like(volume, model)
    if ordered is None:
        raise InputRefused(f"{name} is rotated against the thin volume; nothing is resampled, so it cannot be compared")
    shape, expected = ordered.data.shape, model.data.shape
    if shape != expected:
        raise InputRefused(f"{name} has {_by(shape)} voxels in the order of the thin volume; expected {_by(expected)}")
    if (apart := corner_distance_mm(ordered.affine, model.affine, shape)) > ROUNDED_PLACE_MM:
        raise InputRefused(
            f"{name} has voxels up to {apart:.3g} mm away from those of the thin volume; expected "
            f"{ROUNDED_PLACE_MM:g} mm at most"
        )
    return replace(ordered, affine=model.affine)


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def superior_axis(volume: Volume) -> int:
    """The array axis nearest to the superior-inferior direction."""
    return int(np.argmax(np.abs(nib.io_orientation(volume.affine)[:, 0] == 2)))
