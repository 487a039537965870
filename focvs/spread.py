"""How far the mean of the samples may lie from the truth: their spread, calibrated on heads with a known truth."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

from forward_models.stack import Stack

WINDOW_MM = 1.0  # standard deviation of the window that variances are averaged over: those of few samples are noisy


@dataclass(frozen=True)
class SpreadFit:
    """sd^2 = gain (1 - m) (s / 1 mm)^growth <v>: v the variance over samples, <> its mean in a window of 1 mm, m the
    share of variance that the scan measures, s the slice spacing. 90 % of true voxels are meant to lie within 1.645 sd.

    The start and the prior that samples have in common hide part of the error from their spread, the more the farther
    apart slices are; where the scan fixes a voxel, or all samples agree around it, sd is 0.

    Attributes:
        gain, growth: fitted by benchmarks/focvs_spread.py, on training heads alone.
        prior_sha256: of the prior whose samples they were fitted to.
    """

    gain: float
    growth: float
    prior_sha256: str = ""

    def factor(self, spacing_mm: float) -> float:
        """Of the standard deviation, where the scan measures nothing."""
        return (self.gain * spacing_mm**self.growth) ** 0.5

    def sd(self, raw: Float[Tensor, "a b thin"], stack: Stack) -> Float[Tensor, "a b thin"]:
        """Standard deviation of the error of the mean.

        Args:
            raw: standard deviation over samples.
            stack: the scan they explain.
        """
        open_share = (1 - stack.selection.measured_share).clamp(min=0).to(raw)
        voxel_mm = (*stack.in_plane_mm, stack.selection.thin.spacing_mm)
        return self.factor(stack.selection.thick.spacing_mm) * torch.sqrt(open_share * averaged(raw.square(), voxel_mm))


def averaged(x: Float[Tensor, "a b z"], voxel_mm: tuple[float, float, float]) -> Float[Tensor, "a b z"]:
    """Over a Gaussian window of `WINDOW_MM`."""
    smooth = ndimage.gaussian_filter(x.numpy(force=True), [WINDOW_MM / mm for mm in voxel_mm], mode="nearest")
    return torch.from_numpy(smooth).to(x)


HEAD_2D = SpreadFit(
    gain=1.21,
    growth=0.84,
    prior_sha256="6c43e0181e272102d3c52dc1eeef5fab47e63ab9dcc7d7bdf10d20a31feeae0b",
)
