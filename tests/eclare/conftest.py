"""Small stacks to learn from."""

import numpy as np
import pytest

from eclare import EclareConfig
from forward_models import Gaussian, Sidecar, SliceProfile, acquisition_of, simulate, truth_for, volume_from_image
from forward_models.stack import Stack, stack_of
from tests.conftest import head_phantom, nib_image

TINY = EclareConfig(blocks=1, channels=8, patch_slices=4, patch_width=12, batch=4, steps=12, averaged_over=4)


def stack_and_truth(
    data: np.ndarray, profile: SliceProfile, gap_mm: float = 0.0, thin_mm: float = 1.0, in_plane_mm: float = 1.0
) -> tuple[Stack, np.ndarray]:
    """Simulated slices along the last axis of `data`, and the thin volume they came from."""
    thin = volume_from_image(nib_image(np.asarray(data, np.float32), (in_plane_mm, in_plane_mm, thin_mm)))
    scan = simulate(thin, profile, gap_mm, axis=2)
    acquisition = acquisition_of(scan, Sidecar(), axis=2, profile=profile)
    stack = stack_of(scan, acquisition, thin_mm)
    return stack, stack.order.apply(np.asarray(truth_for(thin, profile, gap_mm, 2).data, np.float32)) / stack.scale


@pytest.fixture
def stack() -> Stack:
    """9 slices of 3 mm every 4 mm; 40 x 44 voxels of 1 mm in plane."""
    return stack_and_truth(head_phantom((40, 44, 36)), Gaussian(3.0), 1.0)[0]
