"""Diffusion priors of head MRI: loading, denoising, adapting. Training is in `priors.training`."""

from priors.adapt import AdaptConfig, adapt, as_shown, in_plane_slices, loss_on, pixel_mm_for, steps_within
from priors.checkpoint import Checkpoint, load_checkpoint
from priors.denoiser import Prior
from priors.planes import Plane
from priors.schedules import PREDICTIONS
from priors.shipped import find_prior
from priors.volumes import VolumePrior, load_volume_prior, save_volume_prior

__all__ = [
    "PREDICTIONS",
    "AdaptConfig",
    "Checkpoint",
    "Plane",
    "Prior",
    "VolumePrior",
    "adapt",
    "as_shown",
    "find_prior",
    "in_plane_slices",
    "load_checkpoint",
    "load_volume_prior",
    "loss_on",
    "pixel_mm_for",
    "save_volume_prior",
    "steps_within",
]
