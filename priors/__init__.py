"""Diffusion priors of head MRI: data, denoiser, training, checkpoints."""

from priors.adapt import AdaptConfig, adapt, as_shown, in_plane_slices, loss_on, pixel_mm_for, steps_within
from priors.checkpoint import Checkpoint, load_checkpoint
from priors.corpus import Corpus, read_corpus
from priors.denoiser import DenoiserConfig, Prior, SliceDenoiser
from priors.learner import TrainingConfig
from priors.pace import Schedule
from priors.planes import Plane, slice_of
from priors.schedules import PREDICTIONS, Prediction
from priors.shipped import find_prior, installed_priors
from priors.training import Progress, train
from priors.volumes import VolumeConfig, VolumePrior, load_volume_prior, save_volume_prior

__all__ = [
    "PREDICTIONS",
    "AdaptConfig",
    "Checkpoint",
    "Corpus",
    "DenoiserConfig",
    "Plane",
    "Prediction",
    "Prior",
    "Progress",
    "Schedule",
    "SliceDenoiser",
    "TrainingConfig",
    "VolumeConfig",
    "VolumePrior",
    "adapt",
    "as_shown",
    "find_prior",
    "in_plane_slices",
    "installed_priors",
    "load_checkpoint",
    "load_volume_prior",
    "loss_on",
    "pixel_mm_for",
    "read_corpus",
    "save_volume_prior",
    "slice_of",
    "steps_within",
    "train",
]
