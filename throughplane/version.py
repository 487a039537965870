"""Which throughplane this is."""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version


def version() -> str:
    """The installed version, or `unknown` when run from a source tree that was not installed."""
    try:
        return installed_version("throughplane")
    except PackageNotFoundError:
        return "unknown"
