"""How one scan of a head lies against another: rigid refinement, intensity ratio, and whether they show the same.

Two scans of different slices are compared after each has been blurred by the slice profile of the other: then both are
the head blurred by both profiles, and what still differs is place, gain or contrast.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64
from scipy import fft
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from forward_models.errors import InputRefused
from forward_models.grids import SliceGrid, same_field_of_view
from forward_models.lattices import Lattice
from forward_models.placed import PlacedStack
from forward_models.profiles import FWHM_PER_SIGMA
from forward_models.resample import resampling_weights
from forward_models.selection import along

VOXEL_MM = 2.0
BLURS_MM = (12.0, 6.0, 3.0)  # full width at half maximum, on top of both slice profiles; one level after the other
STRIDE = 2  # every so many voxels along each axis are compared
STEPS = 30  # per level
STILL_MM = 1e-2  # a step that moves nothing within REACH_MM by more ends a level
REACH_MM = 100.0
FARTHEST_MM = 8.0  # that a step may move a point so far away
HEAD_MM = 80.0
SIGNAL = 0.2  # of the 99th percentile: what is above, in both, is head
LEAST_OVERLAP_MM3 = 3e3
HUBER = 1.345  # standard deviations; 95 % efficient for Gaussian residuals


@dataclass(frozen=True, eq=False)
class Agreement:
    """How well two scans agree where both see the head.

    Attributes:
        gain: intensity of the other scan over that of the first: the median ratio.
        correlation: of their intensities.
        overlap: share of the first scan's head that the other one sees.
    """

    gain: float
    correlation: float
    overlap: float


@dataclass(frozen=True, eq=False)
class Motion:
    """A rigid motion that carries the world of the other scan's header to that of the first.

    Attributes:
        rotation: 3 x 3.
        shift_mm: of `centre`, in world mm.
        centre: what it turns about, in the world of the other scan's header: the middle of that scan.
    """

    rotation: Float64[np.ndarray, "3 3"]
    shift_mm: Float64[np.ndarray, " 3"]
    centre: Float64[np.ndarray, " 3"]

    @property
    def matrix(self) -> Float64[np.ndarray, "4 4"]:
        """World to world."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.rotation
        matrix[:3, 3] = self.centre + self.shift_mm - self.rotation @ self.centre
        return matrix

    @property
    def degrees(self) -> float:
        """How far it turns."""
        return float(np.degrees(np.linalg.norm(Rotation.from_matrix(self.rotation).as_rotvec())))

    @property
    def reach_mm(self) -> float:
        """How far it takes a point of the head, at most: one `HEAD_MM` from the centre."""
        return float(np.linalg.norm(self.shift_mm) + HEAD_MM * np.radians(self.degrees))

    @property
    def vector_degrees(self) -> Float64[np.ndarray, " 3"]:
        """Rotation vector: its direction is the axis in the world, its length the angle."""
        return np.degrees(Rotation.from_matrix(self.rotation).as_rotvec())


def unmoved(other: PlacedStack) -> Motion:
    """Where the headers put it."""
    return Motion(np.eye(3), np.zeros(3), other.slices.middle)


def aligned(first: PlacedStack, other: PlacedStack) -> Motion:
    """The rigid motion of `other` that makes both show the same head at the same place.

    Six parameters in float64, Gauss-Newton on the difference of intensities with Huber weights, from coarse to fine.

    Raises:
        InputRefused: the fields of view hardly overlap.
    """
    motion = unmoved(other)
    for blur_mm in BLURS_MM:
        fixed, moving = comparable(first, other, blur_mm)
        points = world_points(fixed.lattice, STRIDE)
        values = fixed.data[::STRIDE, ::STRIDE, ::STRIDE].ravel()
        slopes = np.stack(np.gradient(moving.data, *moving.lattice.voxel_mm))  # along the axes of the other scan
        for _ in range(STEPS):
            motion, moved_mm = _step(motion, points, values, moving, slopes)
            if moved_mm < STILL_MM:
                break
    return motion


def agreement(first: PlacedStack, other: PlacedStack) -> Agreement:
    """How two scans agree where they lie; `other` may have been moved.

    Raises:
        InputRefused: the fields of view hardly overlap.
    """
    fixed, moving = comparable(first, other, BLURS_MM[-1])
    index, inside = places(moving.lattice, world_points(fixed.lattice))
    values = fixed.data.ravel()
    head = head_of(values)
    seen = map_coordinates(moving.data, index, order=1, mode="nearest")
    both = common_head(head, seen, inside, fixed.lattice)
    ratio = float(np.median(seen[both] / values[both]))
    correlation = float(np.corrcoef(seen[both], values[both])[0, 1])
    return Agreement(ratio, correlation, float((head & inside).sum() / head.sum()))


