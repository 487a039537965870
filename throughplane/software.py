"""Versions that a result depends on."""

import platform
from typing import Any

import nibabel as nib
import numpy as np
import torch

from throughplane.version import version


def software_record() -> dict[str, Any]:
    """Versions that a result depends on."""
    return {
        "GeneratedBy": [{"Name": "throughplane", "Version": version()}],
        "software": {
            "throughplane": version(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "nibabel": nib.__version__,
        },
    }
