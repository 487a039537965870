"""`upsample --method focvs`: promises of the whole way, with a prior that knows nothing but how to be one."""

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import eclare
import focvs
import throughplane
from focvs.grid import thin_grids
from forward_models import (
    Gaussian,
    SliceGrid,
    acquisition_of,
    along,
    resampling_weights,
    slice_selection,
    thin_grid_for,
    volume_from_image,
)
from forward_models.stack import stack_of
from priors import in_plane_slices
from priors.checkpoint import config_fields, preprocess_record, save_checkpoint
from priors.denoiser import DenoiserConfig, new_denoiser
from priors.noise import NoiseLevels
from tests.conftest import head_phantom, oblique_affine, placed_image, save
from throughplane import FlagConflict, InputRefused
from throughplane.cli import main
from throughplane.pipeline import How, expected_seconds, plan
from throughplane.reading import Acquired, read_scan
from throughplane.sampling import WeightsMissing, load_sampler

EXACT = 1e-5  # of the scan, for the file as written; float32 gives about 1e-7
TINY = DenoiserConfig(channels=(8, 16), norm_groups=4, head_channels=8)


def untrained_prior(folder: Path) -> Path:
    """A checkpoint whose network was never trained: the exact denoiser of white Gaussian images, and some."""
    torch.manual_seed(0)
    network = new_denoiser(TINY)
    with torch.no_grad():
        network.unet.conv_out.weight.normal_(std=0.05)
    data = {"spacing_mm": 1.0, "train": [{"file": "a_T1w.nii.gz", "licence": "CC0-1.0"}]}
    config = {"denoiser": config_fields(TINY)}
    save_checkpoint(folder, network.state_dict(), config, preprocess_record(TINY, NoiseLevels(), []), data, "# card")
    return folder


@pytest.fixture(scope="module")
def prior(tmp_path_factory) -> Path:
    return untrained_prior(tmp_path_factory.mktemp("priors") / "tiny")


@pytest.fixture(autouse=True)
def few_steps(monkeypatch) -> None:
    """Preset fast starts from noise, the others from an estimate."""
    quick = {name: replace(config, steps=2, from_estimate=name != "fast") for name, config in focvs.PRESETS.items()}
    monkeypatch.setattr(focvs, "PRESETS", quick)


def thick_head(spacing_mm: float, axis: int, in_plane_mm: float = 1.0) -> nib.Nifti1Image:
    """An oblique scan of at least 4 slices, `spacing_mm` apart along `axis`."""
    count = max(4, round(24 / spacing_mm))
    data = np.moveaxis(head_phantom((12, 14, count)), -1, axis)
    voxels = [in_plane_mm] * 3
    voxels[axis] = spacing_mm
    return placed_image(np.ascontiguousarray(data), oblique_affine(tuple(voxels)))


# ---- every measured slice is kept ----


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(
    ("thickness", "gap"),
    [(3, 0), (4, 1), (5, 0), (5, 1.5), (8, 0), (7, 2.5), (10, 0), (16, 0), (2.7, 0), (4.4, 0.33)],
    ids=str,
)
def test_the_written_file_explains_the_scan(thickness, gap, axis, prior, tmp_path):
    """W from nothing but the numbers above and the file's own affine."""
    scan = thick_head(thickness + gap, axis)
    result = throughplane.super_resolve(scan, method="focvs", prior=prior, thickness_mm=thickness, preset="fast")
    result.image.to_filename(tmp_path / "thin.nii.gz")
    written = nib.load(tmp_path / "thin.nii.gz")
    assert written.get_data_dtype() == np.float32
    thick = SliceGrid(scan.shape[axis], float(np.linalg.norm(scan.affine[:3, axis])))
    thin = thin_grid_for(thick, float(np.linalg.norm(written.affine[:3, axis])))
    w = slice_selection(thick, thin, Gaussian(thickness)).weights.numpy()
    left = np.moveaxis(written.get_fdata(), axis, -1) @ w.T - np.moveaxis(scan.get_fdata(), axis, -1)
    assert np.linalg.norm(left) < EXACT * np.linalg.norm(scan.get_fdata())