def head_of(values: Float[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Which voxels of a scan show head."""
    return values > SIGNAL * np.percentile(values, 99)


def common_head(
    head: Bool[np.ndarray, " n"], seen: Float[np.ndarray, " n"], inside: Bool[np.ndarray, " n"], lattice: Lattice
) -> Bool[np.ndarray, " n"]:
    """Which voxels of `lattice` show head in either scan; `inside` says where the one read off there reaches.

    Raises:
        InputRefused: hardly any.
    """
    both = head & inside & (seen > SIGNAL * np.percentile(seen[inside], 99)) if inside.any() else inside
    _require_overlap(both, lattice)
    return both


def _require_overlap(both: Bool[np.ndarray, " n"], lattice: Lattice) -> None:
    if both.sum() * np.prod(lattice.voxel_mm) < LEAST_OVERLAP_MM3:
        raise InputRefused("hardly overlaps with the first scan: check that both are of one session and one head")


@dataclass(frozen=True, eq=False)
class Image:
    """Intensities and where they lie."""

    data: Float64[np.ndarray, "a b z"]
    lattice: Lattice


def _step(
    motion: Motion,
    points: Float64[np.ndarray, "3 n"],
    values: Float[np.ndarray, " n"],
    moving: Image,
    slopes: Float64[np.ndarray, "3 a b z"],
) -> tuple[Motion, float]:
    """One Gauss-Newton step, and how far it moves a point `REACH_MM` from the centre at most."""
    back = motion.rotation.T @ (points - (motion.centre + motion.shift_mm)[:, None])  # from the centre, in the header
    index, inside = places(moving.lattice, back + motion.centre[:, None])
    _require_overlap(inside, moving.lattice)
    index, back, fixed = index[:, inside], back[:, inside], values[inside]
    seen = map_coordinates(moving.data, index, order=1)
    slope = moving.lattice.directions @ np.stack([map_coordinates(s, index, order=1) for s in slopes])
    gain = (fixed @ seen) / max(float(seen @ seen), np.finfo(float).tiny)
    left = fixed - gain * seen
    # to first order the other image, seen through the motion, changes by slope . (shift + turn x back), in its header
    jacobian = gain * np.concatenate([slope, np.cross(back.T, slope.T).T])
    spread = 1.4826 * np.median(np.abs(left[np.abs(left) > 0])) if left.any() else 1.0
    weights = np.minimum(1.0, HUBER * spread / np.maximum(np.abs(left), np.finfo(float).tiny))
    normal = (jacobian * weights) @ jacobian.T
    change = np.linalg.solve(normal + 1e-9 * np.trace(normal) / 6 * np.eye(6), jacobian @ (weights * left))
    moved_mm = float(np.linalg.norm(change[:3]) + REACH_MM * np.linalg.norm(change[3:]))
    change = change * min(1.0, FARTHEST_MM / max(moved_mm, np.finfo(float).tiny))
    # the point seen at p shall be the one at exp(turn) p + shift: turn the motion the other way
    turn = Rotation.from_rotvec(change[3:]).as_matrix()
    rotation = motion.rotation @ turn.T
    shift = motion.shift_mm - rotation @ change[:3]
    return Motion(rotation, shift, motion.centre), moved_mm


def comparable(first: PlacedStack, other: PlacedStack, blur_mm: float) -> tuple[Image, Image]:
    """Both scans on lattices of about `VOXEL_MM`, each blurred by the other's slice profile and by `blur_mm`."""
    images = []
    for one, another in ((first, other), (other, first)):
        variance = another.stack.selection.profile.variance_mm2
        covariance = variance * np.outer(another.normal, another.normal) + (blur_mm / FWHM_PER_SIGMA) ** 2 * np.eye(3)
        images.append(_blurred(_coarse(one), covariance))
    return images[0], images[1]


def _coarse(placed: PlacedStack) -> Image:
    """Splines through the scan, on voxels of `VOXEL_MM` where they are not larger anyway; intensities of the file."""
    x = placed.stack.slices.cpu() * placed.stack.scale
    grids = [SliceGrid(n, mm) for n, mm in zip(placed.slices.shape, placed.slices.voxel_mm, strict=True)]
    coarse = [grids[0], grids[1], grids[2]]
    for axis, grid in enumerate(grids):
        if axis == 2 or grid.spacing_mm < VOXEL_MM:
            coarse[axis] = same_field_of_view(grid, VOXEL_MM)
            x = along(axis, resampling_weights(grid, coarse[axis]), x)
    a, b, z = coarse
    lattice = placed.slices.respaced((a.count, b.count, z.count), (a.spacing_mm, b.spacing_mm, z.spacing_mm))
    return Image(x.double().numpy(), lattice)


def _blurred(image: Image, covariance: Float64[np.ndarray, "3 3"]) -> Image:
    """By a Gaussian of this covariance in the world; edges are repeated."""
    sizes = np.array(image.lattice.voxel_mm)
    turned = image.lattice.directions.T @ covariance @ image.lattice.directions / np.outer(sizes, sizes)
    margin = [int(np.ceil(3 * np.sqrt(turned[i, i]))) for i in range(3)]
    padded = np.pad(image.data, [(m, m) for m in margin], mode="edge")
    frequencies = np.meshgrid(
        *(2 * np.pi * np.fft.fftfreq(n) for n in padded.shape[:2]),
        2 * np.pi * np.fft.rfftfreq(padded.shape[2]),
        indexing="ij",
        sparse=True,
    )
    exponent = sum(turned[i, j] * frequencies[i] * frequencies[j] for i in range(3) for j in range(3))
    blurred = fft.irfftn(fft.rfftn(padded) * np.exp(-0.5 * exponent), s=padded.shape)
    inner = tuple(slice(m, n - m) for m, n in zip(margin, padded.shape, strict=True))
    return Image(np.ascontiguousarray(blurred[inner]), image.lattice)


def world_points(lattice: Lattice, stride: int = 1) -> Float64[np.ndarray, "3 n"]:
    indices = np.stack(np.meshgrid(*(np.arange(0, n, stride) for n in lattice.shape), indexing="ij")).reshape(3, -1)
    return lattice.affine[:3, :3] @ indices + lattice.affine[:3, 3:]


def places(
    lattice: Lattice, points: Float64[np.ndarray, "3 n"]
) -> tuple[Float64[np.ndarray, "3 n"], Bool[np.ndarray, " n"]]:
    """Voxel indices of world points, and which lie between voxel centres."""
    index = np.linalg.solve(lattice.affine[:3, :3], points - lattice.affine[:3, 3:])
    last = np.array(lattice.shape)[:, None] - 1
    return index, np.all((index >= 0) & (index <= last), axis=0)
