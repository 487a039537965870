"""Tiny heads on disk, and a network that trains in seconds."""

from pathlib import Path

import numpy as np
import pytest
import torch

from priors.checkpoint import config_fields, preprocess_record, save_checkpoint
from priors.corpus import Corpus, read_corpus
from priors.denoiser import DenoiserConfig, SliceDenoiser, new_denoiser
from priors.learner import TrainingConfig
from priors.noise import NoiseLevels
from priors.patches import PatchConfig
from priors.synthetic import KNOWN_LABELS
from tests.conftest import head_phantom, save

TINY = DenoiserConfig(channels=(8, 16), norm_groups=4, head_channels=8)
TINY_TRAINING = TrainingConfig(
    batch_size=2, learning_rate=1e-3, warmup_steps=5, ema_decay=0.9, denoiser=TINY, patches=PatchConfig(size=16)
)


def save_heads(folder: Path) -> Path:
    """Two subjects to train on, one of them with two contrasts, and one to validate on; a mask that is none."""
    folder.mkdir()
    for seed, name in enumerate(("philips_T1w", "cstar_T1w", "cstar_T2w", "uih2_T1w")):
        save(folder / f"{name}.nii.gz", head_phantom(seed=seed), np.diag([1.0, 1.0, 1.0, 1.0]))
    save(folder / "philips_lesions.nii.gz", np.ones((4, 4, 4), np.uint8), np.eye(4))
    return folder


def save_label_maps(folder: Path) -> Path:
    """One map of nested tissues."""
    folder.mkdir()
    image = head_phantom()
    labels = np.select([image > 600, image > 400, image > 200, image > 0], [2, 3, 24, 507], 0)
    save(folder / "seg.nii.gz", labels.astype(np.int16), np.eye(4))
    assert set(np.unique(labels)) <= set(KNOWN_LABELS)
    return folder


def save_tiny_prior(folder: Path, seed: int = 0, **options) -> SliceDenoiser:
    """A checkpoint of an untrained network whose last layer is not zero."""
    torch.manual_seed(seed)
    network = new_denoiser(TINY)
    with torch.no_grad():
        network.unet.conv_out.weight.normal_()
    preprocess = preprocess_record(TINY, NoiseLevels(), ["T1w"])
    config = {"denoiser": config_fields(TINY)}
    save_checkpoint(folder, network.state_dict(), config, preprocess, {"spacing_mm": 1.0}, "# card", **options)
    return network


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Corpus:
    """Tiny scans and a tiny label map."""
    root = tmp_path_factory.mktemp("corpus")
    return read_corpus([save_heads(root / "heads")], save_label_maps(root / "labels"))
