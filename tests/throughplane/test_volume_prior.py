"""`upsample --method focvs` with a prior of volumes: the same command, another kind of folder."""

import json
import math
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

import focvs
import throughplane
from forward_models import InputRefused, acquisition_of, simulate, volume_from_image
from forward_models.profiles import Gaussian
from forward_models.stack import stack_of
from priors.folders import CONFIG, read_json, write_json
from priors.schedules import VELOCITY
from priors.volumes import VolumeConfig, VolumePrior, new_volume_network, save_volume_prior
from tests.conftest import head_phantom, nib_image, oblique_affine, placed_image
from throughplane.cli import main
from throughplane.loaded_priors import PriorOfVolumes, load_prior
from throughplane.pipeline import How, plan
from throughplane.reading import Acquired, read_scan

EXACT = 1e-5
SMALL = VolumeConfig(channels=(8, 8, 8), blocks_per_level=1)


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    """A checkpoint folder whose network was never trained, but says something."""
    torch.manual_seed(0)
    network = new_volume_network(SMALL).eval().requires_grad_(False)
    for parameter in network.out.parameters():
        parameter.normal_(std=0.3)
    folder = tmp_path_factory.mktemp("priors") / "volumes"
    save_volume_prior(folder, VolumePrior(network, SMALL, VELOCITY))
    return folder


@pytest.fixture(autouse=True)
def few_steps(monkeypatch) -> None:
    quick = {name: replace(config, steps=2, from_estimate=False) for name, config in focvs.PRESETS.items()}
    monkeypatch.setattr(focvs, "PRESETS", quick)


def thick_head(axis=2, in_plane_mm=1.0):
    data = np.ascontiguousarray(np.moveaxis(head_phantom((12, 14, 5)), -1, axis))
    voxels = [in_plane_mm] * 3
    voxels[axis] = 5.0
    return placed_image(data, oblique_affine(tuple(voxels)))


# ---- the command ----


def test_the_command_takes_either_kind_and_the_file_explains_the_scan(prior, tmp_path):
    scan, out = tmp_path / "scan.nii.gz", tmp_path / "thin.nii.gz"
    thick_head().to_filename(scan)
    flags = ["--method", "focvs", "--prior", str(prior), "--samples", "2", "--maps", "--quiet"]
    assert main(["upsample", str(scan), str(out), *flags]) == 0
    record = json.loads((tmp_path / "thin.json").read_text())
    assert record["residual"]["relative_to_scan"] < EXACT
    told = record["method_details"]["prior"]
    assert (told["of"], told["prediction"], told["orientation"]) == ("volumes", "velocity", "LPS")
    assert (tmp_path / "thin_std.nii.gz").exists()


@pytest.mark.parametrize(("axis", "in_plane_mm"), [(0, 1.0), (1, 1.0), (2, 0.6)])
def test_so_it_does_along_any_axis_and_on_another_grid(axis, in_plane_mm, prior):
    result = throughplane.super_resolve(thick_head(axis, in_plane_mm), method="focvs", prior=prior)
    assert result.record["residual"]["relative_to_scan"] < EXACT
    assert result.record["method_details"]["prior_voxel_mm"] == pytest.approx((1.0, 1.0, 1.0))


def test_a_prior_of_volumes_does_not_learn_from_slices(prior):
    with pytest.raises(InputRefused, match="--adapt needs a prior of slices, and this one is of volumes"):
        throughplane.super_resolve(thick_head(), method="focvs", prior=prior, adapt_minutes=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"orientation": "LPP"}, "orientation 'LPP'; expected one letter each of RL, AP and SI"),
        ({"spacing_mm": None}, "config.json lacks or garbles"),
        ({"network": {"channels": [8, 8, 8], "width": 3}}, "config.json lacks or garbles"),
        ({"prediction": "noise"}, "config.json says prediction 'noise'"),
    ],
)
def test_a_folder_that_does_not_say_what_it_is_is_refused(change, message, prior, tmp_path):
    for path in prior.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    write_json(tmp_path / CONFIG, {**read_json(prior, CONFIG), **change})
    with pytest.raises(InputRefused, match=message):
        throughplane.super_resolve(thick_head(), method="focvs", prior=tmp_path)


