"""A volume as slices of an anatomical plane, and back. Nothing else in this package reorders axes."""

from dataclasses import dataclass

from jaxtyping import Shaped
from torch import Tensor

OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}
WORLD = "RAS"


@dataclass(frozen=True)
class View:
    """Slices of one plane, cut from a volume in any orientation.

    Attributes:
        axes: of the volume, along the normal, the rows and the columns of the slices.
        reversed: which of these three run the other way in the volume.
    """

    axes: tuple[int, int, int]
    reversed: tuple[bool, bool, bool]

    def slices(self, volume: Shaped[Tensor, "a b z"]) -> Shaped[Tensor, "slice rows columns"]:
        """Every slice, one after the other."""
        return volume.permute(self.axes).flip(self._flipped)

    def volume(self, slices: Shaped[Tensor, "slice rows columns"]) -> Shaped[Tensor, "a b z"]:
        """Inverse of `slices`."""
        back = [self.axes.index(axis) for axis in range(3)]
        return slices.flip(self._flipped).permute(back)

    @property
    def _flipped(self) -> list[int]:
        return [i for i in range(3) if self.reversed[i]]


def view_of(directions: str, world_axis: int) -> View:
    """Slices whose normal is a world axis: 0 sagittal, 1 coronal, 2 axial; rows and columns in the order of RAS.

    Args:
        directions: where the axes of the volume point to, such as "RAS" or "LSP".
        world_axis: of the normal.
    """
    if sorted(d if d in WORLD else OPPOSITE.get(d, "?") for d in directions) != sorted(WORLD):
        raise ValueError(f"directions {directions!r}; expected one letter each of RL, AP and SI")
    order = (world_axis, *(axis for axis in range(3) if axis != world_axis))
    places = [_place(directions, WORLD[axis]) for axis in order]
    axes = (places[0][0], places[1][0], places[2][0])
    return View(axes, (places[0][1], places[1][1], places[2][1]))


def _place(directions: str, towards: str) -> tuple[int, bool]:
    """Which axis of the volume runs along a world axis, and whether it runs the other way."""
    if towards in directions:
        return directions.index(towards), False
    return directions.index(OPPOSITE[towards]), True
