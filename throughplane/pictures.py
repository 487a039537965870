"""Pictures of slices for people who look rather than read."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

matplotlib.rcParams.update({"font.size": 9, "figure.facecolor": "black", "text.color": "white"})


def comparison(
    truth: Float[np.ndarray, "i j k"],
    volumes: Mapping[str, Float[np.ndarray, "i j k"]],
    captions: Mapping[str, str],
    title: str,
    path: Path,
) -> None:
    """One row for the plane across i, one for the plane across j; errors against the truth below each.

    All volumes share the grid of `truth`, whose last axis is the slice normal (drawn upwards) and whose voxels are
    isotropic.
    """
    low, high = np.percentile(truth[truth > 0], [0.5, 99.5]) if (truth > 0).any() else (0.0, 1.0)
    shown = {"truth": truth, **volumes}
    middle = [n // 2 for n in truth.shape]
    planes = [lambda v: v[middle[0]], lambda v: v[:, middle[1]]]
    figure = Figure(figsize=(3.0 * len(shown), 11.5), dpi=110)
    axes = figure.subplots(4, len(shown), squeeze=False)
    for column, (name, volume) in enumerate(shown.items()):
        for row, plane in enumerate(planes):
            image, error = axes[2 * row, column], axes[2 * row + 1, column]
            image.imshow(plane(volume).T, origin="lower", cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            if name != "truth":
                difference = (plane(volume) - plane(truth)).T
                limit = 0.25 * (high - low)
                error.imshow(
                    difference, origin="lower", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest"
                )
        axes[0, column].set_title(captions.get(name, name), color="white")
    for axis in axes.ravel():
        axis.set_axis_off()
    axes[1, 0].text(0.5, 0.5, "error, +- a quarter\nof the range", ha="center", transform=axes[1, 0].transAxes)
    figure.suptitle(title, color="white")
    figure.tight_layout()
    figure.savefig(path, format="png")
