"""Weights averaged over training."""

from collections.abc import Callable

import torch
from torch import Tensor


def averaging(steps: int) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """Exponential average over `steps` steps, over fewer at the beginning; 0 keeps the latest."""

    def average(mean: Tensor, latest: Tensor, count: Tensor | int) -> Tensor:
        over = min(steps, int(count) / 10 + 1)
        return torch.lerp(mean, latest, 1 / over) if over > 1 else latest.clone()

    return average