@pytest.mark.parametrize(("preset", "made_by"), [("instant", "instant"), ("standard", "fast"), ("best", "standard")])
def test_sampling_starts_from_what_eclare_makes_of_the_scan(preset, made_by, prior, monkeypatch):
    """Without noise to add, and a denoiser that leaves all as it is, that is also where it ends."""
    still = focvs.FocvsConfig(steps=1, most=1e-6, least=1e-6)
    monkeypatch.setattr(focvs, "PRESETS", dict.fromkeys(focvs.PRESETS, still))
    few = {name: replace(eclare.PRESETS[name], steps=4) for name in ("fast", "standard")}
    monkeypatch.setattr(eclare, "PRESETS", {**eclare.PRESETS, **few})
    bright = head_phantom((48, 52, 6)) + 500  # far from zero: nothing negative to mend in either
    scan = placed_image(bright.astype(np.float32), np.diag([1.0, 1.0, 5.0, 1.0]))
    result = throughplane.super_resolve(scan, method="focvs", prior=prior, preset=preset)
    start = throughplane.super_resolve(scan, method="eclare", preset=made_by).image.get_fdata()
    assert result.record["method_details"]["starts_from"] == f"eclare@{made_by}"
    assert np.abs(result.image.get_fdata() - start).max() < 2e-4 * start.max()


@pytest.mark.parametrize("in_plane_mm", [0.4, 0.7, 1.3])
def test_so_it_does_where_the_prior_works_on_another_grid(in_plane_mm, prior):
    scan = thick_head(5.0, 2, in_plane_mm)
    result = throughplane.super_resolve(scan, method="focvs", prior=prior, preset="fast")
    assert result.record["residual"]["relative_to_scan"] < EXACT
    assert result.record["method_details"]["prior_voxel_mm"] == (1.0, 1.0, 1.0)
    assert result.image.header.get_zooms() == pytest.approx((in_plane_mm,) * 3)


def bars(in_plane_mm: float) -> nib.Nifti1Image:
    """One voxel bright, one dark along the first axis: finer than voxels of 1 mm can hold."""
    data = np.full((48, 40, 8), 500.0, np.float32)
    data[::2] += 200
    return placed_image(data, np.diag([in_plane_mm, in_plane_mm, 4.0, 1.0]))


def contrast(image: np.ndarray) -> np.ndarray:
    """Of the bars, in every thin slice, relative to what was scanned."""
    inner = image[8:-8, 8:-8]
    return (inner[::2].mean(axis=(0, 1)) - inner[1::2].mean(axis=(0, 1))) / 200


def test_detail_finer_than_the_prior_survives_in_every_thin_slice(prior):
    result = throughplane.super_resolve(bars(0.5), method="focvs", prior=prior, preset="fast", thickness_mm=4)
    assert np.abs(contrast(result.image.get_fdata()) - 1).max() < 0.1


def test_it_would_be_lost_without_the_consistency_step_on_the_native_grid(prior, monkeypatch):
    """The twin that the check must reject: x resampled from the prior's grid, and nothing else."""

    def resampled_only(grid, x, _consistency, _noise_sd):
        for axis, (new, own) in enumerate(zip(thin_grids(grid.stack), thin_grids(grid.own), strict=True)):
            x = along(axis, resampling_weights(new, own), x)
        return x

    monkeypatch.setattr(focvs.PriorGrid, "carried", resampled_only)
    result = throughplane.super_resolve(bars(0.5), method="focvs", prior=prior, preset="fast", thickness_mm=4)
    assert np.abs(contrast(result.image.get_fdata())).max() < 0.5


