"""ECLARE: super-resolution learned from the scan itself (Remedios et al., arXiv 2503.11787)."""

from eclare.config import PRESETS, BlockKind, EclareConfig
from eclare.inference import super_resolve
from eclare.network import ThroughPlaneNetwork
from eclare.profile_estimation import ProfileConfig, ProfileTrace, estimate_profile
from eclare.training import Training, TrainingDiverged, train

__all__ = [
    "PRESETS",
    "BlockKind",
    "EclareConfig",
    "ProfileConfig",
    "ProfileTrace",
    "ThroughPlaneNetwork",
    "Training",
    "TrainingDiverged",
    "estimate_profile",
    "super_resolve",
    "train",
]
