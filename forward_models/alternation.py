"""Brightness that alternates from slice to slice, as cross-talk of interleaved slices leaves it."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Shaped

from forward_models.volume import Volume

TISSUE_SHARE = 0.2  # of the robust maximum: what is brighter is compared
MIN_VOXELS = 200  # for a slice to count
MIN_SLICES = 8
CLEAR_ERRORS = 5.0  # standard errors; 13 in the one scan of 31 whose bands are seen, at most 3 in the others
CLEAR_SHARE = 0.005
SIDE = 160  # in-plane voxels that suffice, along either axis
MEDIAN_ERROR = 1.25 * 1.4826  # times the median absolute deviation over the square root of the count


@dataclass(frozen=True)
class Alternation:
    """By how much slices 0, 2, 4, ... are brighter than the mean of their neighbours, and the others darker.

    Attributes:
        log_gain: natural logarithm of that factor; negative where slices 1, 3, 5, ... are the brighter ones.
        error: its standard error, infinite where too few slices could be compared.
    """

    log_gain: float
    error: float

    @property
    def is_clear(self) -> bool:
        return abs(self.log_gain) > max(CLEAR_SHARE, CLEAR_ERRORS * self.error)

    def undone(self, volume: Volume, axis: int) -> Volume:
        """The volume with even slices along `axis`, as float32."""
        signs = np.where(np.arange(volume.data.shape[axis]) % 2, 1.0, -1.0)
        shape = [1, 1, 1]
        shape[axis] = len(signs)
        gains = np.exp(self.log_gain * signs).astype(np.float32).reshape(shape)
        return replace(volume, data=np.asarray(volume.data, np.float32) * gains)

    def note(self, undone: bool) -> str | None:
        """What a user should know, if anything; `undone` says whether that was asked for."""
        percent = f"{100 * abs(self.log_gain):.1f} %"
        if self.is_clear and undone:
            return f"slices were {percent} brighter and darker than their neighbours by turns; undone"
        if self.is_clear:
            return (
                f"slices are {percent} brighter and darker than their neighbours by turns (interleaved?), which leaves "
                "bands in the result; pass --undo-alternation"
            )
        return f"slices do not clearly alternate in brightness ({percent}); nothing is undone" if undone else None


def alternation(slices: Shaped[np.ndarray, "a b thick"]) -> Alternation:
    """What alternates in the brightness of slices.

    Of d_k, the median over tissue of log y_k - (log y_k-1 + log y_k+1) / 2, anatomy makes a smooth sequence that
    vanishes in the median of (-1)^k d_k over slices; a gain of g and 1/g by turns makes that median 2 log g.
    """
    stride = [max(1, size // SIDE) for size in slices.shape[:2]]
    y = np.asarray(slices[:: stride[0], :: stride[1]], np.float32)
    tissue = y > TISSUE_SHARE * max(float(np.percentile(y, 99)), 0.0)
    shared = tissue[..., :-2] & tissue[..., 1:-1] & tissue[..., 2:]
    logs = np.log(np.where(tissue, y, 1.0))
    bends = logs[..., 1:-1] - (logs[..., :-2] + logs[..., 2:]) / 2
    counted = [k for k in range(bends.shape[-1]) if np.count_nonzero(shared[..., k]) >= MIN_VOXELS]
    if len(counted) < MIN_SLICES:
        return Alternation(0.0, np.inf)
    return _median(np.array([(1 if k % 2 else -1) * np.median(bends[..., k][shared[..., k]]) / 2 for k in counted]))


def _median(found: Float[np.ndarray, "slices"]) -> Alternation:
    middle = float(np.median(found))
    spread = float(np.median(np.abs(found - middle)))
    return Alternation(middle, MEDIAN_ERROR * spread / len(found) ** 0.5)
