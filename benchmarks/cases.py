"""Simulated thick-slice scans of thin volumes, and how reconstructions of them are judged."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from forward_models import Gaussian, Sidecar, SliceProfile, Volume, acquisition_of, read_volume, simulate, truth_for
from forward_models.stack import Stack, stack_of
from throughplane.metrics import Scores, data_range_of, head_mask, score


@dataclass(frozen=True, eq=False)
class Case:
    """One scan with a known truth.

    Attributes:
        scan: thick slices along the superior-inferior axis, `axis` of the array.
        stack: the same in working order, with the true slice profile.
        truth, mask, data_range: in file order; the head mask, and 0.1 to 99.9 % of the truth in it.
    """

    scan: Volume
    axis: int
    stack: Stack
    truth: Float[np.ndarray, "i j k"]
    mask: Bool[np.ndarray, "i j k"]
    data_range: float

    def score(self, thin: Float[Tensor, "a b thin"]) -> Scores:
        """PSNR and SSIM of a thin volume in working order."""
        return score(self.truth, self.stack.in_file_order(thin), self.mask, self.data_range)

    def score_volume(self, volume: Volume) -> Scores:
        """PSNR and SSIM of a thin volume in file order, in the units of the scan."""
        return score(self.truth, volume.data, self.mask, self.data_range)


def case_of(path: Path, cell: str, family: Callable[[float], SliceProfile] = Gaussian) -> Case:
    """`cell` is thickness|gap in mm."""
    thickness_mm, gap_mm = (float(number) for number in cell.split("|"))
    thin, profile = read_volume(path), family(thickness_mm)
    axis = superior_axis(thin)
    scan = simulate(thin, profile, gap_mm, axis=axis)
    acquisition = acquisition_of(scan, Sidecar(), axis=axis, profile=profile)
    truth = np.asarray(truth_for(thin, profile, gap_mm, axis).data, np.float32)
    mask = head_mask(truth)
    stack = stack_of(scan, acquisition, thin.voxel_mm[axis])
    return Case(scan, axis, stack, truth, mask, data_range_of(truth, mask))


def superior_axis(volume: Volume) -> int:
    """The array axis closest to the superior-inferior one."""
    return int(np.argmax(nib.io_orientation(volume.affine)[:, 0] == 2))
