"""The spread of samples becomes an expected error: nothing where nothing is unknown, more the more is."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from focvs.spread import HEAD_2D, SpreadFit, averaged
from forward_models import Gaussian, SliceGrid, acquisition_of, slice_selection, volume_from_image
from forward_models.stack import Stack, stack_of
from tests.conftest import head_phantom, nib_image

FIT = SpreadFit(gain=2.0, growth=1.0)


def stack(spacing_mm: float = 4.0) -> Stack:
    volume = volume_from_image(nib_image(head_phantom((20, 22, 6)), (1.0, 1.0, spacing_mm)))
    return stack_of(volume, acquisition_of(volume), 1.0)


def even(scan: Stack, value: float = 0.1) -> torch.Tensor:
    return torch.full(scan.selection.domain_shape(scan.slices.shape), value)


def test_a_voxel_that_the_scan_fixes_has_no_error_whatever_the_samples_do():
    scan = stack(1.2)
    fixing = slice_selection(SliceGrid(6, 1.0), SliceGrid(6, 1.0), Gaussian(1.0))
    scan = replace(scan, selection=fixing)
    assert HEAD_2D.sd(even(scan), scan).max() < 1e-6
    assert HEAD_2D.sd(even(stack()), stack()).min() > 0.01


def test_where_samples_agree_there_is_none():
    scan = stack()
    raw = even(scan)
    raw[:10] = 0
    sd = HEAD_2D.sd(raw, scan)
    assert sd[:5].max() == 0
    assert sd[15:].min() > 0


def test_it_is_what_it_says():
    scan = stack()
    share = scan.selection.measured_share
    sd = FIT.sd(even(scan), scan)
    assert torch.allclose(sd[3, 4].double(), 0.1 * torch.sqrt(2 * 4.0 * (1 - share)), rtol=1e-5)


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_it_has_the_unit_of_the_image(factor):
    scan = stack()
    raw = torch.rand(even(scan).shape, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(FIT.sd(factor * raw, scan), factor * FIT.sd(raw, scan), rtol=1e-5)


def test_farther_slices_err_more():
    assert HEAD_2D.sd(even(stack(8.0)), stack(8.0)).mean() > 1.2 * HEAD_2D.sd(even(stack(4.0)), stack(4.0)).mean()


def test_the_window_is_in_millimetres():
    """Second moments of an impulse, along voxels of different length."""
    x = torch.zeros(41, 41, 41)
    x[20, 20, 20] = 1
    sizes = (0.5, 1.0, 0.8)
    window = averaged(x, sizes)
    assert float(window.sum()) == pytest.approx(1, abs=1e-4)
    for axis, mm in enumerate(sizes):
        line = window.sum(dim=tuple({0, 1, 2} - {axis})).double()
        place = mm * (torch.arange(41) - 20)
        assert float((line * place**2).sum()) == pytest.approx(1, rel=0.02)


def test_few_samples_rank_errors_better_for_the_window():
    """Errors of a known, smoothly varying sd; four samples tell its square to 80 %, their neighbours know the rest."""
    rng, scan = np.random.default_rng(0), stack()
    shape = tuple(even(scan).shape)
    true = 0.1 * np.linspace(0.3, 2, shape[0])[:, None, None] * np.ones(shape)
    raw = (true * rng.normal(size=(4, *shape))).std(axis=0, ddof=1).astype(np.float32)
    error = np.abs(true * rng.normal(size=shape))
    before, after = (
        stats.spearmanr(error.ravel(), sd.ravel())[0] for sd in (raw, FIT.sd(torch.from_numpy(raw), scan).numpy())
    )
    assert after > before + 0.05


def test_the_device_and_dtype_are_kept():
    scan = stack()
    assert FIT.sd(even(scan).double(), scan).dtype == torch.float64