# ---- orientation, intensities ----


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("stored", ["RAS", "LPS", "IRP", "ASL"])
def test_the_prior_sees_the_head_in_its_own_order_however_it_is_stored(axis, stored):
    """A denoiser that knows the head in RAS says so whatever it is shown; only the right turn gives the head back."""
    head = nib_image(head_phantom((22, 24, 26)))
    turned = head.as_reoriented(
        nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(tuple(stored))
        )
    )
    thin = volume_from_image(turned)
    along = next(i for i, letter in enumerate(stored) if letter in ("RL", "AP", "SI")[axis])
    sides = [slice(None)] * 3
    sides[along] = slice(0, 4 * (turned.shape[along] // 4))
    thin = volume_from_image(turned.slicer[tuple(sides)])
    scan = simulate(thin, Gaussian(4.0), 0.0, axis=along)
    stack = stack_of(scan, acquisition_of(scan, axis=along, profile=Gaussian(4.0)), 1.0)
    truth = nib.as_closest_canonical(turned.slicer[tuple(sides)]).get_fdata().astype(np.float32) / stack.scale
    knowing = focvs.VolumePrior(lambda x, _sigma: torch.from_numpy(truth).reshape(x.shape), 1.0)
    config = focvs.FocvsConfig(steps=2, from_estimate=False)
    drawn = focvs.super_resolve(stack, knowing, config, generator=torch.Generator().manual_seed(0))
    assert np.allclose(stack.in_file_order(drawn.mean), thin.data, atol=1e-3 * thin.data.max())


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "SLA", "AIR"])
def test_the_network_sees_the_orientation_that_its_folder_says(orientation):
    seen = []

    class Watching(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(()))

        def forward(self, z, _steps):
            seen.append(z[0, 0])
            return z

    head = torch.from_numpy(head_phantom((8, 12, 16)) / 800)
    prior = VolumePrior(Watching(), SMALL, VELOCITY, orientation=orientation)
    at = VELOCITY.path(2 / prior.maximum * 0.1)
    x0 = prior.denoise(head[None], 0.1)
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(tuple(orientation))
    )
    expected = nib.orientations.apply_orientation(at.signal * (2 * head.numpy() / prior.maximum - 1), turn)
    assert np.allclose(seen[0].numpy(), expected, atol=1e-6)
    z = torch.from_numpy(expected.copy())
    back = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt(tuple(orientation)), nib.orientations.axcodes2ornt("RAS")
    )
    said = nib.orientations.apply_orientation(((VELOCITY.x0(z, z, at) + 1) * prior.maximum / 2).numpy(), back)
    assert np.allclose(x0[0].numpy(), said, atol=1e-5)


def test_the_brightest_of_the_scan_is_what_the_network_is_told_is_one(prior, monkeypatch):
    told = []
    monkeypatch.setattr(VolumePrior, "for_maximum", lambda self, maximum: told.append(maximum) or self)
    volume = volume_from_image(thick_head())
    stack = stack_of(volume, acquisition_of(volume), 1.0)
    load_prior(prior, torch.float32, math.inf).on(stack)
    assert told == [pytest.approx(float(np.percentile(stack.slices.numpy(), 99.9)))]


# ---- memory ----


def test_memory_decides_between_the_whole_volume_and_tiles(prior):
    whole, tiled = (load_prior(prior, torch.float32, budget) for budget in (math.inf, 4e8))
    assert isinstance(tiled, PriorOfVolumes)
    shape = (180, 200, 190)
    assert all(t >= n for t, n in zip(whole.tile_for(shape), shape, strict=True))
    assert math.prod(tiled.tile_for(shape)) < 0.2 * math.prod(shape)
    assert SMALL.bytes_for(tiled.tile_for(shape), torch.float32) <= 4e8
    assert tiled.network_bytes((180.0, 200.0, 190.0)) < whole.network_bytes((180.0, 200.0, 190.0))


def test_the_network_is_part_of_the_announced_memory(prior):
    scan = read_scan(thick_head(), Acquired())
    volumes = plan(scan, How(method="focvs", prior=prior))
    slices = plan(scan, How(method="focvs"))
    assert volumes.memory_bytes - slices.memory_bytes > SMALL.bytes_for((12, 14, 25), torch.bfloat16)


def test_what_is_drawn_from_tiles_explains_the_scan_too(prior):
    """A budget too small for the volume: tiles of two overlaps."""
    data = head_phantom((8, 10, 100))[:, :, ::5]
    scan = volume_from_image(placed_image(data, np.diag([1.0, 1.0, 5.0, 1.0])))
    stack = stack_of(scan, acquisition_of(scan), 1.0)
    loaded = load_prior(prior, torch.float32, 1.0)
    assert loaded.tile_for((8, 10, 100)) == (8, 12, 68)
    config = focvs.PRESETS["fast"]
    drawn = focvs.super_resolve(stack, loaded.on(stack), config, generator=torch.Generator().manual_seed(0))
    assert (stack.selection.apply(drawn.mean) - stack.slices).norm() < EXACT * stack.slices.norm()
