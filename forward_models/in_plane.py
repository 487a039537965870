"""True in-plane resolution. A scanner that fills k-space with zeros makes voxels smaller than what it measured."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d

from forward_models.acquisition import Acquisition, Sidecar, Source
from forward_models.errors import InputRefused
from forward_models.volume import Volume

InPlane = Literal["auto"] | float | tuple[float, float] | None

SLICES = 16  # with the most signal; more change nothing
NEAR_AXIS = (0.02, 0.2)  # of the Nyquist frequency of the other axis: within every support, off its own edges
WINDOW = 0.08  # of the Nyquist frequency, over which slopes are compared
SEARCHED = (0.2, 0.95)
EDGE = 70.0  # dB per Nyquist frequency by which the slope changes; anatomy stays below 55 (docs/experiments.md)
EDGE_IN_SIDECAR = 45.0  # the same, where the sidecar says that an edge is there
SAME_EDGE = 0.05  # of the Nyquist frequency
MIN_VOXELS = 64  # along an axis; fewer frequencies tell no edge
MIN_ACROSS = 10  # along the other axis; of fewer, no frequency is as low as `NEAR_AXIS`
MIN_KEPT = 16  # voxels along an axis that an assertion must leave
SAME_SIZE = 0.01  # relative


@dataclass(frozen=True)
class Edge:
    """Where the power of an image falls off along one axis.

    Attributes:
        ratio: of its frequency to the Nyquist frequency, 1 where there is none.
        strength: change of the slope there, dB per Nyquist frequency.
    """

    ratio: float
    strength: float


def with_in_plane(acquisition: Acquisition, volume: Volume, sidecar: Sidecar, in_plane_mm: InPlane) -> Acquisition:
    """The acquisition with its true in-plane voxel sizes: `auto` finds them, None takes those of the file.

    Lengths in mm are for both axes, or one each in the order of the file.

    Raises:
        InputRefused: lengths that are smaller than the voxels, or leave hardly any.
    """
    if in_plane_mm is None:
        return acquisition
    axes = [axis for axis in range(3) if axis != acquisition.axis]
    shape = [volume.data.shape[axis] for axis in axes]
    if isinstance(in_plane_mm, str) and in_plane_mm != "auto":
        raise InputRefused(f"in_plane_mm={in_plane_mm!r}; expected 'auto', None, or one or two lengths in mm")
    if in_plane_mm != "auto":
        stated = _stated(in_plane_mm, acquisition.in_plane_mm, shape)
        return replace(acquisition, resolved_mm=stated, in_plane_source=Source.FLAG)
    stacked = np.moveaxis(np.asarray(volume.data, np.float32), acquisition.axis, -1)
    ratios, notes, source = [], [], Source.HEADER
    for edge, count, axis in zip((edge_along(stacked, 0), edge_along(stacked, 1)), shape, axes, strict=True):
        ratio, found, note = _agreed(edge, sidecar.samples, axis, count)
        ratios.append(ratio)
        notes.append(note)
        source = source if found is None else found
    sizes = [mm / ratio for mm, ratio in zip(acquisition.in_plane_mm, ratios, strict=True)]
    return replace(
        acquisition,
        resolved_mm=(sizes[0], sizes[1]),
        in_plane_source=source,
        notes=(*acquisition.notes, *(note for note in notes if note)),
    )


def edge_along(slices: Float[np.ndarray, "a b k"], axis: Literal[0, 1]) -> Edge:
    """The edge of the k-space support along one in-plane axis, from the power spectrum.

    Inside the support power falls slowly, as anatomy and noise do. At its edge it falls steeply, with an apodising
    window over some distance, and then hardly any more: what is left there comes from taking the magnitude and from
    rounding. So the edge is where the slope, in dB, changes most; where an apodised support ends at the Nyquist
    frequency there is no such place, nor where a spectrum sinks into white noise.
    """
    if slices.shape[axis] < MIN_VOXELS or slices.shape[1 - axis] < MIN_ACROSS:
        return Edge(1.0, 0.0)
    frequency, power_db = _power_db(slices, axis)

    def at(x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        return np.interp(x, frequency, power_db)

    places = np.arange(*SEARCHED, 0.005)
    beyond = np.minimum(WINDOW, 0.995 - places)
    change = (at(places - WINDOW) - at(places)) / WINDOW - (at(places) - at(places + beyond)) / beyond
    first = int(np.flatnonzero(change >= 0.8 * change.max())[0])  # behind a sharp edge, a stretch of them is alike
    return Edge(float(places[first]), float(change.max()))


def _power_db(slices: Float[np.ndarray, "a b k"], axis: int) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Frequencies along `axis` relative to Nyquist, and power there: the mean logarithm over slices near the axis."""
    energy = np.square(slices, dtype=np.float64).sum(axis=(0, 1))
    chosen = np.sort(np.argsort(energy)[-SLICES:])
    rows = np.moveaxis(slices[:, :, chosen], axis, 0)
    window = np.hanning(rows.shape[0] + 2)[1:-1, None, None] * np.hanning(rows.shape[1] + 2)[1:-1, None]
    power = np.abs(np.fft.rfft2(rows * window, axes=(1, 0))) ** 2
    across = np.abs(np.fft.fftfreq(rows.shape[1])) * 2
    near = power[:, (across >= NEAR_AXIS[0]) & (across <= NEAR_AXIS[1])]
    power_db = 10 * np.log10(near + 1e-14 * power.max()).mean(axis=(1, 2))
    frequency = np.arange(len(power_db)) * 2 / rows.shape[0]
    return frequency, gaussian_filter1d(power_db, max(0.5, 0.003 * rows.shape[0]), mode="nearest")


