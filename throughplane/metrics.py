"""How close a reconstruction comes to the truth. Mask and data range are always stated, never guessed."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.metrics import structural_similarity

SSIM_REACH = 5  # voxels: a Gaussian of 1.5 voxels cut off at 3.5 standard deviations, as scikit-image does
RANGE_PERCENTILES = (0.1, 99.9)
QUANTILES = np.linspace(0.005, 0.995, 200)


@dataclass(frozen=True)
class Scores:
    """PSNR in dB and 3-D SSIM, both within one mask and for one data range."""

    psnr_db: float
    ssim: float


def score(
    truth: Float[np.ndarray, "i j k"],
    reconstruction: Float[np.ndarray, "i j k"],
    mask: Bool[np.ndarray, "i j k"],
    data_range: float,
) -> Scores:
    """PSNR over the mask, SSIM averaged over it; windows of SSIM see across its edge."""
    similarity = similarity_map(truth, reconstruction, data_range)
    return Scores(psnr_db(truth, reconstruction, mask, data_range), float(similarity[mask].mean(dtype=np.float64)))


def psnr_db(
    truth: Float[np.ndarray, "i j k"],
    reconstruction: Float[np.ndarray, "i j k"],
    mask: Bool[np.ndarray, "i j k"],
    data_range: float,
) -> float:
    """10 log10(range^2 / MSE) over the mask; infinite where nothing is off."""
    error = np.mean((truth[mask].astype(np.float64) - reconstruction[mask]) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(data_range**2 / error))


def similarity_map(
    truth: Float[np.ndarray, "i j k"], reconstruction: Float[np.ndarray, "i j k"], data_range: float
) -> Float[np.ndarray, "i j k"]:
    """SSIM of every voxel (Wang et al. 2004) by scikit-image in float64: a 3-D Gaussian window of 1.5 voxels.

    Slab by slab, each with the rows that its windows see, so that float64 is never held for the volume as a whole.
    """
    count = len(truth)
    out = np.empty(truth.shape, np.float32)
    for rows in np.array_split(np.arange(count), max(1, count // 32)):
        first, last = int(rows[0]), int(rows[-1]) + 1
        low = max(first - SSIM_REACH, 0)
        seen = slice(low, last + SSIM_REACH)
        _, similarity = structural_similarity(
            truth[seen].astype(np.float64),
            reconstruction[seen].astype(np.float64),
            data_range=data_range,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            full=True,
        )
        out[first:last] = similarity[first - low : last - low]
    return out


def gradient_distances(
    truth: Float[np.ndarray, "i j k"], result: Float[np.ndarray, "i j k"], mask: Bool[np.ndarray, "i j k"]
) -> tuple[float, float, float]:
    """Along each axis, how far apart the absolute first differences of result and truth are distributed.

    Mean absolute difference of their 0.5 to 99.5 % quantiles (Wasserstein-1) over the truth's mean, for neighbours that
    are both in the mask. 0 is best; blur and noise both raise it.
    """
    a, b, c = (_gradient_distance(truth, result, mask, axis) for axis in range(3))
    return a, b, c


def _gradient_distance(
    truth: Float[np.ndarray, "i j k"], result: Float[np.ndarray, "i j k"], mask: Bool[np.ndarray, "i j k"], axis: int
) -> float:
    n = mask.shape[axis]
    both = np.take(mask, range(1, n), axis) & np.take(mask, range(n - 1), axis)
    true, found = (np.abs(np.diff(image, axis=axis))[both] for image in (truth, result))
    apart = np.abs(np.quantile(true, QUANTILES) - np.quantile(found, QUANTILES)).mean()
    return float(apart / true.mean(dtype=np.float64))


def data_range_of(truth: Float[np.ndarray, "i j k"], mask: Bool[np.ndarray, "i j k"]) -> float:
    """From the 0.1st to the 99.9th percentile of the truth within the mask."""
    low, high = np.percentile(truth[mask], RANGE_PERCENTILES)
    return float(high - low)


def head_mask(thin: Float[np.ndarray, "i j k"]) -> Bool[np.ndarray, "i j k"]:
    """The head in a thin volume, holes filled: brain, skull and skin, or the brain alone where that is all there is.

    The largest component above half of Otsu's threshold, after closing gaps of up to 3 voxels.
    """
    signal = thin[thin > 0]
    if signal.size == 0:
        return np.zeros(thin.shape, bool)
    bright = ndimage.gaussian_filter(np.asarray(thin, np.float32), 1.0) > 0.5 * threshold_otsu(signal)
    filled = ndimage.binary_fill_holes(ndimage.binary_closing(bright, iterations=3))
    components, count = ndimage.label(filled)
    if count == 0:
        return filled
    return components == 1 + int(np.argmax(np.bincount(components.ravel())[1:]))
