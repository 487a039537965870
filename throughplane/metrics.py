"""How close a reconstruction comes to the truth. Mask and data range are always stated, never guessed."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.metrics import structural_similarity


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
    """PSNR = 10 log10(range^2 / MSE) over the mask; SSIM (Wang 2004, Gaussian window of 1.5 voxels) averaged over it.

    SSIM is computed on the whole volume by scikit-image, then averaged within the mask, so windows see across its edge.
    """
    error = np.mean((truth[mask].astype(np.float64) - reconstruction[mask]) ** 2)
    _, similarity = structural_similarity(
        truth.astype(np.float32),
        reconstruction.astype(np.float32),
        data_range=data_range,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    psnr = float("inf") if error == 0 else 10 * np.log10(data_range**2 / error)
    return Scores(float(psnr), float(similarity[mask].mean()))


def data_range_of(truth: Float[np.ndarray, "i j k"], mask: Bool[np.ndarray, "i j k"]) -> float:
    """From the 0.1st to the 99.9th percentile of the truth within the mask."""
    low, high = np.percentile(truth[mask], [0.1, 99.9])
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
