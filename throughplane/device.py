"""Where the arithmetic runs, with how many threads, and what running out of memory looks like."""

import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from forward_models import InputRefused

MOST_THREADS = 1024


class OutOfMemory(MemoryError):
    """There is not enough memory; the message says on which device and what to do. Exit code 4."""


def device_named(name: str) -> torch.device:
    """`auto` (CUDA if there is one, else MPS, else CPU), `cpu`, `cuda`, `cuda:N` or `mps`.

    Raises:
        InputRefused: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputRefused(f"--device {name} is not a device; expected auto, cpu, cuda, cuda:N or mps") from None
    available = {
        "cpu": device.index is None,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(device.type, False):
        raise InputRefused(f"--device {name} is not available on this machine; use --device auto or cpu")
    return device


def require_threads(count: int | None) -> None:
    """Refuse a number of threads that is none, or that would crash OpenMP; None leaves it to torch."""
    if count is not None and not 1 <= count <= MOST_THREADS:
        raise InputRefused(f"--threads {count}; expected at least 1 and at most {MOST_THREADS}")


@contextmanager
def threads(count: int | None) -> Iterator[int]:
    """Use `count` CPU threads inside, as many as torch chooses if None; yields how many."""
    require_threads(count)
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


@contextmanager
def memory_errors_told(device: torch.device) -> Iterator[None]:
    """Turn every way of running out of memory into `OutOfMemory`."""
    advice = "pass a coarser --spacing, or use a machine with more memory"
    try:
        yield
    except torch.OutOfMemoryError:
        raise OutOfMemory(f"out of memory on {device}; try --device cpu, or {advice}") from None
    except MemoryError:
        raise OutOfMemory(f"out of memory; {advice}") from None
    except RuntimeError as error:
        if "can't allocate memory" not in str(error) and "not enough memory" not in str(error):
            raise
        raise OutOfMemory(f"out of memory; {advice}") from None


def memory_bytes(device: torch.device) -> int:
    """All the memory there is, used or not: of the GPU, or of the machine."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Stopwatch:
    """Wall-clock seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start
