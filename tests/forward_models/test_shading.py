"""Shading between two scans is found and undone; what is left of it would come out as bands."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from forward_models import Gaussian, InputRefused, Sidecar, Volume, acquisition_of, simulate, volume_from_image
from forward_models.joint import Measured, jointly_consistent
from forward_models.placed import PlacedStack, placed
from forward_models.shading import Shading, shading
from forward_models.stack import stack_of
from tests.conftest import head_phantom, nib_image

GAIN, SPACING = 1.5, 5
HEAD = volume_from_image(nib_image(np.pad(head_phantom((58, 60, 58)), 3)))


def ramps(shape: tuple[int, ...], most: float) -> np.ndarray:
    """From 1 - most to 1 + most along the first axis in the middle of the third, less towards its ends."""
    i, _, k = (np.linspace(-1, 1, n) for n in shape)
    return 1 + most * np.sin(np.pi / 2 * i)[:, None, None] * np.ones(shape[1])[:, None] * np.cos(np.pi / 2 * k)


def scanned(axis: int, offset: int = 0, most: float = 0.0, gain: float = 1.0) -> PlacedStack:
    """4 mm slices every 5 mm along `axis`, from voxel `offset` on, seen through a coil."""
    kept = tuple(slice(offset if i == axis else 0, None) for i in range(3))
    affine = HEAD.affine.copy()
    affine[:3, 3] += offset * affine[:3, axis]
    thin = Volume(np.float32(gain * HEAD.data * ramps(HEAD.data.shape, most))[kept], affine, HEAD.header)
    scan = simulate(thin, Gaussian(4.0), 1.0, axis=axis)
    return placed(stack_of(scan, acquisition_of(scan, Sidecar(), axis=axis, thickness_mm=4.0), 1.0), scan)


FIRST = scanned(2)
PLACES = {"orthogonal": (0, 0), "parallel": (2, 2)}
EVEN, SHADED = ({name: scanned(*place, *coil) for name, place in PLACES.items()} for coil in ((), (0.15, GAIN)))


def intensities(scan: PlacedStack) -> torch.Tensor:
    return scan.stack.slices * scan.stack.scale


def joint(other: PlacedStack, found: Shading | None, gain: float = GAIN) -> torch.Tensor:
    """Both explained, from what the first says alone; with one gain for the whole scan where nothing was found."""
    y, selection = FIRST.stack.slices, FIRST.stack.selection
    slices = intensities(other) if found is None else found.undone(intensities(other))
    units, noise = FIRST.stack.scale * gain, 0.0 if found is None else found.disagreement
    measured = Measured(other.seen_from(FIRST.thin), slices / units, noise / units)
    return jointly_consistent(selection.smooth_inverse(y), y, selection, [measured]).x


def comb(x: torch.Tensor) -> float:
    """Amplitude at one cycle per slice spacing, of means over 8 x 8 voxels inside the head, relative to its mean."""
    middle = x[16:48, 16:48, 2 * SPACING : 10 * SPACING].double().reshape(4, 8, 4, 8, -1).mean(dim=(1, 3))
    phase = torch.exp(2j * torch.pi * torch.arange(middle.shape[-1]) / SPACING)
    return float(((middle - middle.mean()) * phase).mean(dim=-1).abs().square().mean().sqrt() / middle.mean())


@pytest.mark.parametrize("name", PLACES)
def test_smooth_shading_is_found(name):
    found = shading(FIRST, SHADED[name], GAIN)
    even = intensities(EVEN[name])
    head = even > 0.3 * even.max()
    truth = intensities(SHADED[name])[head] / even[head] / GAIN
    assert float((found.field[head] - truth).square().mean().sqrt()) < 0.02
    assert float((found.field[head] - truth).square().mean().sqrt()) < 0.4 * float(truth.std())
    assert found.strength == pytest.approx(float(truth.std()), rel=0.3)


@pytest.mark.parametrize("name", PLACES)
def test_without_shading_none_is_found(name):
    found = shading(FIRST, EVEN[name], 1.0)
    assert found.strength < 0.01
    assert found.share < 0.03


@pytest.mark.parametrize("name", PLACES)
def test_undoing_it_comes_near_what_even_scans_give(name):
    """The broken twin knows one gain for the whole scan."""
    even = joint(EVEN[name], None, gain=1.0)
    cured, broken = (joint(SHADED[name], found) for found in (shading(FIRST, SHADED[name], GAIN), None))
    assert float((cured - even).norm()) < 0.5 * float((broken - even).norm())


def test_parallel_scans_do_not_come_out_banded():
    other = SHADED["parallel"]
    assert comb(joint(other, shading(FIRST, other, GAIN))) < 0.2 * comb(joint(other, None))


def test_what_differs_beside_shading_is_told():
    """Detail that one of the scans lacks, or noise that both hold at their resolution."""
    rough = scanned(0)
    blobs = np.random.default_rng(0).normal(size=rough.stack.slices.shape)
    blobs = gaussian_filter(blobs, (4, 4, 1))
    changed = rough.stack.slices * torch.from_numpy(1 + 0.1 * blobs / blobs.std()).float()
    told = shading(FIRST, replace(rough, stack=replace(rough.stack, slices=changed)), 1.0)
    assert 0.03 < told.share < 0.11
    assert told.disagreement > 3 * shading(FIRST, rough, 1.0).disagreement


def test_scans_that_do_not_overlap_are_refused():
    away = np.eye(4)
    away[0, 3] = 300
    with pytest.raises(InputRefused, match="hardly overlaps"):
        shading(FIRST, EVEN["parallel"].moved(away), 1.0)
