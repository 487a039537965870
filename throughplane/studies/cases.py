"""Simulated thick-slice scans of thin volumes, and the truth that reconstructions of them are judged by."""

from collections.abc import Mapping
from dataclasses import dataclass
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
from throughplane.metrics import data_range_of, head_mask
from throughplane.studies.records import Degradation

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
    """

    scan: Volume
    axis: int
    stack: Stack
    truth: Volume
    mask: Bool[np.ndarray, "i j k"]
    data_range: float


def case_of(thin: Volume, degradation: Degradation, seed: int = 0) -> Case:
    """The scan that `degradation` makes of a thin volume, stacked along the superior-inferior axis.

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
    return Case(scan, axis, stack, truth, mask, data_range)


def superior_axis(volume: Volume) -> int:
    """The array axis nearest to the superior-inferior direction."""
    return int(np.argmax(np.abs(nib.io_orientation(volume.affine)[:, 0] == 2)))
