"""Pictures of slices for people who look rather than read."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Float, Shaped
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from forward_models import SliceGrid
from throughplane.cuts import Plane, box_around, cut, places

COLUMN_PX, GAP_PX, LEFT_PX, TITLE_PX, CAPTION_PX = 400, 8, 64, 60, 64
DPI = 100
ROWS: tuple[Plane, ...] = ("sagittal", "coronal")
ERROR_SHARE = 0.25  # of the range of the truth: full colour in the error maps
ERROR_LABEL = f"error\n\N{PLUS-MINUS SIGN} {100 * ERROR_SHARE:g} % of range"
ERRORS = LinearSegmentedColormap.from_list("errors", ["#c9e8ff", "#2f86d8", "black", "#dd651d", "#ffe3b3"])


def nearest_slices(
    slices: Shaped[np.ndarray, "i j thick"], thick: SliceGrid, thin: SliceGrid
) -> Shaped[np.ndarray, "i j thin"]:
    """Each thin slice shows the thick slice whose centre is nearest: a scan as it is, on a thin grid."""
    return slices[..., np.abs(thin.centres_mm[:, None] - thick.centres_mm).argmin(axis=1)]


def comparison(
    truth: Float[np.ndarray, "i j k"],
    volumes: Mapping[str, Shaped[np.ndarray, "i j k"]],
    captions: Mapping[str, str],
    title: str,
    path: Path,
) -> None:
    """A column for each volume and one for the truth: a sagittal and a coronal slice, with errors below.

    `captions` go under the names of the columns. Grey values run from the 1st to the 99.5th percentile of the truth
    that is not 0, and that is the range that errors are given in.

    All volumes share the grid of `truth`, whose axes point right, anterior and superior, either way round, and whose
    voxels are isotropic. The sagittal slice lies a quarter of the head's width off the middle, where there is cortex.
    """
    box = box_around(truth > 0.05 * np.percentile(truth, 99.5))
    truth = truth[box]
    place = places(truth.shape)
    low, high = np.percentile(truth[truth > 0], [1, 99.5]) if (truth > 0).any() else (0.0, 1.0)
    width, height = max(truth.shape[:2]), max(truth.shape[2], truth.shape[0])
    zoom = max(1, round(COLUMN_PX / width))
    with matplotlib.rc_context({"font.size": 12, "text.color": "white", "figure.facecolor": "black"}):
        page = _Page(len(volumes) + 1, 4, zoom * width, zoom * height)
        for column, (name, volume) in enumerate(volumes.items()):
            page.caption(column, name, captions.get(name, ""))
            for row, plane in enumerate(ROWS):
                image, true = (cut(array, plane, place[plane]) for array in (volume[box], truth))
                page.show(2 * row, column, image, zoom, "gray", low, high)
                limit = ERROR_SHARE * (high - low)
                page.show(2 * row + 1, column, image - true, zoom, ERRORS, -limit, limit)
        last = len(volumes)
        page.caption(last, "truth", captions.get("truth", ""))
        for row, plane in enumerate(ROWS):
            page.show(2 * row, last, cut(truth, plane, place[plane]), zoom, "gray", low, high)
        above = page.show(1, last, truth[:, :, place["axial"]], zoom, "gray", low, high)  # anterior to the right
        above.axhline(place["sagittal"], color="#7fd0ff", linewidth=1.5, linestyle="--")
        above.axvline(place["coronal"], color="#7fd0ff", linewidth=1.5, linestyle="--")
        page.colour_bar(3, last)
        for row, label in enumerate(("sagittal", ERROR_LABEL, "coronal", ERROR_LABEL)):
            page.label(row, label)
        page.figure.text(0.5, 1 - 0.5 * TITLE_PX / page.height, title, ha="center", va="center", fontsize=16)
        page.figure.savefig(path, format="png", dpi=DPI, facecolor="black")


class _Page:
    """Panels placed to the pixel, so that every voxel is drawn equally large."""

    def __init__(self, columns: int, rows: int, panel_width: int, panel_height: int) -> None:
        self.panel = (panel_width, panel_height)
        self.width = LEFT_PX + columns * (panel_width + GAP_PX)
        self.height = TITLE_PX + CAPTION_PX + rows * (panel_height + GAP_PX)
        self.figure = Figure(figsize=(self.width / DPI, self.height / DPI), dpi=DPI)

    def corner(self, row: int, column: int) -> tuple[int, int]:
        """Left and lower edge of a panel, in pixels from the lower left."""
        left = LEFT_PX + column * (self.panel[0] + GAP_PX)
        return left, self.height - TITLE_PX - CAPTION_PX - (row + 1) * (self.panel[1] + GAP_PX) + GAP_PX

    def axes(self, left: float, lower: float, width: float, height: float) -> Axes:
        """Axes at a place in pixels."""
        return self.figure.add_axes((left / self.width, lower / self.height, width / self.width, height / self.height))

    def show(
        self,
        row: int,
        column: int,
        image: Shaped[np.ndarray, "v u"],
        zoom: int,
        colours: str | LinearSegmentedColormap,
        low: float,
        high: float,
    ) -> Axes:
        """An image in the middle of its panel, its first axis upwards."""
        (left, lower), (height, width) = self.corner(row, column), (zoom * n for n in image.shape)
        axes = self.axes(left + (self.panel[0] - width) // 2, lower + (self.panel[1] - height) // 2, width, height)
        axes.imshow(image, origin="lower", cmap=colours, vmin=low, vmax=high, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        return axes

    def caption(self, column: int, name: str, told: str) -> None:
        """Above a column: its name, and what there is to say of it."""
        left, _ = self.corner(0, column)
        x, lower = (left + self.panel[0] / 2) / self.width, self.height - TITLE_PX - CAPTION_PX + GAP_PX
        self.figure.text(x, (lower + 30) / self.height, name, ha="center", va="baseline", fontsize=15, weight="bold")
        self.figure.text(x, (lower + 8) / self.height, told, ha="center", va="baseline")

    def label(self, row: int, text: str) -> None:
        """At the left of a row, read upwards."""
        _, lower = self.corner(row, 0)
        spot = (0.5 * LEFT_PX / self.width, (lower + self.panel[1] / 2) / self.height)
        self.figure.text(*spot, text, ha="center", va="center", rotation=90, multialignment="center")

    def colour_bar(self, row: int, column: int) -> None:
        """What the colours of the error maps mean."""
        left, lower = self.corner(row, column)
        width, height = self.panel
        share = f"{100 * ERROR_SHARE:g}"
        axes = self.axes(left + 0.15 * width, lower + 0.5 * height, 0.7 * width, 22)
        axes.imshow(np.linspace(-1, 1, 256)[None], cmap=ERRORS, aspect="auto", extent=(-1, 1, 0, 1))
        axes.set_yticks([])
        axes.set_xticks([-1, 0, 1], [f"\N{MINUS SIGN}{share}", "0", f"+{share}"], color="white")
        axes.tick_params(color="white")
        for spine in axes.spines.values():
            spine.set_color("white")
        axes.set_title("error in % of the range of the truth", color="white", fontsize=12)
