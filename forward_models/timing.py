"""How long a piece of work takes on this machine, so that the whole can be announced."""

import time
from collections.abc import Callable

import torch


def seconds_of(work: Callable[[], object], device: torch.device, *, repeats: int = 1, warmed_up: bool = False) -> float:
    """Seconds of one call, the mean of `repeats`.

    Steps that will be made a thousand times are timed `warmed_up`, after one that is not counted. Work on whole volumes
    is done once, in memory that was never touched before, and so is its piece.
    """
    if warmed_up:
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
