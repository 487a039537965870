"""Devices by name, threads given back, and every way of running out of memory told alike."""

import time

import pytest
import torch

from forward_models import InputRefused
from throughplane.device import OutOfMemory, Stopwatch, device_named, memory_errors_told, peak_memory_bytes, threads

CPU = torch.device("cpu")


def accelerators(monkeypatch, cuda: int, mps: bool) -> None:
    """Make torch believe that the machine has these."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(0, False, "cpu"), (0, True, "mps"), (1, False, "cuda"), (1, True, "cuda")]
)
def test_auto_takes_the_fastest_there_is(monkeypatch, cuda, mps, expected):
    accelerators(monkeypatch, cuda, mps)
    assert device_named("auto").type == expected


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:0", "cuda:1", "mps"])
def test_a_device_that_is_there_is_taken(monkeypatch, name):
    accelerators(monkeypatch, 2, True)
    assert device_named(name) == torch.device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps", "cpu:3", "meta", "xpu"])
def test_a_device_that_is_not_there_is_refused(monkeypatch, name):
    accelerators(monkeypatch, 0, False)
    with pytest.raises(InputRefused, match=f"--device {name} is not available on this machine; use --device auto"):
        device_named(name)


def test_a_gpu_beyond_those_there_is_refused(monkeypatch):
    accelerators(monkeypatch, 2, False)
    with pytest.raises(InputRefused, match="--device cuda:2 is not available"):
        device_named("cuda:2")


@pytest.mark.parametrize("name", ["toaster", "", "cuda:x", "gpu"])
def test_a_name_that_is_no_device_is_refused(name):
    with pytest.raises(InputRefused, match="is not a device; expected auto, cpu, cuda, cuda:N or mps"):
        device_named(name)


def test_threads_are_given_back():
    before = torch.get_num_threads()
    with threads(before + 1) as count:
        assert count == torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_threads_are_given_back_after_an_error():
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), threads(before + 1):
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


def test_no_number_of_threads_leaves_torch_its_choice():
    with threads(None) as count:
        assert count == torch.get_num_threads()


@pytest.mark.parametrize("count", [0, -1])
def test_fewer_than_one_thread_is_refused(count):
    with pytest.raises(InputRefused, match=f"--threads {count}; expected at least 1"), threads(count):
        pass


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"),
    ],
    ids=["python", "cuda", "torch on linux", "torch on windows"],
)
def test_every_way_of_running_out_of_memory_says_what_to_do(error):
    with pytest.raises(OutOfMemory, match=r"out of memory.*pass a coarser --spacing"), memory_errors_told(CPU):
        raise error


def test_torch_itself_runs_out_of_memory_as_expected():
    """A real refusal of the allocator, a petabyte, not a message written from memory."""
    with pytest.raises(OutOfMemory), memory_errors_told(CPU):
        torch.empty(1 << 50, dtype=torch.uint8)


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shapes differ") as caught, memory_errors_told(CPU):
        raise RuntimeError("shapes differ")
    assert not isinstance(caught.value, OutOfMemory)


def test_peak_memory_is_bytes_and_never_falls():
    before = peak_memory_bytes()
    block = torch.ones(100 << 20, dtype=torch.uint8)
    assert peak_memory_bytes() >= max(before, block.numel())
    assert 50e6 < before < 1e12  # not kibibytes: torch alone takes 100 MB


def test_the_stopwatch_counts_seconds():
    clock = Stopwatch()
    time.sleep(0.05)
    assert 0.05 <= clock.seconds < 5