@pytest.mark.parametrize("in_plane_mm", [0.7, 1.0])
def test_noise_aware_explains_a_noisy_scan_to_its_noise(in_plane_mm, prior):
    scan = thick_head(5.0, 2, in_plane_mm)
    noise = np.random.default_rng(0).normal(size=scan.shape) * 40
    noisy = placed_image((scan.get_fdata() + noise).astype(np.float32), scan.affine)
    result = throughplane.super_resolve(noisy, method="focvs", prior=prior, preset="fast", noise_aware=True)
    residual = result.record["residual"]
    assert residual["relative_to_noise"] == pytest.approx(1, abs=0.05)
    assert residual["noise_sd"] == pytest.approx(40, rel=0.3)
    assert result.record["method_details"]["explains_the_scan"] == "to its noise"


# ---- samples ----


def test_the_same_seed_gives_the_same_volume_and_another_another(prior):
    scan = thick_head(5.0, 2)
    first, again, other = (
        throughplane.super_resolve(scan, method="focvs", prior=prior, preset="fast", seed=seed).image.get_fdata()
        for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)


def test_a_flipped_and_permuted_file_gives_the_flipped_and_permuted_result(prior):
    scan = thick_head(5.0, 2)
    turn = nib.orientations.axcodes2ornt(("P", "S", "R"))
    here = nib.orientations.io_orientation(scan.affine)
    turned = scan.as_reoriented(nib.orientations.ornt_transform(here, turn))
    results = [throughplane.super_resolve(s, method="focvs", prior=prior, preset="fast").image for s in (scan, turned)]
    back = results[1].as_reoriented(nib.orientations.ornt_transform(turn, here))
    assert np.array_equal(results[0].get_fdata(), back.get_fdata())


def test_the_mean_is_that_of_the_samples_and_std_their_calibrated_spread(prior):
    """Sample k does not depend on how many there are, so they can be told from running means."""
    scan = thick_head(5.0, 2)
    how = {"method": "focvs", "prior": prior, "preset": "fast"}
    results = [throughplane.super_resolve(scan, **how, samples=n) for n in (1, 2, 3)]
    means = [result.image.get_fdata() for result in results]
    samples = np.stack([means[0], 2 * means[1] - means[0], 3 * means[2] - 2 * means[1]])
    assert results[0].sd is None
    assert "std" not in results[0].record["method_details"]
    volume = volume_from_image(scan)
    stack = stack_of(volume, acquisition_of(volume), 1.0)
    raw = stack.order.apply(samples.std(axis=0, ddof=1))
    expected = stack.order.undo(focvs.HEAD_2D.sd(torch.from_numpy(raw.copy()), stack).numpy())
    assert np.allclose(results[2].sd.get_fdata(), expected, atol=2e-3 * means[0].max())
    assert results[2].sd.get_fdata().max() > 0.01 * means[0].max()
    told = results[2].record["method_details"]["std"]
    assert told["mean_of_samples"] == pytest.approx(raw.mean(), rel=1e-3)
    assert told["mean"] == pytest.approx(expected.mean(), rel=1e-3)
    assert told["factor"] == pytest.approx(focvs.HEAD_2D.factor(5.0), rel=1e-3)


def test_a_spread_that_nobody_fitted_is_called_a_guess(prior):
    """The one that comes with the package was fitted: whoever changes the weights fits anew."""
    cpu = torch.device("cpu")
    assert load_sampler(None, 2, cpu).notes == ()
    for sampler, why in (
        (load_sampler(prior, 2, cpu), "another one"),
        (load_sampler(None, 2, cpu, noise_aware=True), "to its noise"),
        (load_sampler(None, 2, cpu, adapt_minutes=1), "learns from the scan"),
    ):
        assert why in sampler.notes[0]
        assert replace(sampler, samples=1).notes == ()
    record = throughplane.super_resolve(
        thick_head(5.0, 2), method="focvs", prior=prior, preset="fast", samples=2
    ).record
    assert record["method_details"]["std"]["meaning"] == "a guess: the prior is another one"
    assert any("_std" in note for note in record["warnings"])


