"""Train a prior: python train_prior.py FOLDER [FOLDER ...] OUT [--label-maps DIR] [--time-limit MINUTES]."""

import argparse
import json
import sys
from pathlib import Path
from typing import get_args

from forward_models import InputRefused
from priors.checkpoint import config_fields
from priors.corpus import read_corpus
from priors.learner import Precision, TrainingConfig
from priors.pace import Schedule
from priors.patches import PatchConfig
from priors.training import Progress, train


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    patches = PatchConfig(size=args.patch_size, synthetic_ratio=args.synthetic_ratio)
    config = TrainingConfig(
        args.batch_size, args.learning_rate, precision=args.precision, seed=args.seed, patches=patches
    )
    schedule = Schedule(args.time_limit, args.last_step, args.checkpoint_minutes, args.workers)
    try:
        corpus = read_corpus(args.scans, args.label_maps)
        if args.dry_run:
            print(json.dumps({**config_fields(config), "data": corpus.record()}, indent=2))
            return 0
        train(config, schedule, corpus, args.out, args.start_from, _print)
    except InputRefused as refusal:
        print(refusal, file=sys.stderr)
        return 3
    return 0


def _print(progress: Progress) -> None:
    left = "until stopped" if progress.minutes_left is None else f"{progress.minutes_left:.0f} min left"
    if progress.psnr is not None:
        scores = ", ".join(f"{sigma:g}: {db:.2f}" for sigma, db in progress.psnr.items())
        print(
            f"step {progress.step}: {progress.patches} patches, {progress.worked_minutes:.0f} min worked, {left}; "
            f"loss {progress.loss:.4f}; saved; validation dB at sigma {scores or 'not measured'}",
            flush=True,
        )
    elif progress.step % 20 == 0:
        print(
            f"step {progress.step}: {progress.patches} patches, {progress.worked_minutes:.1f} min worked, {left}; "
            f"loss {progress.loss:.4f}",
            flush=True,
        )


def _parser() -> argparse.ArgumentParser:
    config, schedule = TrainingConfig(), Schedule()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scans", type=Path, nargs="+", help="thin scans, <subject>_..._<contrast>.nii.gz, or folders")
    parser.add_argument("out", type=Path, help="folder of the run; one that exists is continued")
    parser.add_argument("--label-maps", type=Path, help="folder of SynthSeg training label maps, 1 mm")
    parser.add_argument("--start-from", type=Path, help="checkpoint whose weights a new run starts with")
    parser.add_argument("--time-limit", type=float, metavar="MINUTES", help="of work in this call; default: none")
    parser.add_argument("--last-step", type=int, help="stop after this many steps in all; default: none")
    parser.add_argument("--checkpoint-minutes", type=float, default=schedule.checkpoint_minutes)
    parser.add_argument("--workers", type=int, default=schedule.workers, help="processes that make patches")
    parser.add_argument("--batch-size", type=int, default=config.batch_size)
    parser.add_argument("--learning-rate", type=float, default=config.learning_rate)
    parser.add_argument("--patch-size", type=int, default=config.patches.size)
    parser.add_argument("--synthetic-ratio", type=float, default=config.patches.synthetic_ratio)
    parser.add_argument("--precision", choices=get_args(Precision), default=config.precision)
    parser.add_argument("--seed", type=int, default=config.seed)
    parser.add_argument("--dry-run", action="store_true", help="print configuration and data, then stop")
    return parser


if __name__ == "__main__":
    sys.exit(main())