def _agreed(edge: Edge, samples: Mapping[int, int], axis: int, count: int) -> tuple[float, Source | None, str | None]:
    """Share of the frequencies that was measured, who says so, and what to tell.

    Without an edge in the spectrum nothing was interpolated, whatever the sidecar says. Where they differ on its place,
    the finer voxels are believed, so that no detail is lost.
    """
    told = min(samples.get(axis, 0) / count, 1.0)  # 0: nothing told
    agree = abs(edge.ratio - told) < SAME_EDGE
    if edge.strength < (EDGE_IN_SIDECAR if agree else EDGE):
        doubt = "shows detail beyond them: taken as sharp" if 0 < told < SEARCHED[1] else None
        return 1.0, None, doubt and _differ(axis, samples[axis], count, doubt)
    if agree:
        return told, Source.SIDECAR, None
    ends = f"ends at {edge.ratio * count:.0f}: the larger number is followed"
    note = _differ(axis, samples[axis], count, ends) if told else None
    return max(told, edge.ratio), None if told == 1 else Source.ESTIMATE, note


def _differ(axis: int, told: int, count: int, spectrum: str) -> str:
    return f"array axis {axis}: the sidecar says {told} of {count} samples were acquired, the spectrum {spectrum}"


def _stated(
    stated: float | tuple[float, float], voxel_mm: tuple[float, float], shape: list[int]
) -> tuple[float, float]:
    both = stated if isinstance(stated, tuple) else (stated, stated)
    return tuple(_stated_along(*given) for given in zip(both, voxel_mm, shape, strict=True))  # type: ignore[return-value]


def _stated_along(stated_mm: float, voxel_mm: float, count: int) -> float:
    if not voxel_mm * (1 - SAME_SIZE) <= stated_mm <= voxel_mm * count / MIN_KEPT:
        raise InputRefused(
            f"--in-plane-mm {stated_mm:g}; expected a true voxel size between that of the file, {voxel_mm:.4g} mm, and "
            f"{voxel_mm * count / MIN_KEPT:.4g} mm, a {MIN_KEPT}th of the image"
        )
    return max(stated_mm, voxel_mm)
