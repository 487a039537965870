"""Applying a trained network through the plane."""

import torch
from jaxtyping import Float
from torch import Tensor

from eclare.config import EclareConfig
from eclare.network import GridChange, ThroughPlaneNetwork, grid_change
from forward_models.progress import Progress, silent
from forward_models.stack import Stack

BATCH_BYTES = 64 * 2**20  # of one layer's activations; sets how many slices are processed at once


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
    change = grid_change(selection.thick, selection.thin).to(stack.slices.device)
    a, b, thick = stack.slices.shape
    total = torch.zeros(a, b, selection.thin.count, device=stack.slices.device)
    done = 0
    for scan, target in ((stack.slices, total), (stack.slices.transpose(0, 1), total.transpose(0, 1))):
        count, width, _ = scan.shape  # slices one after the other, each of width x thick voxels
        at_once = max(1, BATCH_BYTES // (2 * config.channels * thick * width))
        for start in range(0, count, at_once):
            near = with_neighbours(scan.mT, range(start, min(start + at_once, count)), network.neighbours)
            part = _through(network, near, change, config.flips)
            target[start : start + at_once] += part[:, 0].mT / 2
            done += part.shape[0]
            progress("inference", done, a + b)
    if not config.consistent:
        return total
    return selection.less_negative(selection.consistent(total, stack.slices), stack.slices)


def with_neighbours(
    slices: Float[Tensor, "slice thick width"], chosen: range, neighbours: int
) -> Float[Tensor, "batch near thick width"]:
    """The chosen slices, each with as many neighbours on either side; the outermost slices are repeated."""
    offsets = torch.arange(-neighbours, neighbours + 1)
    indices = torch.tensor(chosen)[:, None] + offsets
    return slices[indices.clamp(0, slices.shape[0] - 1).to(slices.device)]


def _through(
    network: ThroughPlaneNetwork, slices: Float[Tensor, "batch near thick width"], change: GridChange, flips: bool
) -> Float[Tensor, "batch 1 thin width"]:
    """The network's answer, averaged over the four flips of each slice if asked for."""
    axes_to_flip: list[tuple[int, ...]] = [(), (2,), (3,), (2, 3)] if flips else [()]
    slices = slices.contiguous(memory_format=torch.channels_last)
    answers = (network(slices.flip(axes), change).flip(axes) for axes in axes_to_flip)
    return sum(answers, torch.zeros((), device=slices.device)) / len(axes_to_flip)
