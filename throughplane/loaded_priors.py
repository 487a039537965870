"""Priors from checkpoint folders, as focvs wants them: of slices, which can learn from a scan."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

import focvs
from forward_models.progress import Progress
from forward_models.stack import Stack
from priors import (
    AdaptConfig,
    Checkpoint,
    Plane,
    Prior,
    adapt,
    as_shown,
    load_checkpoint,
    loss_on,
    pixel_mm_for,
    steps_within,
)


@dataclass(frozen=True, eq=False)
class PriorOfSlices:
    """A checkpoint of ours, with weights in float32, that is sampled in `dtype`."""

    checkpoint: Checkpoint
    dtype: torch.dtype

    @property
    def sha256(self) -> str:
        """Of the weights."""
        return self.checkpoint.sha256

    def on(self, stack: Stack) -> focvs.SlicePrior:
        """As focvs wants it, on the device of `stack`."""
        prior = Prior(deepcopy(self.checkpoint.prior.network).to(stack.slices.device, self.dtype))
        planes = {plane.value: plane for plane in Plane}

        def denoise(slices: Float[Tensor, "batch rows columns"], sigma: float, world_axis: int) -> Tensor:
            return prior.denoise(slices, sigma, planes[world_axis])

        return focvs.SlicePrior(denoise, self.checkpoint.preprocess["spacing_mm"])

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

    def record(self) -> Mapping[str, Any]:
        """Which prior it was."""
        licences = sorted({scan["licence"] for scan in self.checkpoint.data["train"]})
        reached = self.checkpoint.config.get("reached", {})
        return {"sha256": self.sha256, "trained_steps": reached.get("step"), "licences_of_data": licences}


LoadedPrior = PriorOfSlices


def load_prior(folder: Path, dtype: torch.dtype) -> LoadedPrior:
    """What is in `folder`; its arithmetic in `dtype`."""
    return PriorOfSlices(load_checkpoint(folder), dtype)
