"""Train a prior: python train_prior.py SCANS [SCANS ...] OUT [options]; the same as `throughplane train-prior`."""

import sys

from throughplane.cli import main

if __name__ == "__main__":
    sys.exit(main(["train-prior", *sys.argv[1:]]))
