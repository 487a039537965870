"""Through-plane super-resolution of anisotropic head MRI.

`throughplane.super_resolve(scan)` does what the command line does. Names are imported when first used, so that
`throughplane --help` need not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from throughplane.version import version

if TYPE_CHECKING:
    from forward_models import Box, FlagConflict, Gaussian, InputRefused, Sampled, load_profile, slr
    from throughplane.device import OutOfMemory
    from throughplane.pipeline import Result, super_resolve

__version__ = version()

__all__ = [
    "Box",
    "FlagConflict",
    "Gaussian",
    "InputRefused",
    "OutOfMemory",
    "Result",
    "Sampled",
    "__version__",
    "load_profile",
    "slr",
    "super_resolve",
]

_HOMES = {"OutOfMemory": "device", "Result": "pipeline", "super_resolve": "pipeline"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'throughplane' has no attribute {name!r}")
    home = f"throughplane.{_HOMES[name]}" if name in _HOMES else "forward_models"
    return getattr(import_module(home), name)
