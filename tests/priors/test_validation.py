"""Scores with known values; the same slices and noise at every call; classical denoisers that denoise."""

from dataclasses import replace
from statistics import mean

import pytest
import torch

from benchmarks.prior_denoising import CLASSICAL, avoidable_gain, own_noise, rows, tuned, verdict
from priors.blocks import block_mean
from priors.planes import Plane
from priors.validation import FixedSlice, averaged, denoising_psnr, fixed_slices, head_psnr, mean_psnr_by_sigma
from tests.priors.conftest import TINY


@pytest.mark.parametrize(("offset", "expected_db"), [(0.1, 20.0), (0.01, 40.0), (-0.1, 20.0)])
def test_psnr_of_a_constant_offset_is_known(offset, expected_db):
    truth, head = torch.rand(8, 8, generator=torch.Generator().manual_seed(0)), torch.ones(8, 8, dtype=torch.bool)
    assert head_psnr(truth + offset, truth, head) == pytest.approx(expected_db, abs=1e-3)


def test_psnr_looks_at_the_head_only():
    truth, head = torch.zeros(8, 8), torch.zeros(8, 8, dtype=torch.bool)
    head[2:4] = True
    assert head_psnr(truth + 0.1 + ~head, truth, head) == pytest.approx(20.0, abs=1e-3)


def test_doing_nothing_scores_the_noise_level(corpus):
    slices = fixed_slices(corpus.validation)
    for sigma, db in mean_psnr_by_sigma(lambda x, *_: x, slices).items():
        pixels = sum(int(item.head.sum()) for item in slices)
        assert db == pytest.approx(-20 * torch.log10(torch.tensor(sigma)).item(), abs=4 * 8.7 / pixels**0.5)


def test_the_exact_denoiser_of_the_head_scores_above_doing_nothing(corpus):
    """And the score can tell: shrinking to the mean is worse at little noise, better at much."""
    edm, slices = TINY.preconditioning, fixed_slices(corpus.validation)

    def shrink(x, sigma, _plane):
        return edm.mean + edm.c_skip(torch.tensor(sigma)) * (x - edm.mean)

    nothing, shrunk = (mean_psnr_by_sigma(d, slices, (0.02, 0.5)) for d in (lambda x, *_: x, shrink))
    assert shrunk[0.5] > nothing[0.5] + 2
    assert shrunk[0.02] < nothing[0.02] + 0.1


def test_slices_and_noise_are_the_same_at_every_call(corpus):
    one, other = fixed_slices(corpus.validation), fixed_slices(corpus.validation)
    assert [(a.scan, a.plane) for a in one] == [("uih2_T1w.nii.gz", plane) for plane in Plane for _ in range(2)]
    assert all(torch.equal(a.clean, b.clean) and torch.equal(a.noise, b.noise) for a, b in zip(one, other, strict=True))
    assert not torch.equal(one[0].noise, one[1].noise)


def test_averaged_slices_have_means_and_noise_of_unit_variance(corpus):
    fine = fixed_slices(corpus.validation)
    coarse = averaged(fine, 2)
    assert [(a.scan, a.plane) for a in coarse] == [(b.scan, b.plane) for b in fine]
    for one, other in zip(fine, coarse, strict=True):
        assert torch.equal(other.clean, block_mean(one.clean[None], 2)[0])
    noise = torch.cat([item.noise.flatten() for item in coarse])
    assert float(noise.std()) == pytest.approx(1, abs=4 / (2 * len(noise)) ** 0.5)
    assert all(item.head.shape == item.clean.shape and item.head.any() for item in coarse)


def blocks():
    clean = torch.kron(torch.rand(4, 4, generator=torch.Generator().manual_seed(0)), torch.ones(16, 16))
    noise = torch.randn(64, 64, generator=torch.Generator().manual_seed(1))
    return FixedSlice("blocks", "T1w", Plane.AXIAL, clean, torch.ones(64, 64, dtype=torch.bool), noise)


@pytest.mark.parametrize("added", [0.0, 0.03])
def test_the_noise_of_a_scan_itself_is_found_where_tissue_is_flat(corpus, added):
    flat = torch.full((48, 48, 48), 0.5)
    flat[20:28] = torch.rand(8, 48, 48, generator=torch.Generator().manual_seed(0))  # busy tissue between
    noisy = (flat + added * torch.randn(flat.shape, generator=torch.Generator().manual_seed(1))).half()
    found = own_noise(replace(corpus.validation[0], voxels=noisy))
    assert found == pytest.approx(added, rel=0.08, abs=5e-4)


def test_a_gain_is_larger_in_what_can_be_avoided():
    """Sum of variances: the noise of the scan leaves 0.5 here, the better method 0.25 more and the other one 0.5."""
    ours, best = (-10 * torch.log10(torch.tensor(mse)).item() for mse in (0.75, 1.0))
    assert avoidable_gain(ours, best, 1.0, 1.0) == pytest.approx(10 * torch.log10(torch.tensor(2.0)).item(), rel=1e-5)
    assert avoidable_gain(ours, best, 0.0, 1.0) == pytest.approx(ours - best)


@pytest.mark.parametrize("method", list(CLASSICAL))
def test_classical_denoisers_denoise_at_the_setting_that_tuning_finds(method):
    chosen = tuned((blocks(),), 0.1)[method]
    scores = {name: mean(denoising_psnr(one, (blocks(),), 0.1)) for name, one in CLASSICAL[method].items()}
    assert scores[chosen] == max(scores.values())
    assert scores[chosen] > 20 + 4  # 20 dB is doing nothing


def test_the_table_has_means_per_scan_and_plane_and_names_the_gain_over_the_best_of_the_others():
    whole = replace(blocks(), scan="uih2_T1w.nii.gz", plane=Plane.CORONAL)
    noises = {"blocks": 0.0, "uih2_T1w.nii.gz": 0.0}
    table = rows({0.1: {"prior": (30.0, 32.0), "a": (27.0, 27.0), "b": (29.0, 31.0)}}, (blocks(), whole), noises)
    means = {row["slices"]: (row["prior"], row["gain"]) for row in table}
    assert means == {
        "T1w, brain, blocks": (30.0, 1.0),
        "T1w, whole head, uih2_T1w": (32.0, 1.0),
        "axial": (30.0, 1.0),
        "coronal": (32.0, 1.0),
        "all": (31.0, 1.0),
    }
    assert verdict(table).startswith("0 of 2 scans and noise levels are at least 1.5 dB above")
