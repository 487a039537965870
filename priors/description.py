"""What a prior on disk is, of slices or of volumes."""

from dataclasses import dataclass
from pathlib import Path

from priors.checkpoint import load_checkpoint
from priors.folders import CONFIG, Json, read_json, refuse_pickles, section
from priors.volumes import FORMAT as VOLUMES
from priors.volumes import load_volume_prior


@dataclass(frozen=True)
class Description:
    """What there is to tell of a prior.

    Attributes:
        sha256: of its weights.
        parameters: how many numbers it learned.
        told: how far it got or what it predicts, in a few words.
        records: its JSON files, by name.
    """

    sha256: str
    parameters: int
    told: str
    records: Json


def describe(folder: Path) -> Description:
    """Load the prior in `folder` with every check there is, and say what it is.

    Raises:
        InputRefused: there is none, or it is damaged.
    """
    refuse_pickles(folder)
    config = read_json(folder, CONFIG)
    if config.get("format") == VOLUMES:
        volumes = load_volume_prior(folder)
        parameters = sum(p.numel() for p in volumes.network.parameters())
        told = f"volumes of {volumes.spacing_mm:g} mm, {volumes.orientation}, prediction {volumes.prediction.name}"
        return Description(volumes.sha256 or "", parameters, told, {"config": config})
    slices = load_checkpoint(folder)
    parameters = sum(p.numel() for p in slices.prior.network.parameters())
    steps = section(folder / CONFIG, slices.config, "reached").get("step", "unknown")
    told = f"slices of {slices.preprocess['spacing_mm']:g} mm, {steps} steps"
    records = {"config": slices.config, "preprocess": slices.preprocess, "data": slices.data}
    return Description(slices.sha256, parameters, told, records)
