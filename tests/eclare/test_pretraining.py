"""The network to start from: what it is told, what it hands on, what it learns."""

from dataclasses import replace

import pytest
import torch

import eclare
from eclare import load_starting_network
from eclare.network import grid_change
from eclare.pretraining import PretrainingConfig, StartingNetwork, pretrain
from eclare.saved import save_starting_network
from forward_models import Box, Gaussian, SliceGrid, slice_selection, thin_grid_for
from tests.conftest import head_phantom
from tests.eclare.conftest import TINY, stack_and_truth


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def selection_of(spacing_mm: float, profile=None, count: int = 6):
    thick = SliceGrid(count, spacing_mm)
    return slice_selection(thick, thin_grid_for(thick, 1.0), profile or Gaussian(0.8 * spacing_mm))


def taught(cosines: int = 6) -> StartingNetwork:
    """As if it had been taught: no weight is zero."""
    network = StartingNetwork(TINY, cosines, generator())
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=generator(parameter.numel()))
    return network.requires_grad_(False)


def rmse(network: StartingNetwork, stack, truth) -> float:
    """Of what it makes of a scan before it learns anything from it."""
    started = network.started(stack.selection, generator())
    thin = eclare.super_resolve(stack, started, replace(TINY, consistent=False))
    return float((thin - torch.from_numpy(truth)).square().mean().sqrt())


@pytest.mark.parametrize("spacing_mm", [2.3, 4.0, 6.0])
def test_a_scan_starts_with_the_very_network_that_was_taught(spacing_mm):
    network, selection = taught(), selection_of(spacing_mm)
    slices = torch.rand(2, 5, 6, 9, generator=generator())
    change = grid_change(selection.thick, selection.thin)
    assert torch.allclose(
        network.started(selection, generator())(slices, change), network(slices, change, selection), atol=1e-5
    )


def test_amplitudes_that_were_not_taught_start_at_zero():
    started = taught(cosines=4).started(selection_of(7.0), generator())
    assert started.tail.weight.shape[0] == 7
    assert started.tail.weight[:4].abs().min() > 0
    assert not started.tail.weight[4:].any()
    assert not started.tail.bias[4:].any()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (selection_of(4.0), selection_of(5.0)),
        (selection_of(4.0), selection_of(4.0, Gaussian(2.5))),
        (selection_of(4.0, Gaussian(3.2)), selection_of(4.0, Box(3.2))),
    ],
    ids=["spacing", "thickness", "profile"],
)
def test_it_is_told_how_slices_were_selected(one, other):
    network = taught()
    assert not torch.equal(network.started(one, generator()).head.bias, network.started(other, generator()).head.bias)


def test_it_learns_what_interpolation_cannot():
    head = torch.from_numpy(head_phantom((44, 44, 12))) / 500
    config = PretrainingConfig(
        network=replace(TINY, channels=16, patch_width=24),
        factors=(3.0, 3.0),
        filled=(1.0, 1.0),
        steps=80,
        learning_rate=3e-3,
        averaged_over=10,
        lessons=3,
    )
    global_state = torch.get_rng_state()
    network = pretrain(config, lambda _: head, generator=generator())
    assert torch.equal(global_state, torch.get_rng_state())
    stack, truth = stack_and_truth(head_phantom((44, 44, 36)), Gaussian(3.0))
    new = StartingNetwork(config.network, config.cosines, generator())
    assert rmse(network, stack, truth) < 0.97 * rmse(new, stack, truth)


def test_it_comes_back_in_half_precision(tmp_path):
    network, path = taught(), tmp_path / "start.safetensors"
    save_starting_network(network, path)
    loaded = load_starting_network(path)
    assert (loaded.config, loaded.cosines, len(loaded.sha256)) == (network.config, network.cosines, 64)
    for name, tensor in network.state_dict().items():
        assert torch.allclose(loaded.state_dict()[name], tensor, rtol=1e-3, atol=1e-6)


def test_training_goes_on_from_it(stack):
    network = taught()
    still = replace(TINY, channels=4, starting_rate=1e-12)  # its own sizes win
    training = eclare.train(stack, still, start=network, generator=generator())
    started = network.started(stack.selection, generator())
    assert training.config.channels == TINY.channels
    for kept, first in zip(training.network.parameters(), started.parameters(), strict=True):
        assert torch.allclose(kept, first, atol=1e-6)


def test_without_steps_it_is_left_as_it_was_taught(stack):
    network = taught()
    training = eclare.train(stack, replace(TINY, steps=0), start=network, generator=generator())
    started = network.started(stack.selection, generator())
    assert all(torch.equal(a, b) for a, b in zip(training.network.parameters(), started.parameters(), strict=True))
    assert (training.steps, training.record()["held_out_rmse_of_cubic"]) == (0, None)


def test_the_one_that_ships_beats_interpolation_untrained():
    stack, truth = stack_and_truth(head_phantom((64, 66, 60)), Gaussian(4.0))
    start = load_starting_network()
    new = StartingNetwork(start.config, start.cosines, generator())
    assert rmse(start, stack, truth) < 0.9 * rmse(new, stack, truth)
