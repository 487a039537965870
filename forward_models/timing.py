"""How long a piece of work takes on this machine, so that the whole can be announced."""

import time
from collections.abc import Callable

import torch


def seconds_of(work: Callable[[], object], device: torch.device, repeats: int = 1) -> float:
    """Seconds of one call, the mean of `repeats` after one that warms up caches."""
    work()
    _finish(device)
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    _finish(device)
    return (time.perf_counter() - start) / repeats


def _finish(device: torch.device) -> None:
    """Kernels on a GPU run on by themselves."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
