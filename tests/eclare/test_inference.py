"""A network applied through the plane."""

from dataclasses import replace

import pytest
import torch

import eclare.inference
from eclare import ThroughPlaneNetwork, super_resolve
from eclare.inference import with_neighbours
from eclare.network import new_network, oversampling_for
from forward_models import Gaussian, along, resampling_weights
from tests.conftest import head_phantom
from tests.eclare.conftest import TINY, stack_and_truth


def network_for(stack, config=TINY, seed=0, tail=0.05) -> ThroughPlaneNetwork:
    """A random network, whose last layer is not zero unless asked for."""
    generator = torch.Generator().manual_seed(seed)
    factor = oversampling_for(stack.selection.thick.spacing_mm, stack.selection.thin.spacing_mm)
    network = new_network(config, factor, generator)
    if tail:
        torch.nn.init.normal_(network.tail.weight, std=tail, generator=generator)
    return network.eval()


@pytest.mark.parametrize("neighbours", [0, 2])
@pytest.mark.parametrize(("thickness_mm", "gap_mm"), [(3.0, 1.0), (3.0, 0.0), (4.0, 0.4)])
def test_the_result_explains_the_scan(thickness_mm, gap_mm, neighbours):
    stack, _ = stack_and_truth(head_phantom((40, 44, 36)), Gaussian(thickness_mm), gap_mm)
    config = replace(TINY, neighbours=neighbours, refreshes=0)
    thin = super_resolve(stack, network_for(stack, config), config)
    assert (stack.selection.apply(thin) - stack.slices).norm() < 1e-6 * stack.slices.norm()


def test_without_the_last_step_it_does_not(stack):
    thin = super_resolve(stack, network_for(stack), replace(TINY, consistent=False))
    assert (stack.selection.apply(thin) - stack.slices).norm() > 1e-3 * stack.slices.norm()


def test_a_silent_network_gives_the_cubic_spline(stack):
    thin = super_resolve(stack, network_for(stack, tail=0.0), replace(TINY, consistent=False))
    selection = stack.selection
    spline = along(-1, resampling_weights(selection.thick, selection.thin), stack.slices)
    assert torch.allclose(thin, spline, atol=1e-6)


def test_both_reformats_count(stack):
    """Exchanging the in-plane axes exchanges those of the result."""
    network, config = network_for(stack), replace(TINY, consistent=False)
    turned = replace(stack, slices=stack.slices.transpose(0, 1).contiguous(), in_plane_mm=stack.in_plane_mm[::-1])
    one, other = super_resolve(stack, network, config), super_resolve(turned, network, config)
    assert torch.allclose(one, other.transpose(0, 1), atol=1e-6)
    # a broken twin that looked along one axis only would differ by this much
    assert not torch.allclose(one, super_resolve(stack, network_for(stack, seed=1), config), atol=1e-3)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_with_flips_a_mirrored_scan_gives_the_mirrored_result(stack, axis):
    config = replace(TINY, consistent=False, neighbours=0, refreshes=0)
    network = network_for(stack, config)
    mirrored = replace(stack, slices=stack.slices.flip(axis))
    one, other = (super_resolve(s, network, config) for s in (stack, mirrored))
    assert torch.allclose(one, other.flip(axis), atol=2e-3)  # bfloat16 rounding, in another order
    without = replace(config, flips=False)
    one, other = (super_resolve(s, network, without) for s in (stack, mirrored))
    assert not torch.allclose(one, other.flip(axis), atol=2e-3)


def test_the_size_of_a_batch_of_slices_does_not_matter(stack, monkeypatch):
    network = network_for(stack)
    whole = super_resolve(stack, network, TINY)
    monkeypatch.setattr(eclare.inference, "BATCH_BYTES", 1)
    assert torch.allclose(whole, super_resolve(stack, network, TINY), atol=2e-3)  # bfloat16 rounding


def test_outermost_slices_are_repeated():
    slices = torch.arange(5.0)[:, None, None].expand(5, 2, 3)
    near = with_neighbours(slices, range(0, 5, 4), 2)
    assert near[:, :, 0, 0].tolist() == [[0, 0, 0, 1, 2], [2, 3, 4, 4, 4]]


def test_progress_reaches_its_end(stack):
    told = []
    super_resolve(
        stack, network_for(stack), TINY, progress=lambda stage, done, total: told.append((stage, done, total))
    )
    assert told[-1] == ("inference", 84, 84)
