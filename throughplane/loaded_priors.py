"""Priors from checkpoint folders, as focvs wants them: of slices, which can learn from a scan, and of volumes."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import focvs
from forward_models import InputRefused
from forward_models.progress import Progress
from forward_models.stack import Stack
from priors import (
    AdaptConfig,
    Checkpoint,
    Plane,
    Prior,
    VolumePrior,
    adapt,
    as_shown,
    loss_on,
    pixel_mm_for,
    steps_within,
)
from priors.data import THICKEST_MM
from priors.loading import load_any

BRIGHTEST_PERCENTILE = 99.9  # of a volume, which published 3-D priors were shown as 1
LIBRARY_BYTES = 4e8  # MONAI and the weights
CANNOT_LEARN = "--adapt needs a prior of slices, and this one is of volumes; leave --adapt out, or pass another --prior"


@dataclass(frozen=True, eq=False)
class PriorOfSlices:
    """A checkpoint of ours, with weights in float32, that is sampled in `dtype`."""

    checkpoint: Checkpoint
    dtype: torch.dtype
    adaptable = True

    @property
    def sha256(self) -> str:
        """Of the weights."""
        return self.checkpoint.sha256

    @property
    def spacing_mm(self) -> float:
        """Of its pixels."""
        return float(self.checkpoint.preprocess["spacing_mm"])

    def on(self, stack: Stack) -> focvs.SlicePrior:
        """As focvs wants it, on the device of `stack`."""
        prior = Prior(deepcopy(self.checkpoint.prior.network).to(stack.slices.device, self.dtype))
        planes = {plane.value: plane for plane in Plane}

        def denoise(slices: Float[Tensor, "batch rows columns"], sigma: float, world_axis: int) -> Tensor:
            return prior.denoise(slices, sigma, planes[world_axis])

        return focvs.SlicePrior(denoise, self.spacing_mm)

    def adapted(
        self, stack: Stack, minutes: float, seed: int, progress: Progress
    ) -> tuple["PriorOfSlices", Mapping[str, Any]]:
        """A copy that has learned from the slices of `stack`, and what there is to say of that.

        What is drawn depends on the number of steps, and that on how many this machine makes in `minutes`.
        """
        axis = focvs.scanned_plane(stack)
        view, pixel_mm = focvs.view_of(stack.directions, axis), pixel_mm_for(stack.selection.profile.fwhm_mm)
        sizes_mm = (stack.in_plane_mm[view.axes[1]], stack.in_plane_mm[view.axes[2]])
        slices = as_shown(view.slices(stack.slices).float().cpu(), sizes_mm, pixel_mm)
        plane, config = Plane(axis), AdaptConfig(half=self.dtype == torch.bfloat16)
        prior = Prior(deepcopy(self.checkpoint.prior.network).to(stack.slices.device))
        config = replace(config, steps=steps_within(minutes, prior, slices, plane, config))
        learned = adapt(
            prior,
            slices,
            plane,
            config,
            generator=torch.Generator().manual_seed(seed),
            report=lambda done, total: progress("adapt", done, total),
        )
        record = {
            "minutes": minutes,
            "steps": config.steps,
            "pixel_mm": pixel_mm,
            "loss_before": round(loss_on(prior, slices, plane, config), 5),
            "loss_after": round(loss_on(learned, slices, plane, config), 5),
        }
        return replace(self, checkpoint=replace(self.checkpoint, prior=learned)), record

    def times_seen(self, stack: Stack) -> float:
        """By how much overlaps multiply the work: there are none."""
        del stack
        return 1.0

    def network_bytes(self, sides_mm: tuple[float, float, float]) -> float:
        """Peak memory of a call, beyond what the methods table says of focvs: none."""
        del sides_mm
        return 0.0

    def record(self) -> Mapping[str, Any]:
        """Which prior it was."""
        licences = sorted({scan["licence"] for scan in self.checkpoint.data["train"]})
        reached = self.checkpoint.config.get("reached", {})
        return {"sha256": self.sha256, "trained_steps": reached.get("step"), "licences_of_data": licences}


@dataclass(frozen=True, eq=False)
class PriorOfVolumes:
    """A 3-D prior that sees the whole volume where there is memory for it, else tiles of it.

    Attributes:
        prior: computing in `dtype`.
        budget_bytes: what one call of its network may take.
    """

    prior: VolumePrior
    dtype: torch.dtype
    budget_bytes: float
    adaptable = False

    @property
    def sha256(self) -> str:
        """Of the weights."""
        return self.prior.sha256 or ""

    @property
    def spacing_mm(self) -> float:
        """Of its voxels."""
        return self.prior.spacing_mm

    def on(self, stack: Stack) -> focvs.VolumePrior:
        """As focvs wants it, on the device of `stack`; told the brightest 0.1 % of the scan."""
        slices = stack.slices.numpy(force=True)
        brightest = float(np.percentile(slices, BRIGHTEST_PERCENTILE)) or float(slices.max())
        network = self.prior.network.to(stack.slices.device)
        prior = replace(self.prior, network=network).for_maximum(brightest)

        def denoise(x: Float[Tensor, "r a s"], sigma: float) -> Float[Tensor, "r a s"]:
            return prior.denoise(x[None], sigma)[0]

        return focvs.VolumePrior(focvs.by_tiles(denoise, self.tile_for), prior.spacing_mm)

    def tile_for(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """What the network sees at once of a volume of `shape`."""
        config = self.prior.config

        def fits(tile: tuple[int, int, int]) -> bool:
            return config.bytes_for(tile, self.dtype) <= self.budget_bytes

        return focvs.tile_within(shape, fits, config.multiple)

    def times_seen(self, stack: Stack) -> float:
        """By how much overlaps of tiles multiply the work."""
        grid = focvs.prior_grid(stack, self.prior.spacing_mm).stack
        volume = focvs.view_of(stack.directions, 0).slices(torch.empty(grid.selection.domain_shape(grid.slices.shape)))
        shape = (volume.shape[0], volume.shape[1], volume.shape[2])
        return focvs.times_seen(shape, self.tile_for(shape))

    def network_bytes(self, sides_mm: tuple[float, float, float]) -> float:
        """Peak memory of a call, for a volume of these sides."""
        a, b, c = (max(1, round(side / self.prior.spacing_mm)) for side in sides_mm)
        return LIBRARY_BYTES + self.prior.config.bytes_for(self.tile_for((a, b, c)), self.dtype)

    def adapted(
        self, stack: Stack, minutes: float, seed: int, progress: Progress
    ) -> tuple["PriorOfVolumes", Mapping[str, Any]]:
        """Refused: the slices of a scan are no volumes to learn from."""
        del stack, minutes, seed, progress
        raise InputRefused(CANNOT_LEARN)

    def record(self) -> Mapping[str, Any]:
        """Which prior it was."""
        return {
            "sha256": self.sha256,
            "of": "volumes",
            "prediction": self.prior.prediction.name,
            "orientation": self.prior.orientation,
            "budget_bytes": round(self.budget_bytes),
        }


LoadedPrior = PriorOfSlices | PriorOfVolumes


def load_prior(folder: Path, dtype: torch.dtype, budget_bytes: float) -> LoadedPrior:
    """What is in `folder`, of slices or of volumes as its config.json says; its arithmetic in `dtype`.

    Args:
        folder: of a checkpoint.
        dtype: of the network's arithmetic.
        budget_bytes: what one call of a network of volumes may take.
    """
    prior = load_any(folder, dtype)
    if isinstance(prior, VolumePrior):
        return PriorOfVolumes(prior, dtype, budget_bytes)
    if (spacing_mm := prior.preprocess["spacing_mm"]) > THICKEST_MM:
        raise InputRefused(
            f"{folder} knows pixels of {spacing_mm:g} mm, the layout of a head without detail; expected a prior of at "
            f"most {THICKEST_MM:g} mm, such as head-2d"
        )
    return PriorOfSlices(prior, dtype)
