"""Seconds per 192 x 192 slice of a prior on a CPU, beside the floor that arithmetic sets.

python benchmarks/prior_cost.py CHECKPOINT [--threads 1 2] [--batch 4]

Multiply-adds are counted from the layers as they run. The peak is that of one thread in a matrix product or a large
convolution of the same arithmetic, whichever is more. floor = multiply-adds / peak: processor seconds that no
implementation on this machine gets below. Other work on the machine lengthens seconds, much less processor seconds
(of all threads); both are the least of several repetitions. Set OMP_WAIT_POLICY=PASSIVE, or threads that wait count
as working.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from priors.checkpoint import load_checkpoint
from priors.denoiser import Prior
from priors.planes import Plane

SIZE = 192
MATRIX = 1024
CHANNELS, IMAGE = 256, 48
REPETITIONS = 7
COLUMNS = ("arithmetic", "threads", "s per slice", "processor s", "multiply-adds", "floor, processor s", "of the floor")


def fastest(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and processor seconds of all threads."""
    work()
    seconds, processor_seconds = [], []
    for _ in range(REPETITIONS):
        began, began_processor = time.perf_counter(), time.process_time()
        work()
        seconds.append(time.perf_counter() - began)
        processor_seconds.append(time.process_time() - began_processor)
    return min(seconds), min(processor_seconds)


def multiply_adds(prior: Prior) -> float:
    """Of one slice."""
    counter = FlopCounterMode(display=False)
    with counter:
        prior.denoise(torch.zeros(1, SIZE, SIZE), 0.2, Plane.AXIAL)
    return counter.get_total_flops() / 2


def peak(dtype: torch.dtype) -> float:
    """Multiply-adds per processor second of one thread: a matrix product's or a large convolution's, whichever is more.

    Libraries differ: on some processors the one is much slower than the other.
    """
    torch.set_num_threads(1)
    a = torch.randn(MATRIX, MATRIX).to(dtype)
    convolve = torch.nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1).to(dtype).to(memory_format=torch.channels_last)
    x = torch.randn(1, CHANNELS, IMAGE, IMAGE).to(dtype).contiguous(memory_format=torch.channels_last)
    return max(MATRIX**3 / fastest(lambda: a @ a)[1], 9 * CHANNELS**2 * IMAGE**2 / fastest(lambda: convolve(x))[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch", type=int, default=4)
    args = parser.parse_args()
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    with torch.inference_mode():
        for dtype in (torch.float32, torch.bfloat16):
            prior = load_checkpoint(args.checkpoint, dtype=dtype).prior
            work, x = multiply_adds(prior), torch.rand(args.batch, SIZE, SIZE)
            floor = work / peak(dtype)
            for threads in args.threads:
                torch.set_num_threads(threads)
                times = fastest(lambda x=x, prior=prior: prior.denoise(x, 0.2, Plane.AXIAL))
                seconds, processor_seconds = (t / args.batch for t in times)
                cells = [str(dtype).removeprefix("torch."), threads, f"{seconds:.3f}", f"{processor_seconds:.3f}"]
                cells += [f"{work / 1e9:.2f} G", f"{floor:.3f}", f"{processor_seconds / floor:.1f} times"]
                print(f"| {' | '.join(str(cell) for cell in cells)} |", flush=True)


if __name__ == "__main__":
    main()
