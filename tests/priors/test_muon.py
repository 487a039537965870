"""Muon steps along the orthogonal factor of the momentum, whatever the shape of a kernel."""

import pytest
import torch

from priors.denoiser import new_denoiser
from priors.muon import STEP_RMS, Muon, kernels_of, orthogonalised
from tests.priors.conftest import TINY


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(24, 24), (16, 144), (60, 20), (1, 8)])
def test_directions_are_those_of_the_singular_value_decomposition(shape):
    """An independent oracle: U V^T. The iteration leaves singular values between 0.6 and 1.3."""
    matrix = random(*shape)
    found = orthogonalised(matrix)
    assert all(0.6 < float(value) < 1.3 for value in torch.linalg.svdvals(found))
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    assert float((found * (u @ vt)).sum() / (found.norm() * (u @ vt).norm())) > 0.97


def test_the_size_of_a_gradient_does_not_matter():
    assert torch.equal(orthogonalised(random(8, 30)), orthogonalised(2**-20 * random(8, 30)))


@pytest.mark.parametrize("shape", [(16, 4, 3, 3), (8, 24), (24, 8)])
def test_a_step_has_the_stated_size(shape):
    kernel = torch.nn.Parameter(random(*shape))
    before, kernel.grad = kernel.detach().clone(), random(*shape) * 100
    Muon([kernel], lr=0.1).step()
    rms = float((kernel.detach() - before).square().mean().sqrt())
    assert rms == pytest.approx(0.1 * STEP_RMS, rel=0.25)


def test_no_gradient_no_step():
    kernel = torch.nn.Parameter(random(4, 4))
    Muon([kernel], lr=1.0).step()
    assert torch.equal(kernel, random(4, 4))
    kernel.grad = torch.zeros(4, 4)
    Muon([kernel], lr=1.0).step()
    assert torch.equal(kernel, random(4, 4))


def test_kernels_are_what_lies_between_first_and_last_layer():
    network = new_denoiser(TINY)
    chosen = {id(kernel) for kernel in kernels_of(network)}
    names = {name for name, parameter in network.named_parameters() if id(parameter) in chosen}
    assert any("resnets" in name for name in names)
    assert not any(
        name.endswith("bias") or "conv_in" in name or "conv_out" in name or "embed" in name for name in names
    )
