"""The network: fixed linear parts, sizes, and where it starts."""

import numpy as np
import pytest
import torch

from eclare import EclareConfig, ThroughPlaneNetwork
from eclare.network import grid_change, new_network, oversampling_for
from forward_models import SliceGrid, resampling_weights, thin_grid_for
from tests.eclare.conftest import TINY

FACTORS = [1.5, 2.0, 2.3, 4.4, 5.0]


def change_for(factor, count=12):
    thick = SliceGrid(count, factor)
    thin = thin_grid_for(thick, 1.0)
    return thick, thin, grid_change(thick, thin)


@pytest.mark.parametrize("factor", FACTORS)
def test_a_new_network_is_cubic_interpolation(factor):
    thick, thin, change = change_for(factor)
    network = new_network(TINY, oversampling_for(thick.spacing_mm, 1.0), torch.Generator().manual_seed(0))
    x = torch.rand(2, 5, 12, 9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(network(x, change), resampling_weights(thick, thin).float() @ x[:, 2, None])


def test_the_generator_alone_draws_the_weights():
    torch.manual_seed(1)
    first = new_network(TINY, 3, torch.Generator().manual_seed(5))
    torch.manual_seed(2)
    second = new_network(TINY, 3, torch.Generator().manual_seed(5))
    third = new_network(TINY, 3, torch.Generator().manual_seed(6))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.head.weight, third.head.weight)


@pytest.mark.parametrize("factor", FACTORS)
def test_amplitudes_compose_what_lies_within_slices(factor):
    """The first amplitude of every slice is its level; a ramp needs the odd cosines too."""
    thick, thin, change = change_for(factor)
    over = oversampling_for(thick.spacing_mm, 1.0)
    assert over == int(np.ceil(factor))
    parts = (np.arange(over) + 0.5) / over
    cosines = np.cos(np.pi * np.outer(parts, np.arange(over)))
    centres = SliceGrid(thick.count * over, thick.spacing_mm / over, thick.middle_mm).centres_mm
    amplitudes = np.linalg.solve(cosines, centres.reshape(thick.count, over).T).T.flatten()
    ramp = change.compose @ torch.from_numpy(amplitudes).float()
    assert ramp.numpy() == pytest.approx(thin.centres_mm, abs=1e-4)  # float32 rounding of 50 mm
    level = torch.zeros(thick.count, over)
    level[:, 0] = 7.0
    assert (change.compose @ level.flatten()).numpy() == pytest.approx(7.0, abs=1e-5)


def test_published_sizes():
    config = EclareConfig.as_published()
    network = ThroughPlaneNetwork(config, 4)
    assert (config.blocks, config.channels, config.batch, config.steps, config.learning_rate) == (
        16,
        256,
        128,
        1_000_000 // 128,
        1e-4,
    )
    assert (config.patch_slices, config.patch_width, config.neighbours, config.refreshes) == (8, 8, 0, 0)
    assert config.check_every == config.steps  # no early stop, the last weights win
    wide = 256 * 1024 + 1024 + 1024 * 204 + 204 + 204 * 256 * 9 + 256
    assert sum(p.numel() for p in network.blocks.parameters()) == 16 * wide


def test_refreshes_are_spread_evenly():
    assert EclareConfig(steps=6000, refreshes=2).refresh_steps == (2000, 4000)
    assert EclareConfig(steps=6000, refreshes=0).refresh_steps == ()


def test_refreshes_need_neighbours():
    with pytest.raises(ValueError, match="2 refreshes without neighbours"):
        EclareConfig(neighbours=0)
