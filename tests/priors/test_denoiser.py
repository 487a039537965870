"""The denoiser: limits in sigma, any size, folding, one slice like many."""

import pytest
import torch

from priors.denoiser import Prior, fold, new_denoiser, pad_to_multiple, unfold
from priors.planes import Plane, slice_of
from tests.priors.conftest import TINY


def awake(seed=0):
    """A network whose last layer is not zero, as after training."""
    torch.manual_seed(seed)
    network = new_denoiser(TINY).eval().requires_grad_(False)
    with torch.no_grad():
        network.unet.conv_out.weight.normal_(std=0.3)
    return network


def noisy(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_as_sigma_vanishes_the_slice_comes_back():
    x = noisy(2, 24, 20)
    prior = Prior(awake())
    gaps = [float((prior.denoise(x, sigma, Plane.AXIAL) - x).abs().max()) for sigma in (1e-2, 1e-4, 1e-6)]
    assert gaps[0] > 10 * gaps[1] > 100 * gaps[2]
    assert gaps[2] < 1e-5


def test_untrained_the_denoiser_is_that_of_a_gaussian():
    x, sigma = noisy(1, 16, 16), 0.7
    shrink = TINY.sigma_data**2 / (TINY.sigma_data**2 + sigma**2)
    expected = TINY.mean + shrink * (x - TINY.mean)
    torch.testing.assert_close(Prior(new_denoiser(TINY)).denoise(x, sigma, Plane.CORONAL), expected)


@pytest.mark.parametrize("shape", [(16, 16), (17, 23), (5, 40), (1, 3), (33, 18)])
def test_slices_of_any_size_keep_it(shape):
    estimate = Prior(awake()).denoise(noisy(1, *shape), 0.3, Plane.SAGITTAL)
    assert estimate.shape == (1, *shape)
    assert torch.isfinite(estimate).all()


def test_a_slice_alone_equals_the_slice_in_a_batch():
    x, prior = noisy(3, 20, 20), Prior(awake())
    together = prior.denoise(x, 0.3, Plane.AXIAL)
    alone = torch.cat([prior.denoise(x[i : i + 1], 0.3, Plane.AXIAL) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)  # convolutions block differently by batch size


def test_gradients_reach_x_and_only_when_asked_for():
    prior, x = Prior(awake()), noisy(1, 16, 16)
    assert not prior.denoise(x, 0.3, Plane.AXIAL).requires_grad
    probe = noisy(1, 16, 16, seed=1).double()
    x = x.double().requires_grad_()
    (gradient,) = torch.autograd.grad((prior.denoise(x, 0.3, Plane.AXIAL) * probe).sum(), x)
    step = 1e-2 * noisy(1, 16, 16, seed=2).double()
    with torch.no_grad():
        ahead, behind = (prior.denoise(x + sign * step, 0.3, Plane.AXIAL) for sign in (1, -1))
    slope = float(((ahead - behind) / 2 * probe).sum())
    assert float((gradient * step).sum()) == pytest.approx(slope, rel=1e-2)  # curvature over the step; float32 inside


def test_the_plane_matters_and_of_plane_fixes_it():
    x, prior = noisy(1, 16, 16), Prior(awake())
    sagittal, axial = (prior.denoise(x, 0.3, plane) for plane in (Plane.SAGITTAL, Plane.AXIAL))
    assert not torch.equal(sagittal, axial)
    assert torch.equal(prior.of_plane(Plane.AXIAL)(x, 0.3), axial)


def test_half_precision_weights_stay_close_to_single():
    x, network = noisy(1, 32, 32), awake()
    single = Prior(network).denoise(x, 0.3, Plane.AXIAL)
    half = Prior(network.to(torch.bfloat16)).denoise(x, 0.3, Plane.AXIAL)
    assert half.dtype == torch.float32
    assert float((half - single).norm() / single.norm()) < 0.02  # bfloat16 keeps 8 bits, over a dozen layers


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan")])
def test_a_noise_level_that_is_none_is_refused(sigma):
    with pytest.raises(ValueError, match="expected a positive noise level"):
        Prior(awake()).denoise(noisy(1, 16, 16), sigma, Plane.AXIAL)


def test_folding_is_undone_and_keeps_neighbours_together():
    x = noisy(2, 8, 6)
    folded = fold(x)
    assert folded.shape == (2, 4, 4, 3)
    assert torch.equal(folded[0, :, 1, 2], x[0, 2:4, 4:6].flatten())
    assert torch.equal(unfold(folded), x)


@pytest.mark.parametrize("shape", [(16, 16), (15, 18), (3, 1)])
def test_padding_is_undone_and_reaches_the_multiple(shape):
    x = noisy(2, *shape)
    padded, box = pad_to_multiple(x, 16)
    assert all(size % 16 == 0 for size in padded.shape[1:])
    assert torch.equal(padded[box], x)


def test_slices_keep_the_other_axes_in_order():
    voxels = torch.arange(2 * 3 * 4).reshape(2, 3, 4)
    assert torch.equal(slice_of(voxels, Plane.SAGITTAL, 1), voxels[1])
    assert torch.equal(slice_of(voxels, Plane.CORONAL, 2), voxels[:, 2])
    assert torch.equal(slice_of(voxels, Plane.AXIAL, 3), voxels[:, :, 3])
