"""Priors on disk, whatever they are of."""

from pathlib import Path

import torch

from priors.checkpoint import Checkpoint, load_checkpoint
from priors.folders import CONFIG, read_json, refuse_pickles
from priors.volumes import FORMAT as VOLUMES
from priors.volumes import VolumePrior, load_volume_prior


def load_any(folder: Path, volumes_dtype: torch.dtype = torch.float32) -> Checkpoint | VolumePrior:
    """The prior in `folder`, of slices or of volumes, after every check there is.

    Args:
        folder: its config.json says which it holds.
        volumes_dtype: of the arithmetic of a network of volumes; one of slices is float32.

    Raises:
        InputRefused: there is none, or it is damaged.
    """
    refuse_pickles(folder)
    of_volumes = read_json(folder, CONFIG).get("format") == VOLUMES
    return load_volume_prior(folder, dtype=volumes_dtype) if of_volumes else load_checkpoint(folder)
