"""The weights in this repository."""

from pathlib import Path

import pytest
import torch

from priors import Plane, load_checkpoint
from tests.conftest import head_phantom

HEAD_2D = Path(__file__).parents[2] / "priors" / "weights" / "head-2d"


@pytest.fixture(scope="module")
def prior():
    return load_checkpoint(HEAD_2D).prior


@pytest.mark.parametrize("plane", list(Plane))
@pytest.mark.parametrize("sigma", [0.05, 0.2])
def test_they_take_noise_off_a_head(prior, plane, sigma):
    clean = torch.from_numpy(head_phantom((96, 100, 40)))[None, :, :, 20] / 800
    noisy = clean + sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        left = prior.of_plane(plane)(noisy, sigma) - clean
    assert left.square().mean().sqrt() < 0.6 * sigma
