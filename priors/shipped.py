"""The priors that come with this package."""

from pathlib import Path

from forward_models import InputRefused

WEIGHTS_FOLDER = Path(__file__).parent / "weights"


def installed_priors() -> dict[str, Path]:
    """Checkpoint folders by name."""
    if not WEIGHTS_FOLDER.is_dir():
        return {}
    return {path.name: path for path in sorted(WEIGHTS_FOLDER.iterdir()) if path.is_dir()}


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
