"""Seconds per 192 x 192 slice of a prior on a CPU, beside the floor that arithmetic sets.

python benchmarks/prior_cost.py CHECKPOINT [--threads 1 2] [--batch 8]

Multiply-adds are counted from the layers as they run; the machine's peak is measured by multiplying matrices of the
same arithmetic with as many threads. floor = multiply-adds / peak: what no implementation on this machine gets below.
Everything is the fastest of several repetitions, because other work on the machine only ever makes it slower.
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
REPETITIONS = 5


def fastest(work: Callable[[], object]) -> float:
    """Seconds."""
    work()
    seconds = []
    for _ in range(REPETITIONS):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def multiply_adds(prior: Prior) -> float:
    """Of one slice."""
    counter = FlopCounterMode(display=False)
    with counter:
        prior.denoise(torch.zeros(1, SIZE, SIZE), 0.2, Plane.AXIAL)
    return counter.get_total_flops() / 2


def peak(dtype: torch.dtype) -> float:
    """Multiply-adds per second of a matrix product."""
    a = torch.randn(MATRIX, MATRIX).to(dtype)
    return MATRIX**3 / fastest(lambda: a @ a)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch", type=int, default=8)
    args = parser.parse_args()
    print(
        "| arithmetic | threads | s per slice | multiply-adds | peak, multiply-adds per s | floor, s | of the floor |"
    )
    print("|---|---|---|---|---|---|---|")
    with torch.inference_mode():
        for dtype in (torch.float32, torch.bfloat16):
            prior = load_checkpoint(args.checkpoint, dtype=dtype).prior
            work = multiply_adds(prior)
            x = torch.rand(args.batch, SIZE, SIZE)
            for threads in args.threads:
                torch.set_num_threads(threads)
                rate = peak(dtype)
                seconds = fastest(lambda x=x, prior=prior: prior.denoise(x, 0.2, Plane.AXIAL)) / args.batch
                cells = [str(dtype).removeprefix("torch."), threads, f"{seconds:.3f}", f"{work / 1e9:.2f} G"]
                cells += [f"{rate / 1e9:.0f} G", f"{work / rate:.3f}", f"{seconds / (work / rate):.1f} times"]
                print(f"| {' | '.join(str(cell) for cell in cells)} |", flush=True)


if __name__ == "__main__":
    main()