def test_the_measured_map_is_what_w_fixes(prior):
    """By the definition: the share of white noise that survives W+ W."""
    scan = thick_head(6.0, 1)
    result = throughplane.super_resolve(scan, method="focvs", prior=prior, preset="fast", thickness_mm=4)
    selection = slice_selection(SliceGrid(4, 6.0), SliceGrid(24, 1.0), Gaussian(4))
    noise = torch.randn(4000, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    share = selection.pseudo_inverse(selection.apply(noise)).var(dim=0)
    measured = result.measured.get_fdata()
    assert measured.shape == result.image.shape
    assert np.allclose(measured, measured[:1, :, :1])
    assert np.allclose(measured[0, :, 0], share.numpy(), atol=0.05)
    assert measured.mean() == pytest.approx(4 / 24)


# ---- adaptation ----


@pytest.fixture
def two_steps(monkeypatch) -> None:
    """What takes as long as is asked takes two steps, and one batch judges them."""
    monkeypatch.setattr("throughplane.loaded_priors.steps_within", lambda *_: 2)
    monkeypatch.setattr(import_module("priors.adapt"), "JUDGED_BATCHES", 1)


@pytest.mark.usefixtures("two_steps")
def test_an_adapted_prior_draws_other_volumes_that_explain_the_scan_and_says_how_it_learned(prior):
    scan, told = thick_head(5.0, 2), []
    how = {"method": "focvs", "prior": prior, "preset": "fast"}
    plain = throughplane.super_resolve(scan, **how)
    first = throughplane.super_resolve(scan, **how, adapt_minutes=1.5, progress=lambda *at: told.append(at))
    assert not np.allclose(first.image.get_fdata(), plain.image.get_fdata())
    assert first.record["residual"]["relative_to_scan"] < EXACT
    learned = first.record["method_details"]["adaptation"]
    assert (learned["minutes"], learned["steps"]) == (1.5, 2)
    assert learned["pixel_mm"] == pytest.approx(2.0)
    assert 0 < learned["loss_before"] != learned["loss_after"]
    assert plain.record["method_details"]["adaptation"] is None
    assert told[:2] == [("adapt", 1, 2), ("adapt", 2, 2)]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.usefixtures("two_steps")
def test_the_prior_learns_slices_of_the_plane_that_was_scanned(axis, prior, monkeypatch):
    """As RAS slices on pixels for their thickness, whatever the file's order: the oracle reads the file itself."""
    seen = []

    def watched(*args, **_):
        seen.append(args[1:3])
        return args[0]

    monkeypatch.setattr("throughplane.loaded_priors.adapt", watched)
    scan = thick_head(5.0, axis).as_reoriented(nib.orientations.axcodes2ornt("PLS"))
    stored = {0: 1, 1: 0, 2: 2}[axis]
    throughplane.super_resolve(scan, method="focvs", prior=prior, preset="fast", axis=stored, adapt_minutes=1)
    (slices, plane), (expected, same) = seen[0], in_plane_slices(volume_from_image(scan), stored, 2.0)
    assert plane == same
    assert torch.allclose(slices, expected, atol=1e-5)


def test_the_minutes_are_announced(prior):
    scan, how = read_scan(thick_head(5.0, 2), Acquired()), How(method="focvs", prior=prior, preset="fast")
    plain, learning = (plan(scan, replace(how, adapt_minutes=minutes)) for minutes in (None, 3.0))
    assert expected_seconds(learning) - expected_seconds(plain) == pytest.approx(180, abs=10)
    assert learning.memory_bytes > plain.memory_bytes


# ---- the command ----


def run(*argv: object) -> int:
    return main([str(a) for a in argv])


def test_the_command_writes_the_volume_its_maps_and_what_it_used(prior, thick_scan, tmp_path):
    out = tmp_path / "thin.nii.gz"
    flags = ["--method", "focvs", "--preset", "best", "--prior", prior, "--samples", 2, "--maps", "--quiet"]
    assert run("upsample", thick_scan, out, *flags) == 0
    for name in ("std", "measured", "residual"):
        assert (tmp_path / f"thin_{name}.nii.gz").exists()
    assert nib.load(tmp_path / "thin_std.nii.gz").shape == nib.load(out).shape
    record = json.loads((tmp_path / "thin.json").read_text())
    details = record["method_details"]
    assert (details["samples"], details["sweeps"]) == (2, 4)
    assert details["noise_levels"][-1] == 0
    assert len(details["prior"]["sha256"]) == 64
    assert details["prior"]["licences_of_data"] == ["CC0-1.0"]
    assert record["residual"]["relative_to_scan"] < EXACT


def test_maps_are_for_every_method(thick_scan, tmp_path):
    assert run("upsample", thick_scan, tmp_path / "thin.nii", "--method", "cubic", "--maps", "--quiet") == 0
    assert {"thin.nii", "thin.json", "thin_residual.nii", "thin_measured.nii"} <= {p.name for p in tmp_path.iterdir()}


def test_maps_are_not_overwritten_unasked(thick_scan, tmp_path, capsys):
    save(tmp_path / "thin_measured.nii.gz", head_phantom(), np.eye(4))
    assert run("upsample", thick_scan, tmp_path / "thin.nii.gz", "--method", "cubic", "--maps") == 3
    assert "thin_measured.nii.gz exists" in capsys.readouterr().err


def test_without_weights_nothing_else_is_done_instead(thick_scan, tmp_path, capsys):
    out = tmp_path / "thin.nii.gz"
    assert run("upsample", thick_scan, out, "--method", "focvs", "--prior", tmp_path / "nowhere") == 5
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "pass --prior with a checkpoint folder" in told
    assert not out.exists()


def test_a_damaged_prior_is_refused_as_input(thick_scan, tmp_path, capsys):
    (tmp_path / "broken").mkdir()
    assert run("upsample", thick_scan, tmp_path / "o.nii", "--method", "focvs", "--prior", tmp_path / "broken") == 3
    assert "config.json is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"method": "cubic", "prior": Path("p")},
            FlagConflict,
            "--prior would be ignored: it is for focvs, not --method cubic",
        ),
        (
            {"method": "eclare", "samples": 2},
            FlagConflict,
            "--samples would be ignored: it is for focvs, not",
        ),
        (
            {"method": "inverse", "noise_aware": True},
            FlagConflict,
            "--noise-aware would be ignored: it is for",
        ),
        ({"method": "eclare", "adapt_minutes": 2.0}, FlagConflict, "--adapt would be ignored: it is for focvs, not"),
        ({"method": "focvs", "adapt_minutes": 0.0}, InputRefused, "--adapt 0; expected minutes, more than 0"),
        ({"method": "focvs", "adapt_minutes": float("nan")}, InputRefused, "--adapt nan; expected minutes"),
        ({"method": "focvs", "samples": 0}, InputRefused, "--samples 0; expected at least 1"),
        ({"method": "focvs", "prior": Path("nowhere")}, WeightsMissing, "no prior weights in nowhere"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        throughplane.super_resolve(thick_head(5.0, 2), **arguments)


def test_without_diffusers_the_way_to_get_it_is_told(thick_scan, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("throughplane.sampling.find_spec", lambda _: None)
    assert run("upsample", thick_scan, tmp_path / "thin.nii.gz", "--method", "focvs") == 3
    assert "pip install 'throughplane[focvs]'" in capsys.readouterr().err


def test_the_dry_run_says_which_prior_and_how_many_samples(prior, thick_scan, tmp_path, capsys):
    flags = ["--method", "focvs", "--prior", prior, "--samples", 3, "--adapt", 2, "--dry-run"]
    assert run("upsample", thick_scan, tmp_path / "thin.nii.gz", *flags) == 0
    told = capsys.readouterr().err
    assert "3 samples, learns from the scan for 2 minutes" in told
    assert "preset standard" in told
