"""Means over blocks of pixels, and the way back."""

import pytest
import torch

from priors.blocks import block_mean, enlarged

RATIO = 4


def test_the_noise_of_means_is_that_of_pixels_over_the_ratio():
    noise = torch.randn((8, 128, 128), generator=torch.Generator().manual_seed(4))
    assert float(block_mean(noise, RATIO).std()) == pytest.approx(1 / RATIO, rel=0.05)


def test_what_is_enlarged_lies_where_it_lay():
    """A ramp stays within a fifth of a pixel: this cubic is exact for constants only. Half a block off would be 2."""
    ramp = torch.arange(48.0)[None, :, None].expand(1, 48, 8)
    back = enlarged(block_mean(ramp, RATIO), RATIO)
    inside = slice(3 * RATIO, -3 * RATIO)  # the cubic reaches two blocks beyond its own
    torch.testing.assert_close(back[:, inside], ramp[:, inside], atol=0.2, rtol=0)
    torch.testing.assert_close(enlarged(torch.full((1, 6, 6), 0.7), RATIO), torch.full((1, 24, 24), 0.7))


def test_air_beside_an_edge_is_not_negative():
    edge = torch.zeros(1, 8, 8)
    edge[:, 4:] = 1
    assert enlarged(edge, RATIO).min() == 0
