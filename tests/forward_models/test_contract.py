"""Every operator keeps the contract, and every check rejects a broken operator."""

from types import SimpleNamespace

import pytest
import torch

from forward_models import Box, Gaussian, SliceGrid, slice_selection, slr, thin_grid_for
from forward_models.selection import SliceSelection
from tests import contracts

AXIS_SHAPES = {-1: (3, 4, None), 0: (None, 3, 4), 1: (2, None, 5), -2: (2, None, 5)}
ALL_CHECKS = [
    contracts.check_linear,
    contracts.check_adjoint,
    contracts.check_adjoint_is_autograd_transpose,
    contracts.check_dense,
    contracts.check_dense_inverse,
    contracts.check_inverses,
    contracts.check_projector,
]


def operator_of(family, thickness_mm, gap_mm, slices, thin_mm=1.0, axis=-1) -> SliceSelection:
    thick = SliceGrid(slices, thickness_mm + gap_mm, middle_mm=-3.7)
    return slice_selection(thick, thin_grid_for(thick, thin_mm), family(thickness_mm), axis)


def range_shape_of(operator: SliceSelection) -> tuple[int, ...]:
    return tuple(operator.thick.count if n is None else n for n in AXIS_SHAPES[operator.axis])


OPERATORS = [
    pytest.param(operator_of(family, t, g, k, h, axis), id=f"{family.__name__}-{t:g}|{g:g}-{k}x-{h:g}mm-axis{axis}")
    for family, t, g, k, h, axis in [
        (Gaussian, 3, 0, 8, 1.0, -1),
        (Gaussian, 4, 1, 7, 1.0, 0),
        (Gaussian, 5, 1.5, 6, 0.9, 1),
        (Gaussian, 7, 2.5, 5, 1.0, -2),
        (Gaussian, 5, -1, 7, 1.0, -1),
        (Gaussian, 2.3, 0, 9, 1.0, -1),
        (Box, 5, 0, 6, 1.0, -1),
        (Box, 4.4, 0, 7, 1.0, 0),
        (Box, 1.5, 0, 11, 1.0, -1),
        (slr, 8, 0, 5, 1.0, -1),
        (slr, 4, 0.4, 6, 0.7, 1),
    ]
]


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("check", ALL_CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_slice_selection_keeps_the_contract(check, operator):
    check(operator, range_shape_of(operator))


@pytest.mark.parametrize("operator", OPERATORS)
def test_constants_and_ramps_in_mm_survive(operator):
    thin, thick = (torch.from_numpy(grid.centres_mm) for grid in (operator.thin, operator.thick))
    contracts.check_preserves(operator, thin, thick, operator.axis, range_shape_of(operator))


@pytest.mark.parametrize("axis", [-1, -2])
def test_batches_and_dtypes(axis):
    operator = operator_of(Gaussian, 4, 1, 7, axis=axis)
    contracts.check_batch_and_dtype(operator, range_shape_of(operator))


# ---- broken twins: each check must reject the operator that breaks its promise ----

GOOD = operator_of(Gaussian, 4, 1, 7)
SHAPE = range_shape_of(GOOD)


def twin(**broken) -> SimpleNamespace:
    """GOOD with some of its methods replaced."""
    names = ("domain_shape", "apply", "adjoint", "pseudo_inverse", "smooth_inverse", "null_space")
    return SimpleNamespace(**{name: broken.get(name, getattr(GOOD, name)) for name in names})


BROKEN = [
    (contracts.check_linear, twin(apply=lambda x: GOOD.apply(x) + 1e-6), "offset"),
    (contracts.check_linear, twin(apply=lambda x: GOOD.apply(x.clamp(-1, 1))), "clipped"),
    (contracts.check_adjoint, twin(adjoint=lambda y: GOOD.adjoint(y) / 5), "missing factor"),
    (contracts.check_adjoint, twin(adjoint=lambda y: GOOD.adjoint(y).roll(1, -1)), "shifted by one"),
    (contracts.check_adjoint_is_autograd_transpose, twin(adjoint=lambda y: GOOD.adjoint(y.flip(-1))), "flipped"),
    (contracts.check_dense_inverse, twin(pseudo_inverse=GOOD.adjoint), "adjoint for inverse"),
    (contracts.check_dense, twin(apply=lambda x: GOOD.apply(x.abs())), "not a matrix"),
    (contracts.check_inverses, twin(pseudo_inverse=lambda y: 0.99 * GOOD.pseudo_inverse(y)), "damped"),
    (contracts.check_inverses, twin(smooth_inverse=GOOD.adjoint), "adjoint for smooth inverse"),
    (contracts.check_inverses, twin(pseudo_inverse=GOOD.smooth_inverse), "not the smallest"),
    (contracts.check_projector, twin(null_space=lambda x: x - GOOD.adjoint(GOOD.apply(x))), "adjoint for inverse"),
    (contracts.check_projector, twin(null_space=lambda x: x - GOOD.smooth_inverse(GOOD.apply(x))), "oblique"),
]


@pytest.mark.parametrize(
    ("check", "broken"),
    [pytest.param(check, broken, id=f"{check.__name__.removeprefix('check_')}-{why}") for check, broken, why in BROKEN],
)
def test_a_broken_twin_is_rejected(check, broken):
    with pytest.raises(AssertionError):
        check(broken, SHAPE)


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(lambda x: 1.001 * GOOD.apply(x), id="rows do not sum to one"),
        pytest.param(lambda x: GOOD.apply(x.roll(1, -1)), id="shifted by one"),
        pytest.param(lambda x: GOOD.apply(torch.nn.functional.pad(x, (0, 1))[..., 1:]), id="zero padding"),
    ],
)
def test_an_operator_that_bends_constants_or_ramps_is_rejected(broken):
    thin, thick = (torch.from_numpy(grid.centres_mm) for grid in (GOOD.thin, GOOD.thick))
    with pytest.raises(AssertionError, match="in mm is off"):
        contracts.check_preserves(twin(apply=broken), thin, thick, GOOD.axis, SHAPE)


def overwriting(x):
    y = GOOD.apply(x)
    return x.zero_()[..., : y.shape[-1]].copy_(y)


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(lambda x: GOOD.apply(x - x.mean()), id="sees the batch"),
        pytest.param(lambda x: GOOD.apply(x.double()), id="changes dtype"),
        pytest.param(overwriting, id="overwrites its input"),
    ],
)
def test_an_operator_that_mishandles_tensors_is_rejected(broken):
    with pytest.raises(AssertionError):
        contracts.check_batch_and_dtype(twin(apply=broken), SHAPE)
