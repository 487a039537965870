"""What every linear operator of the package promises, as checks that raise AssertionError.

`tests/forward_models/test_contract.py` runs them on the operators, and on broken twins that each must reject.
"""

from typing import Protocol

import torch
from torch import Tensor

ROUNDING = 1e-10  # float64, relative to the norms involved


class Operator(Protocol):
    """A linear operator."""

    def domain_shape(self, thick_shape: tuple[int, ...]) -> tuple[int, ...]: ...
    def apply(self, x: Tensor) -> Tensor: ...
    def adjoint(self, y: Tensor) -> Tensor: ...


class InvertibleOperator(Operator, Protocol):
    """One with the inverses that the package relies on."""

    def pseudo_inverse(self, y: Tensor) -> Tensor: ...
    def smooth_inverse(self, y: Tensor) -> Tensor: ...
    def null_space(self, x: Tensor) -> Tensor: ...


def draws(operator: Operator, range_shape: tuple[int, ...]) -> tuple[Tensor, Tensor, torch.Generator]:
    """A random x and y in float64, and the generator for more."""
    generator = torch.Generator().manual_seed(20)
    x = torch.randn(operator.domain_shape(range_shape), generator=generator, dtype=torch.float64)
    return x, torch.randn(range_shape, generator=generator, dtype=torch.float64), generator


def dense(operator: Operator, like: Tensor) -> Tensor:
    """The matrix of the operator's images of unit vectors."""
    units = torch.eye(like.numel(), dtype=like.dtype).reshape(-1, *like.shape)
    return torch.stack([operator.apply(unit).flatten() for unit in units], dim=1)


def check_linear(operator: Operator, range_shape: tuple[int, ...]) -> None:
    x, _, generator = draws(operator, range_shape)
    other = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    _close(operator.apply(2.5 * x - other), 2.5 * operator.apply(x) - operator.apply(other), "A(ax + by) != aAx + bAy")


def check_adjoint(operator: Operator, range_shape: tuple[int, ...]) -> None:
    x, y, _ = draws(operator, range_shape)
    forward, backward = (operator.apply(x) * y).sum(), (x * operator.adjoint(y)).sum()
    scale = operator.apply(x).norm() * y.norm()
    assert abs(forward - backward) <= ROUNDING * scale, (
        f"<Ax, y> and <x, A'y> differ: the adjoint seems to be scaled by {backward / forward:.6g}, should be 1"
    )


def check_adjoint_is_autograd_transpose(operator: Operator, range_shape: tuple[int, ...]) -> None:
    x, y, _ = draws(operator, range_shape)
    _, transposed = torch.autograd.functional.vjp(operator.apply, x, y)
    _close(operator.adjoint(y), transposed, "adjoint != autograd transpose")


def check_dense(operator: Operator, range_shape: tuple[int, ...]) -> None:
    """The operator equals the matrix of its images of unit vectors, and its adjoint that matrix's transpose."""
    x, y, _ = draws(operator, range_shape)
    matrix = dense(operator, x)
    _close(operator.apply(x).flatten(), matrix @ x.flatten(), "A x != dense A x")
    _close(operator.adjoint(y).flatten(), matrix.mT @ y.flatten(), "A'y != dense A'y")


def check_dense_inverse(operator: InvertibleOperator, range_shape: tuple[int, ...]) -> None:
    """W+ equals that of the dense matrix."""
    x, y, _ = draws(operator, range_shape)
    matrix = dense(operator, x)
    _close(operator.pseudo_inverse(y).flatten(), torch.linalg.pinv(matrix) @ y.flatten(), "A+y != dense A+y")


def check_inverses(operator: InvertibleOperator, range_shape: tuple[int, ...]) -> None:
    x, y, _ = draws(operator, range_shape)
    measured = operator.apply(x)
    _close(operator.apply(operator.pseudo_inverse(measured)), measured, "A A+ A != A")
    _close(operator.apply(operator.smooth_inverse(measured)), measured, "A S A != A")
    smallest = operator.pseudo_inverse(y)
    _close(operator.null_space(smallest), torch.zeros_like(smallest), "A+ y reaches into the null space", of=smallest)


def check_projector(operator: InvertibleOperator, range_shape: tuple[int, ...]) -> None:
    x, _, generator = draws(operator, range_shape)
    other = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    projected = operator.null_space(x)
    _close(operator.null_space(projected), projected, "the null-space projector is not idempotent")
    _close(operator.apply(projected), torch.zeros(range_shape, dtype=x.dtype), "A N x != 0", of=x)
    symmetric = (projected * other).sum() - (x * operator.null_space(other)).sum()
    assert abs(symmetric) <= ROUNDING * x.norm() * other.norm(), "the null-space projector is not orthogonal"


def check_preserves(operator: Operator, thin_mm: Tensor, thick_mm: Tensor, axis: int, shape: tuple[int, ...]) -> None:
    """Constants and ramps in mm along the slice axis come out as they are."""
    line = [1] * len(shape)
    line[axis] = -1
    for name, power in (("constant", 0), ("ramp", 1)):
        x = (thin_mm**power).reshape(line).expand(operator.domain_shape(shape))
        expected = (thick_mm**power).reshape(line).expand(shape)
        error = (operator.apply(x) - expected).abs().max() / max(1.0, float(expected.abs().max()))
        assert error <= ROUNDING, f"a {name} in mm is off by {error:.1e} of its maximum"


def check_batch_and_dtype(operator: Operator, range_shape: tuple[int, ...]) -> None:
    """A batch is its elements one by one; dtype is kept, the input left alone."""
    x, _, _ = draws(operator, range_shape)
    before = x.clone()
    batch = operator.apply(torch.stack([x, 2 * x]))
    assert torch.equal(batch[0], operator.apply(x)), "a batch element differs from itself alone"
    assert operator.apply(x.float()).dtype == torch.float32, "float32 does not stay float32"
    assert torch.equal(x, before), "the operator changed its input"


def _close(got: Tensor, expected: Tensor, message: str, of: Tensor | None = None) -> None:
    scale = (expected if of is None else of).norm()
    error = (got - expected).norm()
    assert error <= ROUNDING * scale, f"{message}: relative error {error / scale:.1e}"
