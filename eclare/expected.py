"""How long training and inference will take on this machine, from a few real steps."""

import math
from dataclasses import replace

import torch

from eclare.config import EclareConfig
from eclare.inference import super_resolve
from eclare.network import ThroughPlaneNetwork, network_for
from eclare.pairs import PatchSource
from eclare.pretraining import StartingNetwork
from eclare.training import repeated_step
from forward_models import SliceGrid
from forward_models.solve import total_variation_seconds
from forward_models.stack import Stack
from forward_models.timing import seconds_of

TIMED_VOXELS_DEEP = 4
TIMED_STEPS = 3
TIMED_PIXELS = 16_000


def training_seconds(stack: Stack, config: EclareConfig, start: StartingNetwork | None = None) -> float:
    """Of `train`, not stopped early: steps as they are, the volumes that it learns from by their size.

    Raises:
        InputRefused: the slices are too small in plane to hold a patch.
    """
    config = config if start is None else start.continued(config)
    if not config.steps:
        return 0.0
    device, selection = stack.slices.device, stack.selection
    timed = math.ceil(
        TIMED_VOXELS_DEEP * max(*stack.in_plane_mm, selection.thin.spacing_mm) / selection.thin.spacing_mm
    )
    slices = SliceGrid(timed, selection.thin.spacing_mm)
    piece = torch.randn(*stack.slices.shape[:2], timed, generator=torch.Generator()).to(device)
    step = repeated_step(PatchSource(piece, slices, stack, config), config, _untrained(stack, config))
    preparing = seconds_of(lambda: PatchSource(piece, slices, stack, config), device) / timed
    count = selection.thin.count if config.neighbours else selection.thick.count
    seconds = (
        config.steps * seconds_of(step, device, repeats=TIMED_STEPS, warmed_up=True)
        + (config.refreshes + 1) * count * preparing
    )
    if config.neighbours and start is None:
        seconds += total_variation_seconds(stack)
    passes = config.refreshes + (start is not None)
    return seconds + (passes * inference_seconds(stack, replace(config, flips=False)) if passes else 0.0)


def inference_seconds(stack: Stack, config: EclareConfig) -> float:
    """Of `super_resolve`, from a few rows."""
    a, b, thick = stack.slices.shape
    piece = stack.rows(max(1, TIMED_PIXELS // (b * thick)))
    network = _untrained(stack, config).eval()
    once = replace(config, flips=False)
    seconds = seconds_of(lambda: super_resolve(piece, network, once), stack.slices.device, warmed_up=True)
    return seconds * a / piece.slices.shape[0] * (4 if config.flips else 1)


def _untrained(stack: Stack, config: EclareConfig) -> ThroughPlaneNetwork:
    """As costly as a trained one."""
    return network_for(stack.selection, config, torch.Generator()).to(stack.slices.device)
