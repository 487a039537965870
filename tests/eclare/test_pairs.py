"""Training pairs: what thick slices make of in-plane patches."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import eclare.pairs
from eclare.pairs import Patches, PatchSource
from forward_models import Gaussian, InputRefused, SliceGrid
from tests.eclare.conftest import TINY, stack_and_truth

CASES = [(3.0, 0.0, 1.0), (3.0, 1.0, 1.0), (3.0, 0.45, 1.5), (4.0, 0.6, 2.0), (3.0, 1.4, 1.0), (5.0, -1.0, 1.0)]


def source_of(volume, config=TINY, profile_mm=3.0, gap_mm=1.0, thin_mm=1.0, in_plane_mm=1.0, slices=None):
    """Patches of `volume` (a, b, z) as the thin volume of a scan with this slice selection."""
    volume = np.asarray(volume, np.float32)
    scan, _ = stack_and_truth(1 + np.abs(volume), Gaussian(profile_mm), gap_mm, thin_mm, in_plane_mm)
    grid = slices or SliceGrid(volume.shape[2], thin_mm)
    return PatchSource(torch.from_numpy(volume), grid, scan, config)


def coordinates(shape, axis, step_mm=1.0):
    """An image whose value is the position along `axis` in mm."""
    line = np.arange(shape[axis], dtype=np.float32) * step_mm
    return np.broadcast_to(line.reshape([-1 if i == axis else 1 for i in range(3)]), shape).copy()


def draw(source, count=24, seed=0, **kind) -> Patches:
    return source.draw(count, generator=torch.Generator().manual_seed(seed), **kind)


def error_on_constants(source) -> float:
    patches = draw(source)
    return max(float((half - 7).abs().max()) for half in (patches.thick, patches.thin))


@pytest.mark.parametrize(("profile_mm", "gap_mm", "thin_mm"), CASES)
def test_a_constant_gives_constant_pairs(profile_mm, gap_mm, thin_mm):
    source = source_of(np.full((60, 64, 40), 7), TINY, profile_mm, gap_mm, thin_mm)
    assert error_on_constants(source) < 1e-5  # float32 rounding of 7


def test_without_the_margin_constants_would_not_survive(monkeypatch):
    monkeypatch.setattr(eclare.pairs, "margin_for", lambda *_: 0)
    assert error_on_constants(source_of(np.full((60, 64, 40), 7))) > 0.1


@pytest.mark.parametrize(("profile_mm", "gap_mm", "thin_mm"), CASES)
def test_a_ramp_gives_the_ramp_at_slice_centres(profile_mm, gap_mm, thin_mm):
    volume = coordinates((80, 64, 40), axis=0)
    source = source_of(volume, replace(TINY, neighbours=0, refreshes=0), profile_mm, gap_mm, thin_mm)
    patches, margin_mm, checked = draw(source, 64), 2 * profile_mm + thin_mm, 0
    for thick, thin in zip(patches.thick[:, 0, :, 0].numpy(), patches.thin[:, 0, :, 0].numpy(), strict=True):
        if thin.std() < 1e-3 or min(thin[0], thin[-1]) < margin_mm or max(thin[0], thin[-1]) > 79 - margin_mm:
            continue  # degraded across the ramp, or at the edge of the image, where it ends
        sign = np.sign(thin[-1] - thin[0])
        expected = thin.mean() + sign * (source.thick.centres_mm - source.thin.middle_mm)
        assert thick == pytest.approx(expected, abs=2e-4)  # float32 rounding of 80 mm through the resampling
        checked += 1
    assert checked > 3


def test_rows_are_at_the_spacing_of_thin_slices():
    volume = coordinates((100, 90, 30), axis=0, step_mm=0.5)
    patches = draw(source_of(volume, TINY, in_plane_mm=0.5), 32)
    steps = patches.thin[:, 0].diff(dim=1).abs()[:, 5:-5]
    along = steps.flatten(1).mean(dim=1) > 1e-3
    assert along.sum() == 16  # the other half is degraded along the other axis
    assert torch.allclose(steps[along].median(), torch.tensor(1.0), atol=1e-3)


@pytest.mark.parametrize("in_plane_mm", [1.0, 0.5])
def test_neighbours_are_as_far_apart_as_in_plane_voxels(in_plane_mm):
    volume = coordinates((80, 84, 40), axis=2)
    patches = draw(source_of(volume, TINY, in_plane_mm=in_plane_mm), 40)
    apart = patches.thick[:, :, 0, 0].diff(dim=1).abs()
    inside = (apart > 0.01).all(dim=1)  # at the ends of the stack slices are repeated
    assert inside.sum() > 20
    assert torch.allclose(apart[inside].median(), torch.tensor(in_plane_mm), atol=1e-3)


def test_the_patch_lies_amid_its_neighbours():
    volume = coordinates((60, 64, 40), axis=2)
    patches = draw(source_of(volume))
    assert torch.allclose(patches.thick[:, TINY.neighbours, 0, 0], patches.thin[:, 0, 0, 0], atol=1e-4)


def test_half_of_the_pairs_is_degraded_along_each_in_plane_axis():
    patches = draw(source_of(coordinates((60, 64, 40), axis=0)), 30)
    along_rows = (patches.thin[:, 0, :, 0].diff(dim=1).abs() > 0.1).any(dim=1)
    assert along_rows.sum() == 15


def test_held_out_slices_are_never_learned_from():
    volume = coordinates((60, 64, 40), axis=2) * 100 + np.random.default_rng(0).random((60, 64, 40), np.float32)
    source = source_of(volume, replace(TINY, held_out=0.2))
    learned, judged = (
        {round(float(v) / 100) for v in draw(source, 400, held_out=held_out).thin[:, 0].mean(dim=(1, 2))}
        for held_out in (False, True)
    )
    assert judged
    assert learned
    assert not learned & judged


def test_constant_slices_are_held_out_too():
    source = source_of(coordinates((60, 64, 40), axis=2), replace(TINY, held_out=0.2))
    learned, judged = (
        set(draw(source, 200, held_out=held_out).thin[:, 0, 0, 0].tolist()) for held_out in (False, True)
    )
    assert not learned & judged


def test_patches_come_from_where_there_is_something_to_learn():
    volume = np.zeros((80, 84, 40), np.float32)
    volume[:40] = np.random.default_rng(0).random((40, 84, 40), np.float32)
    patches = draw(source_of(volume), 200)
    assert (patches.thin.flatten(1).std(dim=1) > 0).float().mean() > 0.95  # by chance: about 0.6


def share_with_structure() -> list[float]:
    """Of the patches along either in-plane axis, where structure lies in two corners that no row or column shares."""
    volume = np.zeros((96, 120, 40), np.float32)
    noise = np.random.default_rng(0).random((26, 26, 40), np.float32)
    volume[:26, -26:], volume[-26:, 30:56] = noise, noise
    structured = draw(source_of(volume), 200).thin.flatten(1).std(dim=1) > 0
    return [float(half.float().mean()) for half in structured.chunk(2)]


def test_both_coordinates_of_a_patch_are_drawn_together():
    assert min(share_with_structure()) > 0.9  # windows are drawn to within 7 voxels


def _transposed(weights):
    """Centres left as they were when the axes of the image change places."""
    return lambda images, length, width: weights(images.mT, length, width)


def _marginal(weights):
    """Rows and columns drawn without regard for one another."""

    def product(images, length, width):
        weight = weights(images, length, width)
        return weight.sum(dim=1, keepdim=True) * weight.sum(dim=2, keepdim=True)

    return product


@pytest.mark.parametrize("broken", [_transposed, _marginal])
def test_coordinates_drawn_otherwise_would_be_seen(broken, monkeypatch):
    monkeypatch.setattr(eclare.pairs, "_window_weights", broken(eclare.pairs._window_weights))
    assert min(share_with_structure()) < 0.8


def test_the_generator_alone_decides():
    source = source_of(np.random.default_rng(0).random((60, 64, 40)))
    torch.manual_seed(1)
    first = draw(source, seed=5)
    torch.manual_seed(2)
    assert torch.equal(first.thick, draw(source, seed=5).thick)
    assert not torch.equal(first.thick, draw(source, seed=6).thick)


def test_slices_too_small_in_plane_are_refused():
    with pytest.raises(InputRefused, match="15 mm in plane, less than 4 slice spacings of 4 mm"):
        source_of(np.ones((15, 64, 40)))
