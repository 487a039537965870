"""What other solvers make of a Gaussian prior: where they are right, and the bias that their docstrings state."""

import pytest
import torch

from focvs import noise_levels
from focvs.comparison import dds, diffpir, dps, red_diff
from tests.focvs.conftest import check_posterior, measured

DRAWS = 200
LEVELS = noise_levels(100, 5.0, 0.01)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def null_space_share(draws, prior, selection) -> float:
    """Variance over the null space relative to the prior's, which is the posterior's there."""
    unknown = torch.linalg.svd(selection.weights)[2][len(selection.weights) :]
    return float(((draws[:, 0] - prior.mean) @ unknown.mT).square().mean() / prior.sd**2)


def misfit(draws, y, selection) -> float:
    """Root mean square of W x - y."""
    return float((selection.apply(draws) - y).square().mean().sqrt())


@pytest.fixture
def y(selection):
    return measured(selection, DRAWS)


def test_dps_leaves_the_null_space_alone_and_nearly_explains_the_scan(prior, selection, y):
    few, many = (
        dps([prior.denoise], y, selection, noise_levels(steps, 5.0, 0.01), generator=seeded()) for steps in (15, 100)
    )
    assert abs(null_space_share(many, prior, selection) - 1) < 0.1
    assert 1e-4 < misfit(many, y, selection) < 0.05
    assert misfit(many, y, selection) < 0.5 * misfit(few, y, selection)


def test_dps_without_strength_ignores_the_scan(prior, selection, y):
    ignoring = dps([prior.denoise], y, selection, LEVELS, generator=seeded(), strength=0)
    assert misfit(ignoring, y, selection) > 0.1


def test_diffpir_without_fresh_noise_is_right(prior, selection, y):
    draws = diffpir([prior.denoise], y, selection, noise_levels(300, 20.0, 0.01), generator=seeded(), zeta=0)
    assert misfit(draws, y, selection) < 0.01
    check_posterior(draws, prior, y, selection)


def test_diffpir_is_under_dispersed_however_many_steps(prior, selection, y):
    kept = [
        null_space_share(
            diffpir([prior.denoise], y, selection, noise_levels(steps, 20.0, 0.01), generator=seeded(), zeta=0.7),
            prior,
            selection,
        )
        for steps in (100, 300)
    ]
    assert max(kept) < 0.85
    assert abs(kept[1] - kept[0]) < 0.1


@pytest.mark.parametrize("gamma", [10.0, 100.0])
def test_dds_divides_the_mismatch_and_keeps_the_null_space(prior, selection, y, gamma):
    """6 iterations solve for 6 singular values exactly; the last level is 0, so x is the last corrected x0."""
    draws = dds([prior.denoise], y, selection, LEVELS, generator=seeded(), gamma=gamma, iterations=7)
    assert abs(null_space_share(draws, prior, selection) - 1) < 0.1
    bare = dds([prior.denoise], y, selection, LEVELS, generator=seeded(), gamma=0.0)
    left, singular = misfit(draws, y, selection), torch.linalg.svdvals(selection.weights)
    assert left < misfit(bare, y, selection) / float(1 + gamma * singular[-1] ** 2)
    assert left > 1e-9


def test_red_diff_ends_near_the_posterior_mean_without_spread(prior, selection, y):
    ends = red_diff([prior.denoise], y, selection, noise_levels(200, 3.0, 0.05), generator=seeded())
    assert null_space_share(ends, prior, selection) < 0.1
    off = (ends[:, 0].mean(dim=0) - prior.posterior_mean(y[0, 0], selection)).abs().max()
    assert off < 0.15 * prior.sd


@pytest.mark.parametrize("solver", [dps, diffpir, dds, red_diff])
def test_they_start_where_they_are_told_and_tell_their_progress(solver, prior, selection, y):
    told = []
    start = selection.smooth_inverse(y)
    solver(
        [prior.denoise],
        y,
        selection,
        (0.3, 0.1, 0.0),
        generator=seeded(),
        start=start,
        told=lambda *steps: told.append(steps),
    )
    assert told == [(1, 2), (2, 2)]
    assert torch.equal(start, selection.smooth_inverse(y))
