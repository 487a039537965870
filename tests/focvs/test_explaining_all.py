"""Sampling under several scans: all are explained, and one scan alone is sampled as it was before there were others."""

from dataclasses import replace

import pytest
import torch

from focvs import (
    FocvsConfig,
    SlicePrior,
    alone,
    draws,
    explaining_all,
    noise_levels,
    prior_grid,
    sample,
    smooth,
    unmeasured,
)
from forward_models.joint import Measured
from forward_models.placed import placed_within
from forward_models.stack import Stack
from tests.focvs.test_grid import stack as one_scan
from tests.forward_models.test_joint import EXACT, FIRST, OTHER, SELECTION, TRUTH, Y, mismatch

EXPLAINED = 0.02  # of the other scan: what interpolation and damping leave at most
LEVELS = noise_levels(5, 0.3, 0.02)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def fading(x, _sigma):
    """A denoiser that knows nothing of heads."""
    return 0.9 * x


def check_explained(x: torch.Tensor, others: tuple[Measured, ...]) -> None:
    assert float((SELECTION.apply(x) - Y).norm() / Y.norm()) < EXACT
    for other in others:
        left = mismatch(x, other)
        assert left < EXPLAINED, f"another scan is missed by {left:.3f} of it"


def test_a_draw_explains_both_scans():
    step = explaining_all([OTHER], LEVELS[-2])
    check_explained(sample([fading], step, Y, SELECTION, LEVELS, generator=seeded()), (OTHER,))


def test_the_check_rejects_a_step_that_forgets_the_second_scan():
    forgetful = sample([fading], smooth, Y, SELECTION, LEVELS, generator=seeded())
    with pytest.raises(AssertionError, match="another scan is missed"):
        check_explained(forgetful, (OTHER,))


def test_the_last_step_is_solved_and_those_before_come_near():
    x0 = torch.zeros_like(TRUTH)
    step = explaining_all([OTHER], 0.02)
    far, near, solved = (
        mismatch(s(x0, Y, SELECTION, sigma, 0.0)) for s, sigma in ((smooth, 1), (step, 0.3), (step, 0.02))
    )
    assert solved < near < 0.3 * far
    assert solved < EXPLAINED


# ---- on the grid of the prior and on the scan's own ----


@pytest.mark.parametrize("in_plane_mm", [1.0, 0.7])
def test_one_scan_is_sampled_bit_for_bit_as_by_the_sampler_alone(in_plane_mm):
    grid = prior_grid(one_scan(in_plane_mm, 5.0, in_plane_mm), 1.0)
    prior, config = SlicePrior(lambda x, _sigma, _axis: 0.9 * x, 1.0), FocvsConfig(steps=3, from_estimate=False)
    (drawn,) = draws(grid, prior, config, 1, alone(smooth), generator=seeded())
    own = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=seeded())))
    turns, y, selection = prior.denoisers(grid.stack, 0), grid.stack.slices, grid.stack.selection
    x = sample(turns, smooth, y, selection, config.levels, generator=own, eta=config.eta)
    assert torch.equal(drawn, grid.carried(x, smooth))


def test_the_step_is_asked_for_the_grid_of_the_prior_and_for_the_scans_own():
    """And the last word is that of the latter."""
    grid = prior_grid(one_scan(0.7, 5.0, 0.7), 1.0)
    prior, config = SlicePrior(lambda x, _sigma, _axis: 0.9 * x, 1.0), FocvsConfig(steps=2, from_estimate=False)

    def on(stack: Stack):
        if stack is grid.own:
            return lambda x0, *_: torch.full_like(x0, 7.0)
        return unmeasured

    (drawn,) = draws(grid, prior, config, 1, on, generator=seeded())
    assert drawn.shape == grid.own.selection.domain_shape(grid.own.slices.shape)
    assert (drawn == 7).all()


@pytest.mark.parametrize("spacing_mm", [1.3, 0.8])
def test_a_scan_resampled_in_plane_keeps_its_place(spacing_mm):
    """World positions read off the voxels: a ramp in the world stays the same ramp."""
    there = placed_within(FIRST.slices, FIRST.stack)
    assert torch.allclose(torch.from_numpy(there.slices.affine), torch.from_numpy(FIRST.slices.affine), atol=1e-9)
    ramp = world_ramp(FIRST.slices)
    grid = prior_grid(replace(FIRST.stack, slices=ramp), spacing_mm)
    moved = placed_within(FIRST.slices, grid.stack)
    inner = slice(4, -4)
    assert torch.allclose(grid.stack.slices[inner, inner], world_ramp(moved.slices)[inner, inner], atol=1e-2)
    assert moved.thin.voxel_mm == pytest.approx((spacing_mm,) * 3)


def world_ramp(lattice) -> torch.Tensor:
    i, j, k = torch.meshgrid(*(torch.arange(n).double() for n in lattice.shape), indexing="ij")
    a = torch.from_numpy(lattice.affine)
    x, y, z = (a[r, 0] * i + a[r, 1] * j + a[r, 2] * k + a[r, 3] for r in range(3))
    return (x + 2 * y - 0.5 * z).float()
