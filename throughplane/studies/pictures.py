"""Slices of results and of their errors, small enough to keep one set for every job."""

import base64
import io
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from PIL import Image
from scipy import ndimage

from forward_models import Volume
from throughplane.cuts import ACROSS, PLANES, Plane, box_around, cut, places, right_anterior_superior
from throughplane.studies.cases import Case
from throughplane.studies.records import Job, Pictures

ERROR_RANGE = 0.2  # in shares of the data range: full colour
LARGEST_PX = 256
ERROR_ANCHORS = ("#bfe3ff", "#2f86d8", "#8c8c8c", "#dd651d", "#ffe3b3")  # too dark ... right ... too bright
TRUTH = "truth"


def pictures_of(job: Job, case: Case, result: Volume | None = None) -> Pictures:
    """Slices of a result on the grid of the truth, and of its error; without a result, of the truth under that name.

    Voxels are shown with their true sides. The sagittal slice lies a quarter of the head's width off the middle, the
    others lie in the middle. Grey values run over the data range of the case, from the low percentile of the truth.
    """
    truth, sizes = right_anterior_superior(np.asarray(case.truth.data, np.float32), case.truth)
    mask, _ = right_anterior_superior(case.mask, case.truth)
    box = box_around(mask)
    true = _cuts(truth[box], sizes)
    if result is None:
        return Pictures(replace(job, method=TRUTH), _grays(true, case.window), {}, ERROR_RANGE)
    shown = _cuts(right_anterior_superior(np.asarray(result.data, np.float32), case.truth)[0][box], sizes)
    limit = ERROR_RANGE * case.data_range
    errors = {plane: _png(_levels(shown[plane] - true[plane], -limit, limit), ERROR_COLOURS) for plane in PLANES}
    return Pictures(job, _grays(shown, case.window), errors, ERROR_RANGE)


def decoded(png: str) -> Image.Image:
    """A picture of a record."""
    return Image.open(io.BytesIO(base64.b64decode(png)))


def smaller(png: str, ratio: float) -> str:
    """The same picture with sides `ratio` as long."""
    image = decoded(png)
    size = (max(1, round(image.width * ratio)), max(1, round(image.height * ratio)))
    if image.mode == "P":  # its levels are in the order of its colours, so they may be averaged
        levels = Image.fromarray(np.asarray(image)).resize(size, Image.Resampling.BOX)
        return _png(np.asarray(levels), np.asarray(image.getpalette(), np.uint8).reshape(-1, 3))
    return _png(np.asarray(image.resize(size, Image.Resampling.BOX)), None)


def _cuts(volume: Shaped[np.ndarray, "r a s"], sizes: tuple[float, float, float]) -> dict[Plane, np.ndarray]:
    place = places(volume.shape)
    return {plane: _square_pixels(cut(volume, plane, place[plane]), _sides(plane, sizes)) for plane in PLANES}


def _sides(plane: Plane, sizes: tuple[float, float, float]) -> tuple[float, float]:
    """Of a pixel of a cut in mm: upwards, sideways."""
    first, second = (size for axis, size in enumerate(sizes) if axis != ACROSS[plane])
    return second, first


def _square_pixels(image: Float[np.ndarray, "v u"], sides_mm: tuple[float, float]) -> Float[np.ndarray, "y x"]:
    """In pixels as small as the smaller side, or larger where that would be too many."""
    extent_mm = [n * side for n, side in zip(image.shape, sides_mm, strict=True)]
    pixel_mm = max(*(extent / LARGEST_PX for extent in extent_mm), min(sides_mm))
    counts = [max(1, round(extent / pixel_mm)) for extent in extent_mm]
    if tuple(counts) == image.shape:
        return image
    at = [(np.arange(n) + 0.5) * (size / n) - 0.5 for n, size in zip(counts, image.shape, strict=True)]
    return ndimage.map_coordinates(image, np.meshgrid(*at, indexing="ij"), order=1, mode="nearest")


def _grays(images: dict[Plane, np.ndarray], window: tuple[float, float]) -> dict[Plane, str]:
    return {plane: _png(_levels(image, *window), None) for plane, image in images.items()}


def _levels(image: Float[np.ndarray, "v u"], low: float, high: float) -> UInt8[np.ndarray, "v u"]:
    """From 0 at `low` to 255 at `high`, first row uppermost."""
    share = (image[::-1] - low) / (high - low) if high > low else np.zeros_like(image)
    return np.round(255 * np.clip(share, 0, 1)).astype(np.uint8)


def _png(levels: UInt8[np.ndarray, "y x"], colours: UInt8[np.ndarray, "level rgb"] | None) -> str:
    image = Image.fromarray(np.ascontiguousarray(levels))
    if colours is not None:
        image.putpalette(colours.tobytes())
    stream = io.BytesIO()
    image.save(stream, format="PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode("ascii")


def _colours() -> UInt8[np.ndarray, "256 3"]:
    anchors = np.array([[int(name[i : i + 2], 16) for i in (1, 3, 5)] for name in ERROR_ANCHORS], np.float64)
    at = np.linspace(0, len(anchors) - 1, 256)
    channels = [np.interp(at, np.arange(len(anchors)), anchors[:, channel]) for channel in range(3)]
    return np.round(np.stack(channels, axis=1)).astype(np.uint8)


ERROR_COLOURS = _colours()
