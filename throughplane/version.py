"""Which throughplane this is."""

import hashlib
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path

PACKAGES = ("forward_models", "eclare", "priors", "focvs", "throughplane")


def version() -> str:
    """The installed version, or `unknown` when run from a source tree that was not installed."""
    try:
        return installed_version("throughplane")
    except PackageNotFoundError:
        return "unknown"


def code_sha256() -> str:
    """Of all source files of the packages: tells two states of a source tree apart that carry the same version."""
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(path for package in PACKAGES for path in (root / package).rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()
