"""A scan in working order: slices last, scaled, in an orientation that the image itself determines."""

from dataclasses import dataclass, replace

import nibabel as nib
import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from forward_models.acquisition import Acquisition
from forward_models.grids import thin_grid_for
from forward_models.intensity import intensity_scale
from forward_models.resample import band_limited_weights
from forward_models.selection import SliceSelection, along, slice_selection
from forward_models.volume import Volume


@dataclass(frozen=True)
class WorkingOrder:
    """Which array axis comes first, second and last (the slice axis), and which of them are then reversed."""

    axes: tuple[int, int, int]
    reversed: tuple[bool, bool, bool]

    def apply(self, data: Shaped[np.ndarray, "i j k"]) -> Shaped[np.ndarray, "a b z"]:
        """From the order of the file to working order."""
        return np.flip(np.transpose(data, self.axes), self._flipped)

    def undo(self, data: Shaped[np.ndarray, "a b z"]) -> Shaped[np.ndarray, "i j k"]:
        """From working order to the order of the file."""
        return np.transpose(np.flip(data, self._flipped), np.argsort(self.axes))

    @property
    def _flipped(self) -> tuple[int, ...]:
        return tuple(i for i in range(3) if self.reversed[i])


@dataclass(frozen=True, eq=False)
class Stack:
    """Thick slices as every method receives them.

    Attributes:
        slices: (a, b, thick), in working order, divided by `scale`.
        in_plane_mm: voxel sizes along a and b.
        selection: W from the thin grid to these slices, along the last axis.
        scale: a power of two, so that dividing by it is undone exactly.
        order: how to get back to the order of the file.
        resolved: how many voxels along a and b would hold all that was measured; fewer than there are where the
            scanner interpolated.
        directions: where a, b and z point to in the world, such as "RAS".
    """

    slices: Float[Tensor, "a b thick"]
    in_plane_mm: tuple[float, float]
    selection: SliceSelection
    scale: float
    order: WorkingOrder
    resolved: tuple[int, int]
    directions: str = "RAS"

    def to(self, device: torch.device) -> "Stack":
        """The same stack with its slices on `device`."""
        return replace(self, slices=self.slices.to(device))

    def as_measured(self) -> "Stack":
        """The same stack with voxels as large as what was measured: the scanner's interpolation undone."""
        shape = self.slices.shape[:2]
        sizes = tuple(mm * n / kept for mm, n, kept in zip(self.in_plane_mm, shape, self.resolved, strict=True))
        return replace(self, slices=_in_plane(self.slices, self.resolved), in_plane_mm=(sizes[0], sizes[1]))

    def interpolated(self, x: Float[Tensor, "a b z"]) -> Float[Tensor, "i j z"]:
        """Slices of `as_measured` on the in-plane grid of this stack, as the scanner would have interpolated them."""
        return _in_plane(x, (self.slices.shape[0], self.slices.shape[1]))

    def rows(self, count: int) -> "Stack":
        """The first `count` rows, or all where there are fewer: a piece to time."""
        count = min(count, self.slices.shape[0])
        return replace(self, slices=self.slices[:count], resolved=(count, self.slices.shape[1]))

    def in_file_order(self, x: Float[Tensor, "a b z"]) -> Float[np.ndarray, "i j k"]:
        """Thin or thick slices in working order as an array of the file, in its units."""
        return np.ascontiguousarray(self.order.undo(x.numpy(force=True) * np.float32(self.scale)))


def stack_of(volume: Volume, acquisition: Acquisition, thin_mm: float) -> Stack:
    """The scan in working order, with its slice selection from thin slices of `thin_mm`.

    Raises:
        InputRefused: `thin_mm` is not below the slice spacing.
    """
    order = working_order(volume, acquisition.axis)
    slices, scale = scaled_slices(volume, order)
    thin = thin_grid_for(acquisition.slices, thin_mm)
    in_plane = tuple(volume.voxel_mm[axis] for axis in order.axes[:2])
    resolved = _resolved(acquisition, slices.shape[:2], swapped=order.axes[0] > order.axes[1])
    forward, backward = nib.aff2axcodes(volume.affine), nib.aff2axcodes(-volume.affine)
    return Stack(
        slices=slices,
        in_plane_mm=(in_plane[0], in_plane[1]),
        selection=slice_selection(acquisition.slices, thin, acquisition.profile),
        scale=scale,
        order=order,
        resolved=resolved,
        directions="".join(
            (backward if flipped else forward)[axis] for axis, flipped in zip(order.axes, order.reversed, strict=True)
        ),
    )


def _in_plane(x: Float[Tensor, "a b z"], shape: tuple[int, int]) -> Float[Tensor, "i j z"]:
    for axis, count in enumerate(shape):
        if count != x.shape[axis]:
            x = along(axis, band_limited_weights(x.shape[axis], count), x)
    return x.contiguous()


def _resolved(acquisition: Acquisition, shape: tuple[int, ...], swapped: bool) -> tuple[int, int]:
    """Voxels of the true size that fill the field of view, in working order."""
    true_mm = acquisition.resolved_mm or acquisition.in_plane_mm
    ratios = [mm / true for mm, true in zip(acquisition.in_plane_mm, true_mm, strict=True)]
    a, b = (round(n * ratio) for n, ratio in zip(shape, ratios[::-1] if swapped else ratios, strict=True))
    return a, b


def scaled_slices(volume: Volume, order: WorkingOrder) -> tuple[Float[Tensor, "a b z"], float]:
    """The voxels in working order, divided by a power of two, and that power."""
    slices = torch.from_numpy(np.ascontiguousarray(order.apply(np.asarray(volume.data, np.float32))))
    scale = intensity_scale(slices)
    return slices / scale, scale


def working_order(volume: Volume, axis: int) -> WorkingOrder:
    """The orientation that a scan is processed in.

    In-plane axes come in the order of the world axes they are closest to, and each axis points towards the half that
    holds more signal. So neither how a file is stored nor a mirrored head changes the result: a method sees the very
    same numbers, and its output is stored, or mirrored, like the input.
    """
    world = nib.io_orientation(volume.affine)[:, 0]
    first, second = sorted((i for i in range(3) if i != axis), key=lambda i: world[i])
    axes = (first, second, axis)
    magnitude = np.abs(np.asarray(volume.data, np.float64))
    a, b, z = (_points_away(magnitude, i) for i in axes)
    return WorkingOrder(axes, (a, b, z))


def _points_away(magnitude: Float[np.ndarray, "i j k"], axis: int) -> bool:
    """Whether the half at the end of `axis` holds less than the half at its start."""
    profile = magnitude.sum(axis=tuple(i for i in range(3) if i != axis))
    lever = np.arange(profile.size) - (profile.size - 1) / 2
    return bool(profile @ lever < 0)
