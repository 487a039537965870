"""Copy a checkpoint to be committed or shipped: averaged weights in float16 and the log, not the state of training.

    python scripts/ship_prior.py RUN/best priors/weights/head-2d
    python benchmarks/prior_denoising.py priors/weights/head-2d SCANS --write-card

Training goes on from such a copy with `train_prior.py ... --start-from`.
"""

import argparse
import shutil
from pathlib import Path

import torch

from priors.card import model_card
from priors.checkpoint import load_checkpoint, save_checkpoint
from priors.training import LOG


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    checkpoint = load_checkpoint(arguments.source)
    config = {key: value for key, value in checkpoint.config.items() if key != "evaluation"}  # of float32 weights
    preprocess, data = checkpoint.preprocess, checkpoint.data
    weights = checkpoint.prior.network.state_dict()
    card = model_card(config, preprocess, data)
    save_checkpoint(arguments.target, weights, config, preprocess, data, card, dtype=torch.float16)
    log = arguments.source.parent / LOG
    if log.exists():
        shutil.copy2(log, arguments.target / LOG)
    print(f"{arguments.target}: {sum(f.stat().st_size for f in arguments.target.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
