"""The priors that come with this package."""

from pathlib import Path

from forward_models import InputRefused
from priors.folders import CONFIG, WEIGHTS

WEIGHTS_FOLDER = Path(__file__).parent / "weights"


def installed_priors() -> dict[str, Path]:
    """Checkpoint folders by name."""
    return priors_in(WEIGHTS_FOLDER) if WEIGHTS_FOLDER.is_dir() else {}


def priors_in(folder: Path) -> dict[str, Path]:
    """Folders in `folder` that hold what a checkpoint does, intact or not."""
    found = sorted({path.parent for name in (CONFIG, WEIGHTS) for path in folder.glob(f"*/{name}")})
    return {path.name: path for path in found}


def find_prior(name: str) -> Path:
    """The folder of an installed prior, or the path that `name` is.

    Raises:
        InputRefused: neither.
    """
    installed = installed_priors()
    if name in installed:
        return installed[name]
    if Path(name).exists():
        return Path(name)
    raise InputRefused(f"{name} is neither a prior of this installation ({', '.join(installed) or 'none'}) nor a path")
