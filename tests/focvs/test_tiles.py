"""Tiles say what the whole volume would, where what is said of a voxel depends on its neighbourhood alone."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from focvs.tiles import OVERLAP, TRIM, blended_tiles, by_tiles, tile_within, times_seen

SHAPE = (70, 12, 131)


def volume(shape=SHAPE, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def blur(radius):
    """The mean over a square in the first and last axis; beyond the sides of what it is shown it sees zeros, as
    networks do."""

    def denoise(x, _sigma):
        return F.avg_pool2d(x.movedim(1, 0)[:, None], 2 * radius + 1, 1, radius)[:, 0].movedim(0, 1)

    return denoise


def test_a_local_denoiser_says_the_same_of_tiles_and_of_the_whole():
    x = volume()
    tiled = by_tiles(blur(TRIM), lambda _: (64, 12, 64))(x, 0.1)
    assert torch.allclose(tiled, blur(TRIM)(x, 0.1), atol=1e-6)


def test_one_that_looks_farther_than_the_tiles_lets_the_check_fail():
    x = volume()
    far = by_tiles(blur(2 * TRIM), lambda _: (64, 12, 64))(x, 0.1)
    assert not torch.allclose(far, blur(2 * TRIM)(x, 0.1), atol=1e-6)


def test_what_differs_between_tiles_changes_smoothly():
    """A denoiser that says another constant in every tile leaves no step."""
    said = iter(range(10))
    x = by_tiles(lambda part, _: torch.full_like(part, next(said)), lambda _: (70, 12, 96))(torch.zeros(SHAPE), 0.1)
    assert (x[0, 0, 0], x[0, 0, -1]) == (0, 1)
    assert x.diff(dim=2).abs().max() < math.pi / 2 / (OVERLAP - 2 * TRIM) + 1e-3


@given(n=st.integers(1, 400), side=st.integers(2 * OVERLAP, 400))
def test_tiles_cover_every_voxel_and_weigh_one(n, side):
    total = torch.zeros(n, 1, 1, dtype=torch.float64)
    for box, weights in blended_tiles((n, 1, 1), (side, 1, 1)):
        assert total[box].shape == weights.shape == (min(n, side), 1, 1)
        total[box] += weights
    assert torch.allclose(total, torch.ones_like(total))
    seen = sum(weights.numel() for _, weights in blended_tiles((n, 1, 1), (side, 1, 1)))
    assert times_seen((n, 1, 1), (side, 1, 1)) == pytest.approx(seen / n)


@pytest.mark.parametrize("multiple", [1, 16])
def test_the_whole_volume_where_it_fits_and_the_largest_that_does_where_not(multiple):
    shape = (150, 181, 97)
    assert all(t >= n for t, n in zip(tile_within(shape, lambda _: True, multiple), shape, strict=True))
    some = tile_within(shape, lambda tile: math.prod(tile) <= 1_000_000, multiple)
    assert 300_000 < math.prod(some) <= 1_000_000
    assert all(side % multiple == 0 for side in some)
    least = tile_within(shape, lambda _: False, multiple)
    assert 2 * OVERLAP <= min(least) <= max(least) < 3 * OVERLAP


def test_a_volume_that_fits_is_seen_once_as_it_is():
    seen = []

    def watching(x, _sigma):
        seen.append(x)
        return x

    x = volume()
    assert by_tiles(watching, lambda shape: shape)(x, 0.1) is x
    assert len(seen) == 1
