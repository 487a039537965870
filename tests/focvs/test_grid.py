"""The grid that a prior works on."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from focvs import FocvsConfig, SlicePrior, draws, prior_grid, smooth, super_resolve, take_turns, unmeasured
from forward_models import acquisition_of, volume_from_image
from forward_models.stack import Stack, stack_of
from tests.conftest import head_phantom, oblique_affine, placed_image


def stack(in_plane_mm: float, spacing_mm: float, thin_mm: float, axis: int = 2) -> Stack:
    voxels = [in_plane_mm] * 3
    voxels[axis] = spacing_mm
    data = np.ascontiguousarray(np.moveaxis(head_phantom((24, 26, 6)), -1, axis))
    volume = volume_from_image(placed_image(data, oblique_affine(tuple(voxels))))
    return stack_of(volume, acquisition_of(volume, axis=axis), thin_mm)


@pytest.mark.parametrize(("in_plane_mm", "thin_mm"), [(1.0, 1.0), (0.9, 0.9), (1.15, 1.1)])
def test_a_grid_much_like_the_priors_is_kept(in_plane_mm, thin_mm):
    own = stack(in_plane_mm, 5.0, thin_mm)
    grid = prior_grid(own, 1.0)
    assert grid.is_own
    x = torch.rand(own.selection.domain_shape(own.slices.shape), generator=torch.Generator().manual_seed(0))
    assert grid.carried(x) is x


@pytest.mark.parametrize(
    ("in_plane_mm", "thin_mm"), [(0.4, 0.4), (0.7, 1.0), (1.3, 1.3), (1.0, 2.0), (0.95, 1.15)], ids=str
)
def test_any_other_becomes_the_priors_with_the_same_field_of_view(in_plane_mm, thin_mm):
    own = stack(in_plane_mm, 5.0, thin_mm)
    grid = prior_grid(own, 1.0)
    assert grid.stack.in_plane_mm == (1.0, 1.0)
    assert grid.stack.selection.thin.spacing_mm == 1.0
    for n, before in zip(grid.stack.slices.shape[:2], own.slices.shape[:2], strict=True):
        assert abs(n - before * in_plane_mm) <= 0.5
    assert grid.stack.slices.shape[2] == own.slices.shape[2]


@pytest.mark.parametrize(("in_plane_mm", "thin_mm"), [(0.4, 0.4), (0.7, 1.0), (1.3, 1.3), (0.7, 0.8)], ids=str)
def test_what_comes_back_explains_the_scan_on_its_own_grid(in_plane_mm, thin_mm):
    own = stack(in_plane_mm, 4.0, thin_mm)
    grid = prior_grid(own, 1.0)
    nonsense = torch.zeros(grid.stack.selection.domain_shape(grid.stack.slices.shape))
    x = grid.carried(nonsense)
    assert x.shape == own.selection.domain_shape(own.slices.shape)
    assert (own.selection.apply(x) - own.slices).norm() < 1e-6 * own.slices.norm()


@pytest.mark.parametrize(("in_plane_mm", "resolved"), [(0.5, (14, 11)), (1.3, (24, 20)), (1.0, (18, 26))], ids=str)
def test_what_a_scan_measured_stays_known_on_the_grid_of_the_prior(in_plane_mm, resolved):
    """Never more voxels than there are, and the same field of view when interpolation is undone."""
    grid = prior_grid(replace(stack(in_plane_mm, 5.0, in_plane_mm), resolved=resolved), 1.0)
    shape = grid.stack.slices.shape[:2]
    assert grid.stack.resolved == tuple(min(kept, n) for kept, n in zip(resolved, shape, strict=True))
    measured = grid.stack.as_measured()
    for n, mm, now, now_mm in zip(
        measured.slices.shape[:2], measured.in_plane_mm, shape, grid.stack.in_plane_mm, strict=True
    ):
        assert n * mm == pytest.approx(now * now_mm)


@pytest.mark.parametrize(
    ("in_plane_mm", "consistency"),
    [(1.0, smooth), (0.7, smooth), (0.7, unmeasured)],
    ids=["own grid", "another", "another, unmeasured"],
)
def test_what_is_carried_is_less_negative_and_explains_the_scan_as_its_step_does(in_plane_mm, consistency):
    own = stack(in_plane_mm, 5.0, in_plane_mm)
    grid = prior_grid(own, 1.0)
    noise = torch.randn(grid.stack.selection.domain_shape(grid.stack.slices.shape), generator=torch.Generator())
    state = smooth(0.3 * noise, grid.stack.slices, grid.stack.selection, 0.0, 0.0)
    x = grid.carried(state, consistency)
    assert -x.clamp(max=0).mean() < -0.5 * state.clamp(max=0).mean()
    exact = (own.selection.apply(x) - own.slices).norm() < 1e-6 * own.slices.norm()
    assert exact == (consistency is smooth)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_turns_are_taken_in_the_planes_that_hold_the_slice_axis(axis):
    """The slice axis is the one closest to this world axis, whatever its place in the file."""
    asked = []

    def denoise(x, _sigma, world_axis):
        asked.append(world_axis)
        return x

    own = stack(1.0, 5.0, 1.0, axis)
    x = torch.zeros(own.selection.domain_shape(own.slices.shape))
    for turn in take_turns(SlicePrior(denoise, 1.0), own):
        turn(x, 0.1)
    assert sorted(set(asked)) == sorted({0, 1, 2} - {axis})
    asked.clear()
    turns = take_turns(SlicePrior(denoise, 1.0), own, own_plane_every=3)
    for turn in turns:
        turn(x, 0.1)
    assert asked[2::3] == [axis, axis]
    assert len(set(asked)) == 3


def test_a_sample_does_not_depend_on_how_many_there_are():
    grid = prior_grid(stack(1.0, 5.0, 1.0), 1.0)
    prior, config = SlicePrior(lambda x, _sigma, _axis: 0.9 * x, 1.0), FocvsConfig(steps=2, from_estimate=False)
    few, many = (list(draws(grid, prior, config, n, generator=torch.Generator().manual_seed(3))) for n in (2, 4))
    assert all(torch.equal(a, b) for a, b in zip(few, many, strict=False))
    assert not torch.allclose(many[0], many[1])


def test_mean_and_spread_are_those_of_the_draws():
    own = stack(1.0, 5.0, 1.0)
    prior, config = SlicePrior(lambda x, _sigma, _axis: 0.9 * x, 1.0), FocvsConfig(steps=3)
    posterior = super_resolve(own, prior, config, generator=torch.Generator().manual_seed(3), samples=5)
    each = torch.stack(list(draws(prior_grid(own, 1.0), prior, config, 5, generator=torch.Generator().manual_seed(3))))
    assert torch.allclose(posterior.mean, each.mean(dim=0), atol=1e-6)
    assert torch.allclose(posterior.sd, each.std(dim=0), atol=1e-6)
    assert (posterior.samples, posterior.sweeps) == (5, 15)


def test_progress_counts_over_all_samples():
    told = []
    prior, config = SlicePrior(lambda x, _sigma, _axis: 0.9 * x, 1.0), FocvsConfig(steps=2, from_estimate=False)
    super_resolve(
        stack(1.0, 5.0, 1.0),
        prior,
        config,
        generator=torch.Generator().manual_seed(0),
        samples=2,
        progress=lambda *told_now: told.append(told_now),
    )
    assert told == [("focvs", n, 4) for n in (1, 2, 3, 4)]
