"""Copy a checkpoint to be committed or shipped: averaged weights in float16, without the state of training.

    python scripts/ship_prior.py RUN/best priors/weights/head-2d

Training goes on from such a copy with `train_prior.py ... --start-from`.
"""

import argparse
from pathlib import Path

import torch

from priors.card import model_card
from priors.checkpoint import load_checkpoint, save_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    checkpoint = load_checkpoint(arguments.source)
    config, preprocess, data = checkpoint.config, checkpoint.preprocess, checkpoint.data
    weights = checkpoint.prior.network.state_dict()
    card = model_card(config, preprocess, data)
    save_checkpoint(arguments.target, weights, config, preprocess, data, card, dtype=torch.float16)
    print(f"{arguments.target}: {sum(f.stat().st_size for f in arguments.target.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
