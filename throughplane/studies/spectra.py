"""What a result keeps of the truth at each frequency along the slice axis."""

from dataclasses import dataclass

import numpy as np
import scipy.fft
from jaxtyping import Bool, Float, Float64

FLOOR = 1e-6  # of the truth's power: 60 dB below it counts as nothing left


@dataclass(frozen=True, eq=False)
class Spectra:
    """Mean power per line along the slice axis, in squared units of the image.

    Attributes:
        cycles_per_mm: from one cycle per length of the head to the Nyquist frequency.
        truth, result, error: power, |T|^2, |X|^2, |X - T|^2.
        cross: Re(T* X).
    """

    cycles_per_mm: Float64[np.ndarray, " f"]
    truth: Float64[np.ndarray, " f"]
    result: Float64[np.ndarray, " f"]
    error: Float64[np.ndarray, " f"]
    cross: Float64[np.ndarray, " f"]

    @property
    def ring_correlation(self) -> Float64[np.ndarray, " f"]:
        """Fourier ring correlation, cross / sqrt(truth result): 1 for any filter without sign changes, 0 for noise."""
        return self.cross / np.sqrt(np.maximum(self.truth * self.result, np.finfo(float).tiny))

    @property
    def transfer(self) -> Float64[np.ndarray, " f"]:
        """Share of the truth's amplitude that comes back, cross / truth: for a blur its transfer function."""
        return self.cross / np.maximum(self.truth, np.finfo(float).tiny)

    def half_of(self, curve: Float64[np.ndarray, " f"]) -> float:
        """Frequency at which a curve first falls below one half, in cycles per mm; Nyquist where it never does."""
        below = np.flatnonzero(curve < 0.5)
        if below.size == 0:
            return float(self.cycles_per_mm[-1])
        first = int(below[0])
        f = np.concatenate([[0.0], self.cycles_per_mm])[first : first + 2]
        left, right = np.concatenate([[1.0], curve])[first : first + 2]
        return float(f[0] + (f[1] - f[0]) * (left - 0.5) / (left - right))

    def log_distance_db(self, above_per_mm: float) -> float | None:
        """Root mean square of 10 log10(result / truth) above a frequency; None where there is none."""
        beyond = self.cycles_per_mm > above_per_mm
        if not beyond.any():
            return None
        ratio = self.result[beyond] / np.maximum(self.truth[beyond], np.finfo(float).tiny)
        return float(np.sqrt(np.mean((10 * np.log10(np.clip(ratio, FLOOR, 1 / FLOOR))) ** 2)))


def spectra_along(
    axis: int,
    voxel_mm: float,
    truth: Float[np.ndarray, "i j k"],
    result: Float[np.ndarray, "i j k"],
    mask: Bool[np.ndarray, "i j k"],
) -> Spectra:
    """Of the lines along `axis` that cross the mask, from its first slice to its last; Hann window, mean taken off."""
    lines = [np.moveaxis(image, axis, -1) for image in (truth, result)]
    inside = np.moveaxis(mask, axis, -1)
    extent = np.flatnonzero(inside.any(axis=(0, 1)))
    along = slice(int(extent[0]), int(extent[-1]) + 1)
    count = along.stop - along.start
    window = np.sin(np.pi * (np.arange(count) + 0.5) / count) ** 2
    sums = np.zeros((4, count // 2 + 1))
    for row in range(len(inside)):  # row by row: never the volume in complex numbers
        crossing = inside[row].any(axis=-1)
        t, x = (_transform(image[row, crossing, along], window) for image in lines)
        e = x - t
        sums += np.stack([(p * q.conj()).real.sum(axis=0) for p, q in ((t, t), (x, x), (e, e), (t, x))])
    sums /= np.count_nonzero(inside.any(axis=-1)) * (window**2).sum()
    return Spectra(scipy.fft.rfftfreq(count, voxel_mm)[1:], *sums[:, 1:])


def _transform(lines: Float[np.ndarray, "n z"], window: Float64[np.ndarray, " z"]) -> np.ndarray:
    values = lines.astype(np.float64)
    values -= (values @ window / window.sum())[:, None]
    return np.asarray(scipy.fft.rfft(values * window))
