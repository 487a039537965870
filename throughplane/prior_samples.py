"""Slices drawn from a prior, for `throughplane prior sample`: the sheet, and the check for memorised slices."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from eclare.precision import reduced_precision
from forward_models import InputRefused
from priors.blocks import enlarged
from priors.checkpoint import Checkpoint, load_checkpoint
from priors.corpus import Corpus, read_corpus
from priors.data import HeadScan
from priors.planes import Plane, slice_of
from priors.random import generator_for
from priors.sampling import fitted, nearest, noise_schedule, sample
from priors.shipped import find_prior
from throughplane.outputs import Writer

COLUMNS = 8  # of the sheet
BRIGHTEST = 1.2
LAYOUT_NOISE = 0.3  # that the prior goes on from with what a layout drew: more undoes it, less leaves it blurred
VALIDATION_EVERY = 8  # slices


@dataclass(frozen=True)
class Drawing:
    """What is drawn: so many slices of each plane, `size` mm along either side, by `steps` noise levels."""

    slices: int
    size: int
    steps: int
    seed: int


def draw(
    prior: str, drawing: Drawing, scans: Sequence[Path], layout: str | None = None
) -> tuple[dict[Plane, Float[Tensor, "batch rows columns"]], dict[str, Any]]:
    """Slices by plane, and their record; with `scans`, also how close they come to those the prior was trained on.

    Args:
        prior: name or folder; one of larger pixels than 1 mm is drawn from on its own pixels.
        drawing: what is drawn.
        scans: the prior's data.
        layout: name or folder of a prior of larger pixels, which draws the slices that the prior puts detail into.

    Raises:
        InputRefused: no such prior, `scans` are not those it was trained on, or `layout` has no larger pixels.
    """
    checkpoint = load_checkpoint(find_prior(prior))
    coarse = None if layout is None else load_checkpoint(find_prior(layout))
    ratio = _ratio(checkpoint, coarse)
    corpus = read_corpus(scans) if scans else None
    if corpus is not None:
        for learned in (checkpoint, coarse):
            if learned is not None:
                _require_trained_on(corpus, learned.data)
    began = time.perf_counter()
    pixel_mm = round(checkpoint.preprocess["spacing_mm"])
    with torch.inference_mode(), reduced_precision(torch.device("cpu")):
        drawn = {plane: _drawn(checkpoint, coarse, ratio, drawing, plane) for plane in Plane}
    if pixel_mm > 1:
        drawn = {plane: enlarged(slices, pixel_mm) for plane, slices in drawn.items()}
    seconds = time.perf_counter() - began
    record: dict[str, Any] = {"prior": checkpoint.sha256, **asdict(drawing), "seconds": seconds}
    if coarse is not None:
        record["layout"] = coarse.sha256
    if corpus is not None:
        record["nearest"] = {plane.name.lower(): _compared(drawn[plane], corpus, plane) for plane in Plane}
    return drawn, record


def _ratio(checkpoint: Checkpoint, layout: Checkpoint | None) -> int:
    """How many times larger the pixels of the layout are."""
    if layout is None:
        return 1
    ratio = layout.preprocess["spacing_mm"] / checkpoint.preprocess["spacing_mm"]
    if ratio < 2 or ratio % 1:
        raise InputRefused(
            f"--layout has pixels {ratio:g} times as large as the prior; expected twice or another whole multiple, as "
            "head-2d-layout has with head-2d"
        )
    return int(ratio)


def _drawn(
    checkpoint: Checkpoint, layout: Checkpoint | None, ratio: int, drawing: Drawing, plane: Plane
) -> Float[Tensor, "batch rows columns"]:
    """From noise alone, or from what the layout draws from noise alone, enlarged, and a little noise (SDEdit)."""
    generator = generator_for(drawing.seed, plane.value)
    first = checkpoint if layout is None else layout
    side = math.ceil(drawing.size / first.preprocess["spacing_mm"])
    air = torch.zeros(drawing.slices, side, side)
    slices = sample(first.prior.of_plane(plane), air, noise_schedule(drawing.steps), generator=generator)
    if layout is None:
        return slices
    inside = math.ceil(drawing.size / checkpoint.preprocess["spacing_mm"])
    start = enlarged(slices, ratio)[:, :inside, :inside]
    sigmas = noise_schedule(drawing.steps, most=LAYOUT_NOISE)
    return sample(checkpoint.prior.of_plane(plane), start, sigmas, generator=generator)


def _require_trained_on(corpus: Corpus, data: dict[str, Any]) -> None:
    missing = {scan["sha256"]: scan["file"] for scan in data["train"]}
    for scan in corpus.train:
        missing.pop(scan.sha256, None)
    if missing:
        raise InputRefused(f"the prior was trained on {', '.join(missing.values())}, which --scans does not hold")


def _compared(drawn: Float[Tensor, "batch rows columns"], corpus: Corpus, plane: Plane) -> dict[str, Any]:
    """Nearest training slices of the samples and, as a yardstick, of real slices of other subjects."""
    train = list(_slices(corpus.train, plane, every=1))
    known = [image for _, image in train]
    found, which = nearest(drawn, known)
    others = [fitted(image, *drawn.shape[1:]) for _, image in _slices(corpus.validation, plane, VALIDATION_EVERY)]
    yardstick = nearest(torch.stack(others), known)[0] if others else torch.full((1,), float("nan"))
    return {
        "samples_median": float(found.median()),
        "samples_highest": float(found.max()),
        "validation_median": float(yardstick.median()),
        "validation_highest": float(yardstick.max()),
        "samples": [round(float(value), 4) for value in found],
        "nearest": [train[index][0] if index >= 0 else None for index in which],
    }


def _slices(scans: Sequence[HeadScan], plane: Plane, every: int) -> Iterator[tuple[str, Float[Tensor, "rows columns"]]]:
    for scan in scans:
        for index in scan.slices[plane.value][::every].tolist():
            yield f"{scan.name} {index}", slice_of(scan.voxels, plane, index).float()


def sheet(drawn: dict[Plane, Float[Tensor, "batch rows columns"]]) -> Float[Tensor, "height width"]:
    """All slices as one picture, planes below each other, heads upright, air black."""
    bands = []
    for slices in drawn.values():
        upright = slices.mT.flip(1).float().clamp(0, BRIGHTEST) / BRIGHTEST
        short = -len(upright) % min(COLUMNS, len(upright))
        filled = torch.cat([upright, torch.zeros(short, *upright.shape[1:])])
        rows = filled.split(min(COLUMNS, len(upright)))
        bands.append(torch.cat([torch.cat(list(row), dim=1) for row in rows]))
    return torch.cat(bands)


def sheet_writer(drawn: dict[Plane, Float[Tensor, "batch rows columns"]]) -> Writer:
    """Writes the picture, at half size."""
    from matplotlib.image import imsave

    picture = torch.nn.functional.avg_pool2d(sheet(drawn)[None], 2)[0].numpy()
    return lambda path: imsave(path, picture, cmap="gray", vmin=0, vmax=1, format="png")
