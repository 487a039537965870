"""Three classes of tissue by intensity: does a result divide into them as the truth does?"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.mixture import GaussianMixture

CLASSES = ("dark", "middle", "bright")
FITTED = 50_000  # voxels that the mixture is fitted to: evenly picked, more change the limits by less than noise does
GREY_LEVELS = 2048


@dataclass(frozen=True)
class TissueLimits:
    """Intensities that part dark from middle and middle from bright."""

    dark_middle: float
    middle_bright: float

    def classes(self, values: Float[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
        """0 to 2, as in `CLASSES`."""
        return np.digitize(values, [self.dark_middle, self.middle_bright])


def tissue_limits(truth: Float[np.ndarray, "i j k"], mask: Bool[np.ndarray, "i j k"]) -> TissueLimits:
    """Where neighbouring classes of a mixture of three Gaussians, fitted to the truth in the mask, are equally likely.

    Deterministic: the means start at the 1/6, 1/2 and 5/6 quantiles. In order of their means the classes are cut at one
    intensity each, so that a wide class cannot claim both ends.
    """
    values = truth[mask].astype(np.float64)
    values = values[:: max(1, values.size // FITTED), None]
    means = np.quantile(values, [1 / 6, 1 / 2, 5 / 6])[:, None]
    mixture = GaussianMixture(3, means_init=means, random_state=0, max_iter=500).fit(values)
    order = np.argsort(mixture.means_[:, 0])
    limits = []
    for lower, upper in pairwise(order):
        between = np.linspace(mixture.means_[lower, 0], mixture.means_[upper, 0], GREY_LEVELS)
        likely = mixture.predict_proba(between[:, None])
        limits.append(float(between[np.argmax(likely[:, upper] >= likely[:, lower])]))
    return TissueLimits(*limits)


def tissue_dice(
    truth: Float[np.ndarray, "i j k"], result: Float[np.ndarray, "i j k"], mask: Bool[np.ndarray, "i j k"]
) -> dict[str, float]:
    """2 |A and B| / (|A| + |B|) of each class and their mean, both images divided by the limits of the truth."""
    limits = tissue_limits(truth, mask)
    a, b = (limits.classes(image[mask]) for image in (truth, result))
    dice = {
        name: float(2 * ((a == i) & (b == i)).sum() / max(1, (a == i).sum() + (b == i).sum()))
        for i, name in enumerate(CLASSES)
    }
    return {**dice, "mean": float(np.mean(list(dice.values())))}
