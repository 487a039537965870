"""FOCVS: samples of a diffusion prior that keep every measured slice."""

from focvs.config import PRESETS, FocvsConfig
from focvs.consistency import (
    Consistency,
    StepOn,
    alone,
    exact,
    explaining_all,
    noise_aware,
    noise_matched,
    smooth,
    unmeasured,
)
from focvs.denoising import SliceDenoiser, VolumeDenoiser, by_slices
from focvs.grid import PriorGrid, prior_grid
from focvs.levels import noise_levels
from focvs.posterior import (
    Estimate,
    Posterior,
    Prior,
    SlicePrior,
    VolumePrior,
    draws,
    scanned_plane,
    super_resolve,
    take_turns,
)
from focvs.sampler import sample
from focvs.spread import HEAD_2D, SpreadFit
from focvs.tiles import blended_tiles, by_tiles, tile_within, times_seen
from focvs.views import View, view_of

__all__ = [
    "HEAD_2D",
    "PRESETS",
    "Consistency",
    "Estimate",
    "FocvsConfig",
    "Posterior",
    "Prior",
    "PriorGrid",
    "SliceDenoiser",
    "SlicePrior",
    "SpreadFit",
    "StepOn",
    "View",
    "VolumeDenoiser",
    "VolumePrior",
    "alone",
    "blended_tiles",
    "by_slices",
    "by_tiles",
    "draws",
    "exact",
    "explaining_all",
    "noise_aware",
    "noise_levels",
    "noise_matched",
    "prior_grid",
    "sample",
    "scanned_plane",
    "smooth",
    "super_resolve",
    "take_turns",
    "tile_within",
    "times_seen",
    "unmeasured",
    "view_of",
]
