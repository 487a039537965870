"""Images carried between lattices, and the operator of a scan that lies elsewhere."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from forward_models import Box, Gaussian, InputRefused, SliceGrid, slice_selection, thin_grid_for
from forward_models.elsewhere import ScanElsewhere, scan_elsewhere
from forward_models.lattices import Lattice, LatticeResampling
from tests import contracts
from tests.conftest import head_phantom, oblique_affine

RAMP_ROUNDING = 1e-9  # of the largest value


def lattice(shape, voxel_mm, angles=(0.0, 0.0, 0.0), middle=(3.0, -2.0, 5.0), order=(0, 1, 2)) -> Lattice:
    """Around `middle`, turned by `angles`, axes in another order."""
    affine = oblique_affine((1, 1, 1), angles, (0, 0, 0))[:, [*order, 3]]
    turned = Lattice(shape, affine).respaced(shape, voxel_mm)
    away = np.eye(4)
    away[:3, 3] = np.array(middle) - turned.middle
    return turned.moved(away)


def world(where: Lattice) -> np.ndarray:
    """Positions of voxel centres, (i, j, k, 3)."""
    indices = np.stack(np.meshgrid(*map(np.arange, where.shape), indexing="ij"), axis=-1)
    return indices @ where.affine[:3, :3].T + where.affine[:3, 3]


TINY = lattice((5, 4, 6), (1.0, 1.1, 0.9))
PLACES = {
    "sagittal": lattice((5, 6, 3), (1.0, 0.9, 2.5), order=(1, 2, 0)),
    "oblique": lattice((5, 6, 3), (1.0, 1.2, 2.0), (0.2, -0.15, 0.1), (3.4, -1.7, 5.2), order=(2, 0, 1)),
    "coarser in plane": lattice((3, 4, 2), (2.1, 1.0, 3.0), (0.05, 0.1, 0.0), order=(1, 2, 0)),
    "partly outside": lattice((5, 6, 3), (1.0, 1.0, 2.2), (0.1, 0.0, 0.1), (5.5, -2.0, 7.0), order=(0, 2, 1)),
}
CHECKS = [
    contracts.check_linear,
    contracts.check_adjoint,
    contracts.check_adjoint_is_autograd_transpose,
    contracts.check_dense,
    contracts.check_batch_and_dtype,
]


@pytest.mark.parametrize("slices", PLACES.values(), ids=PLACES.keys())
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_a_scan_elsewhere_keeps_the_contract(check, slices):
    check(scan_elsewhere(TINY, slices, Gaussian(slices.voxel_mm[2])), slices.shape)


@pytest.mark.parametrize("check", CHECKS[1:4], ids=lambda check: check.__name__.removeprefix("check_"))
def test_an_adjoint_that_forgets_what_is_not_counted_is_rejected(check):
    slices = PLACES["partly outside"]
    good = scan_elsewhere(TINY, slices, Gaussian(2.2))
    broken = replace(good, counted=torch.ones_like(good.counted))
    twin = SimpleNamespace(domain_shape=good.domain_shape, apply=good.apply, adjoint=broken.adjoint)
    with pytest.raises(AssertionError):
        check(twin, slices.shape)


def test_slices_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="are not the"):
        scan_elsewhere(TINY, PLACES["sagittal"], Gaussian(2.0)).domain_shape((4, 6, 3))


# ---- interpolation ----


@settings(max_examples=8)
@given(
    angles=st.tuples(*[st.floats(-0.35, 0.35)] * 3),
    order=st.permutations([0, 1, 2]),
    voxel_mm=st.tuples(*[st.floats(0.7, 1.3)] * 3),
    slope=st.tuples(*[st.floats(-1, 1)] * 3),
)
def test_constants_and_ramps_in_mm_survive_any_turn(angles, order, voxel_mm, slope):
    source = lattice((14, 13, 15), (1.0, 1.1, 0.9))
    target = lattice((9, 8, 10), voxel_mm, angles, order=tuple(order))
    resampling = LatticeResampling(source, target)
    x, expected = (torch.from_numpy(7 + world(each) @ np.array(slope)) for each in (source, target))
    error = (resampling.apply(x) - expected)[resampling.inside].abs().max()
    assert error <= RAMP_ROUNDING * float(expected.abs().max() + 7)


def smooth_image(where: Lattice) -> np.ndarray:
    x, y, z = np.moveaxis(world(where), -1, 0)
    return np.sin(0.5 * x + 0.2 * y) + np.cos(0.45 * y - 0.3 * z) * np.exp(-((z - 5) ** 2) / 60)


@pytest.mark.parametrize("angles", [(0, 0, 0), (0.1, -0.2, 0.15), (0.4, 0.3, -0.3)], ids=str)
def test_three_passes_are_as_close_to_the_truth_as_scipy_in_one(angles):
    source = lattice((30, 31, 32), (1.0, 1.0, 1.0))
    target = lattice((14, 15, 13), (1.0, 1.0, 1.1), angles, order=(2, 0, 1))
    x, truth = smooth_image(source), smooth_image(target)
    index = np.moveaxis((world(target) - source.affine[:3, 3]) @ np.linalg.inv(source.affine[:3, :3]).T, -1, 0)
    scipy = np.abs(map_coordinates(x, index, order=3) - truth).max()
    ours = np.abs(LatticeResampling(source, target).apply(torch.from_numpy(x)).numpy() - truth).max()
    assert ours <= 3 * scipy + 1e-12


def test_half_a_voxel_off_would_be_seen():
    source, target = lattice((20, 20, 20), (1.0, 1.0, 1.0)), lattice((9, 9, 9), (1.0, 1.0, 1.0), (0.1, 0.0, 0.1))
    off = np.eye(4)
    off[0, 3] = 0.5
    x = torch.from_numpy(smooth_image(source))
    assert np.abs(LatticeResampling(source, target.moved(off)).apply(x).numpy() - smooth_image(target)).max() > 0.1


def test_parallel_axes_take_the_short_way_to_the_same_result():
    """The same lattices, turned by 1e-3 of a voxel over their length and by nothing."""
    source = lattice((12, 13, 14), (1.0, 1.0, 1.0))
    x = torch.from_numpy(head_phantom(source.shape)).double()
    straight, turned = (
        LatticeResampling(source, lattice((9, 10, 8), (1.1, 0.9, 1.0), (angle, 0, 0), order=(1, 2, 0))).apply(x)
        for angle in (0.0, 1e-4)
    )
    assert 0 < (straight - turned).abs().max() <= 2e-3 * x.max()


def test_axes_between_two_others_are_refused():
    with pytest.raises(InputRefused, match="turned against the first scan"):
        LatticeResampling(TINY, lattice((5, 5, 5), (1.0, 1.0, 1.0), (0.62, 0.95, 0.0)))


# ---- physics ----


@pytest.mark.parametrize("angles", [(0.0, 0.0, 0.0), (0.15, -0.1, 0.2)], ids=["straight", "oblique"])
@pytest.mark.parametrize("family", [Gaussian, Box])
def test_a_ramp_in_world_mm_reaches_the_slices_as_it_is(family, angles):
    thin = lattice((30, 28, 32), (1.0, 1.0, 1.0))
    slices = lattice((16, 17, 4), (1.0, 1.0, 5.0), angles, order=(2, 1, 0))
    operator = scan_elsewhere(thin, slices, family(4.0))
    x, expected = (torch.from_numpy(40 + world(each) @ np.array([0.7, -0.4, 1.1])) for each in (thin, slices))
    inner = operator.counted.bool()
    assert inner.float().mean() > 0.4
    assert (operator.apply(x) - expected)[inner].abs().max() <= 2e-3  # 2 % of a profile may lie outside, extrapolated


def test_the_first_scan_itself_is_seen_as_its_own_slice_selection_sees_it():
    slices = lattice((8, 9, 6), (1.0, 1.0, 4.0), (0.1, 0.2, -0.1))
    thick = SliceGrid(6, 4.0)
    selection = slice_selection(thick, thin_grid_for(thick, 1.0), Gaussian(3.0))
    thin = slices.respaced((8, 9, 24), (1.0, 1.0, 1.0))
    operator = scan_elsewhere(thin, slices, Gaussian(3.0))
    x = torch.randn(thin.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert operator.share_counted == 1.0
    assert torch.allclose(operator.apply(x), selection.apply(x), atol=1e-9)


def test_voxels_that_see_past_the_field_of_view_do_not_count():
    thin = lattice((20, 20, 20), (1.0, 1.0, 1.0))
    aside = lattice((20, 20, 8), (1.0, 1.0, 4.0), middle=(3.0 + 12.0, -2.0, 5.0), order=(1, 2, 0))
    operator = scan_elsewhere(thin, aside, Gaussian(4.0))
    depth = np.abs(world(aside)[..., 0] - thin.middle[0])
    seen = operator.counted.bool().numpy()
    assert not seen[depth > 10].any()  # centres outside
    assert seen[depth < 10 - 5].all()  # hardly anything of a 4 mm Gaussian is 5 mm off its centre
    constant = operator.apply(torch.ones(thin.shape, dtype=torch.float64))
    assert torch.allclose(constant, operator.counted.double(), atol=1e-9)


def test_larger_voxels_in_plane_see_their_whole_width():
    thin = lattice((40, 24, 24), (1.0, 1.0, 1.0))
    coarse = lattice((12, 20, 4), (3.0, 1.0, 5.0))
    stripes = torch.zeros(thin.shape, dtype=torch.float64)
    stripes[::2] = 1
    seen = scan_elsewhere(thin, coarse, Gaussian(5.0)).apply(stripes)[2:-2, 4:-4, 1:-1]
    assert (seen - 0.5).abs().max() < 0.05


@pytest.mark.parametrize("angles", [(0.0, 0.0, 0.0), (0.2, -0.15, 0.1)], ids=["straight", "oblique"])
def test_the_bound_on_the_norm_holds(angles):
    """Against power iteration, on lattices of a size where edges are not everything."""
    thin = lattice((24, 23, 25), (1.0, 1.1, 0.9))
    operator = scan_elsewhere(thin, lattice((24, 22, 5), (1.0, 1.0, 5.0), angles, order=(2, 0, 1)), Gaussian(5.0))
    x = torch.randn(thin.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for _ in range(30):
        x = operator.adjoint(operator.apply(x / x.norm()))
    assert float(x.norm()) <= operator.squared_norm <= 5 * float(x.norm())


def test_nothing_of_the_operator_changes_by_use():
    operator = scan_elsewhere(TINY, PLACES["oblique"], Gaussian(2.0))
    assert isinstance(operator, ScanElsewhere)
    with pytest.raises(AttributeError, match="cannot assign"):
        operator.counted = torch.zeros(1)
