"""The acquisition: volumes, grids, slice profiles, y = W x and its inverses, simulation."""

from forward_models.acquisition import (
    Acquisition,
    Sidecar,
    Source,
    acquisition_of,
    plane_of,
    read_sidecar,
    sidecar_path,
)
from forward_models.errors import FlagConflict, InputRefused
from forward_models.files import atomic_files, file_sha256, require_storable, write_image
from forward_models.grids import SliceGrid, same_field_of_view, thin_grid_for
from forward_models.intensity import intensity_scale, noise_sd
from forward_models.profiles import Box, Gaussian, Sampled, SliceProfile, load_profile, slr
from forward_models.resample import resample, resampling_weights
from forward_models.selection import SliceSelection, along, extended_weights, margin_for, slice_selection
from forward_models.simulate import matching_voxels, simulate, truth_for
from forward_models.volume import Volume, read_volume, require_finite, require_usable, volume_from_image

__all__ = [
    "Acquisition",
    "Box",
    "FlagConflict",
    "Gaussian",
    "InputRefused",
    "Sampled",
    "Sidecar",
    "SliceGrid",
    "SliceProfile",
    "SliceSelection",
    "Source",
    "Volume",
    "acquisition_of",
    "along",
    "atomic_files",
    "extended_weights",
    "file_sha256",
    "intensity_scale",
    "load_profile",
    "margin_for",
    "matching_voxels",
    "noise_sd",
    "plane_of",
    "read_sidecar",
    "read_volume",
    "require_finite",
    "require_storable",
    "require_usable",
    "resample",
    "resampling_weights",
    "same_field_of_view",
    "sidecar_path",
    "simulate",
    "slice_selection",
    "slr",
    "thin_grid_for",
    "truth_for",
    "volume_from_image",
    "write_image",
]
