"""Applying a trained network through the plane."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from eclare.config import EclareConfig
from eclare.network import GridChange, ThroughPlaneNetwork, grid_change, oversampling_for
from eclare.training import reduced_precision
from forward_models.progress import Progress, silent
from forward_models.stack import Stack

BATCH_BYTES = 256 * 2**20  # of one layer's activations; sets how many slices are processed at once


@torch.no_grad()
def super_resolve(
    stack: Stack, network: ThroughPlaneNetwork, config: EclareConfig, *, progress: Progress = silent
) -> Float[Tensor, "a b thin"]:
    """The thin volume: the mean of both orthogonal reformats, slice by slice through the network.

    Args:
        stack: the scan the network was trained for, or another one with the same slice selection.
        network: from `train`.
        config: whether to average over flips, and to make the result consistent with the scan.
        progress: called after each batch of slices.
    """
    selection = stack.selection
    oversampling = oversampling_for(selection.thick, selection.thin.spacing_mm)
    change = grid_change(selection.thick, selection.thin, oversampling).to(stack.slices.device)
    a, b, thick = stack.slices.shape
    total = torch.zeros(a, b, selection.thin.count, device=stack.slices.device)
    views = {"b a": (b, a), "a b": (a, b)}
    done, work = 0, a + b
    for order, (count, width) in views.items():
        slices = rearrange(stack.slices, f"a b thick -> {order.split()[0]} 1 thick {order.split()[1]}")
        at_once = max(1, BATCH_BYTES // (2 * config.channels * thick * width))
        for start in range(0, count, at_once):
            part = _through(network, slices[start : start + at_once], change, config.flips)
            target = rearrange(total, f"a b thin -> {order.split()[0]} 1 thin {order.split()[1]}")
            target[start : start + at_once] += part / 2
            done += part.shape[0]
            progress("inference", done, work)
    return selection.consistent(total, stack.slices) if config.consistent else total


def _through(
    network: ThroughPlaneNetwork, slices: Float[Tensor, "batch 1 thick width"], change: GridChange, flips: bool
) -> Float[Tensor, "batch 1 thin width"]:
    """The network's answer, averaged over the four flips of each slice if asked for."""
    axes_to_flip: list[tuple[int, ...]] = [(), (2,), (3,), (2, 3)] if flips else [()]
    slices = slices.contiguous(memory_format=torch.channels_last)
    with reduced_precision(slices.device):
        answers = (network(slices.flip(axes), change).flip(axes) for axes in axes_to_flip)
        return sum(answers, torch.zeros(())) / len(axes_to_flip)
