"""What a prior on disk is, of slices or of volumes."""

from dataclasses import dataclass
from pathlib import Path

from priors.folders import CONFIG, Json, read_json, section
from priors.loading import load_any
from priors.volumes import VolumePrior


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
    prior = load_any(folder)
    if isinstance(prior, VolumePrior):
        parameters = sum(p.numel() for p in prior.network.parameters())
        told = f"volumes of {prior.spacing_mm:g} mm, {prior.orientation}, prediction {prior.prediction.name}"
        return Description(prior.sha256 or "", parameters, told, {"config": read_json(folder, CONFIG)})
    parameters = sum(p.numel() for p in prior.prior.network.parameters())
    steps = section(folder / CONFIG, prior.config, "reached").get("step", "unknown")
    told = f"slices of {prior.preprocess['spacing_mm']:g} mm, {steps} steps"
    records = {"config": prior.config, "preprocess": prior.preprocess, "data": prior.data}
    return Description(prior.sha256, parameters, told, records)
