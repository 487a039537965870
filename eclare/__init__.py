"""ECLARE: super-resolution learned from the scan itself (Remedios et al., arXiv 2503.11787)."""

from eclare.config import PRESETS, BlockKind, EclareConfig
from eclare.espreso import EspresoConfig, espreso
from eclare.expected import inference_seconds, training_seconds
from eclare.inference import super_resolve
from eclare.network import ThroughPlaneNetwork
from eclare.pretraining import StartingNetwork
from eclare.profile_estimation import ProfileConfig, ProfileTrace, estimate_profile
from eclare.saved import SavedNetwork, TrainedFor, load_network, load_starting_network, save_network
from eclare.training import Training, TrainingDiverged, train

__all__ = [
    "PRESETS",
    "BlockKind",
    "EclareConfig",
    "EspresoConfig",
    "ProfileConfig",
    "ProfileTrace",
    "SavedNetwork",
    "StartingNetwork",
    "ThroughPlaneNetwork",
    "TrainedFor",
    "Training",
    "TrainingDiverged",
    "espreso",
    "estimate_profile",
    "inference_seconds",
    "load_network",
    "load_starting_network",
    "save_network",
    "super_resolve",
    "train",
    "training_seconds",
]
