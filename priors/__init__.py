"""Diffusion priors of head MRI: data, denoiser, training, checkpoints."""

from priors.checkpoint import Checkpoint, load_checkpoint
from priors.corpus import Corpus, read_corpus
from priors.denoiser import DenoiserConfig, Prior, SliceDenoiser
from priors.learner import TrainingConfig
from priors.pace import Schedule
from priors.planes import Plane, slice_of
from priors.training import Progress, train

__all__ = [
    "Checkpoint",
    "Corpus",
    "DenoiserConfig",
    "Plane",
    "Prior",
    "Progress",
    "Schedule",
    "SliceDenoiser",
    "TrainingConfig",
    "load_checkpoint",
    "read_corpus",
    "slice_of",
    "train",
]
