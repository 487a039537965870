"""`upsample --method focvs --with`: samples of a prior that explain several scans of one head."""

import json
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import eclare
import focvs
import throughplane
from forward_models import Gaussian, truth_for
from forward_models.placed import placed
from forward_models.progress import silent
from forward_models.stack import stack_of
from tests.conftest import head_phantom
from tests.throughplane.test_focvs import EXACT, untrained_prior
from tests.throughplane.test_together import GAP, HEAD, THICKNESS, TRUTH, error, refusal, run, scan_file
from throughplane import sampling_together
from throughplane.pipeline import How, expected_seconds, plan
from throughplane.reading import Acquired, read_other, read_scan
from throughplane.sampling import eclare_start
from throughplane.sampling_together import said_by_all, step_for_all
from throughplane.together import measured_from

EXPLAINED = 0.02  # of the second scan: interpolation and damping leave less


@pytest.fixture(scope="module")
def prior(tmp_path_factory) -> Path:
    return untrained_prior(tmp_path_factory.mktemp("priors") / "tiny")


@pytest.fixture(autouse=True)
def few_steps(monkeypatch) -> None:
    """Preset fast starts from noise, the others from an estimate."""
    quick = {name: replace(config, steps=3, from_estimate=name != "fast") for name, config in focvs.PRESETS.items()}
    monkeypatch.setattr(focvs, "PRESETS", quick)


@pytest.fixture
def axial(tmp_path) -> Path:
    return scan_file(tmp_path / "axial.nii.gz", 2)


@pytest.fixture
def sagittal(tmp_path) -> Path:
    return scan_file(tmp_path / "sagittal.nii.gz", 0)


def drawn(prior: Path, scan: Path, *others: Path, **how):
    how = {"preset": "fast", "spacing_mm": 1.0} | how
    return throughplane.super_resolve(scan, others=others, method="focvs", prior=prior, **how)


def check_both_explained(result) -> None:
    assert result.record["residual"]["relative_to_scan"] < EXACT
    left = result.record["others"][0]["residual"]["relative_to_scan"]
    assert left < EXPLAINED, f"the second scan is missed by {left:.3f} of it"


def test_a_sample_explains_both_scans_and_beats_those_of_either(prior, axial, sagittal):
    both = drawn(prior, axial, sagittal)
    check_both_explained(both)
    assert error(both.image) < 0.9 * error(drawn(prior, axial).image)
    of_sagittal = truth_for(HEAD, Gaussian(THICKNESS), GAP, 0)
    assert error(both.image) < 0.9 * error(drawn(prior, sagittal).image, of_sagittal)


def test_the_check_rejects_a_step_that_forgets_the_second_scan(prior, axial, sagittal, monkeypatch):
    monkeypatch.setattr(sampling_together, "step_for_all", lambda *_: focvs.smooth)
    with pytest.raises(AssertionError, match="the second scan is missed"):
        check_both_explained(drawn(prior, axial, sagittal))


@pytest.fixture
def finer(tmp_path) -> tuple[Path, Path]:
    """Two scans of 0.8 mm in plane, which is finer than the prior's voxels."""
    data = np.pad(head_phantom((42, 44, 40)), 2)
    fine = replace(HEAD, data=data, affine=HEAD.affine @ np.diag([0.8, 0.8, 0.8, 1.0]))
    first, second = (scan_file(tmp_path / f"{axis}.nii.gz", axis, head=fine) for axis in (2, 0))
    return first, second


def check_explained_on_own_grid(result) -> None:
    assert result.record["method_details"]["prior_voxel_mm"] == (1.0, 1.0, 1.0)
    check_both_explained(result)


def test_both_are_explained_where_the_prior_works_on_another_grid(prior, finer):
    check_explained_on_own_grid(drawn(prior, *finer, spacing_mm=0.8))


def test_the_check_rejects_a_draw_that_is_joint_on_the_grid_of_the_prior_only(prior, finer, monkeypatch):
    def only_there(lattice, others, last_level, stack):
        own = stack.in_plane_mm[0] < 0.9
        return focvs.smooth if own else step_for_all(lattice, others, last_level, stack)

    monkeypatch.setattr(sampling_together, "step_for_all", only_there)
    with pytest.raises(AssertionError, match="the second scan is missed"):
        check_explained_on_own_grid(drawn(prior, *finer, spacing_mm=0.8))


def test_the_mean_of_samples_explains_both_and_its_spread_is_not_told(prior, axial, sagittal):
    result = drawn(prior, axial, sagittal, samples=2)
    assert result.record["method_details"]["samples"] == 2
    assert result.sd is None
    check_both_explained(result)


def test_what_sampling_starts_from_is_made_of_both_scans(axial, sagittal):
    """Closer to the head than what the taught network makes of the first, and explaining both."""
    scan, estimate = read_scan(axial, Acquired()), partial(eclare_start, eclare.load_starting_network(), "instant")
    planned = plan(scan, How(method="inverse", spacing_mm=1.0), [read_other(sagittal)])
    first = placed(stack_of(scan.volume, scan.acquisition, 1.0), scan.volume)
    one = estimate(first.stack, silent)
    of_all = said_by_all(estimate, first.slices, planned.others, first.stack, silent)
    truth = torch.from_numpy(first.stack.order.apply(TRUTH.data).copy()) / first.stack.scale
    assert (of_all - truth).norm() < 0.9 * (one - truth).norm()
    (measured,) = measured_from(first, planned.others)
    assert measured.mismatch(of_all).norm() < EXPLAINED * measured.slices.norm()


def test_the_command_writes_the_maps_and_the_record_of_both(prior, axial, sagittal, tmp_path):
    out = tmp_path / "out.nii.gz"
    flags = ["--method", "focvs", "--prior", prior, "--preset", "fast", "--maps", "--quiet"]
    assert run("upsample", axial, out, "--with", sagittal, *flags) == 0
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["others"][0]["residual"]["relative_to_scan"] < EXPLAINED
    assert record["method_details"]["prior"]["sha256"]
    assert nib.load(tmp_path / "out_residual_2.nii.gz").shape == nib.load(sagittal).shape


def test_more_scans_are_announced_as_more_time_and_memory(prior, axial, sagittal, monkeypatch):
    """On a machine that takes a second for each piece that is timed, however busy this one is."""
    for timing in ("throughplane.sampling", "throughplane.together", "throughplane.methods", "eclare.expected"):
        monkeypatch.setattr(import_module(timing), "seconds_of", lambda _work, _device: 1.0)
    scan, how = read_scan(axial, Acquired()), How(method="focvs", prior=prior, preset="fast")
    one, two = plan(scan, how), plan(scan, how, [read_other(sagittal)])
    assert expected_seconds(two) > 1.3 * expected_seconds(one)
    assert two.memory_bytes > one.memory_bytes


def test_the_spread_is_not_written_for_several_scans(prior, axial, sagittal, tmp_path, capsys):
    flags = ["--method", "focvs", "--prior", prior, "--preset", "fast", "--samples", 2, "--maps"]
    told = refusal(capsys, tmp_path, 2, axial, tmp_path / "out.nii.gz", "--with", sagittal, *flags)
    assert "--maps with --samples 2 would write OUT_std" in told


def test_noise_aware_is_refused(prior, axial, sagittal, tmp_path, capsys):
    flags = ["--method", "focvs", "--prior", prior, "--noise-aware"]
    told = refusal(capsys, tmp_path, 2, axial, tmp_path / "out.nii.gz", "--with", sagittal, *flags)
    assert "--with and --noise-aware contradict each other" in told
