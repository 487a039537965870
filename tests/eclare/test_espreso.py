"""ESPRESO: the constraints on the profile hold by construction, and what the discriminator compares is comparable."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from eclare import EspresoConfig, espreso
from eclare.espreso import (
    TAPS,
    Discriminator,
    Generator,
    PatchSource,
    at_ends,
    cubic_weights,
    slice_profile,
)
from forward_models import (
    Box,
    Gaussian,
    InputRefused,
    SliceGrid,
    Volume,
    acquisition_of,
    simulate,
    slr,
    volume_from_image,
)
from forward_models.profiles import integrate, thin_to_thick
from tests.conftest import nib_image
from tests.eclare.test_profile_estimation import texture

QUICK = EspresoConfig(warm_up=2, steps=3, batch=8, seeds=2)


def taps_of(profile) -> torch.Tensor:
    """The kernel from 1 mm voxels to slices of `profile`."""
    offsets = np.arange(TAPS) - TAPS // 2
    weights = integrate(thin_to_thick(profile, 1.0), np.zeros(1), offsets.astype(float))[0]
    return torch.from_numpy(weights / weights.sum()).float()


@pytest.fixture(scope="module")
def scan() -> Volume:
    thin = volume_from_image(nib_image(texture((100, 104, 96))), None)
    return simulate(thin, Gaussian(5.0), -1.0, axis=2)


def test_proposed_profiles_are_positive_symmetric_and_sum_to_one():
    taps = Generator(torch.Generator().manual_seed(0))().detach()
    assert taps.shape == (TAPS,)
    assert taps.min() > 0
    assert float(taps.sum()) == pytest.approx(1.0, abs=1e-6)
    assert torch.equal(taps, taps.flip(0))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_proposed_profiles_are_log_concave(seed):
    taps = Generator(torch.Generator().manual_seed(seed))().detach()
    spike_on_a_pedestal = torch.tensor([0.1, 0.1, 0.6, 0.1, 0.1])
    assert taps.log().diff(n=2).max() < 1e-4  # rounding
    assert spike_on_a_pedestal.log().diff(n=2).max() > 1


def test_the_penalty_is_nothing_for_a_narrow_profile_and_something_for_a_wide_one():
    assert float(at_ends(taps_of(Gaussian(4.0)))) < 1e-6
    assert float(at_ends(torch.full((TAPS,), 1 / TAPS))) == pytest.approx(4 / TAPS)


def test_the_discriminator_sees_lines_only():
    judge = Discriminator(torch.Generator().manual_seed(0)).eval()
    lines = torch.randn(6, 16, generator=torch.Generator().manual_seed(1))
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    assert judge(lines[order]).detach().numpy() == pytest.approx(judge(lines).detach()[order].numpy(), abs=1e-5)
    assert judge(lines).shape == (6, 1, 6)


def test_lines_are_sampled_where_slices_lie():
    voxels, slices = SliceGrid(60, 0.9), SliceGrid(16, 3.1)
    weights = cubic_weights(voxels, slices).double().numpy()
    for power in (0, 1, 2):  # what Keys' cubic reproduces
        assert weights @ voxels.centres_mm**power == pytest.approx(slices.centres_mm**power, abs=1e-3)


@pytest.mark.parametrize("spacing_mm", [2.0, 4.0])
def test_integer_ratios_need_no_interpolation(scan, spacing_mm):
    thin = replace(scan, data=scan.data, affine=scan.affine @ np.diag([1, 1, spacing_mm / 4, 1]))
    weights = PatchSource.of(thin, acquisition_of(thin)).sample
    assert weights.max(dim=1).values.numpy() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(("profile", "alike"), [(Gaussian(5.0), True), (Gaussian(1.4), False), (Gaussian(9.0), False)])
def test_fake_lines_vary_like_real_ones_for_the_true_profile_alone(scan, profile, alike):
    fake, real = lines_of(scan, profile)
    ratio = float(fake.diff(dim=1).square().mean() / real.diff(dim=1).square().mean())
    assert (abs(np.log(ratio)) < 0.15) == alike  # one random field varies by some per cent between axes


def test_detail_is_as_large_as_the_discriminator_needs_it_however_faint_it_is_in_the_scan(scan):
    faint = replace(scan, data=np.asarray(5000 + scan.data, np.float32))
    for volume in (scan, faint):
        assert float(lines_of(volume, Gaussian(1.4))[0].diff(dim=1).square().mean().sqrt()) > 0.5


def lines_of(volume, profile) -> tuple[torch.Tensor, torch.Tensor]:
    """4000 fake lines and as many real ones."""
    source, generator = PatchSource.of(volume, acquisition_of(volume)), torch.Generator().manual_seed(0)
    return source.fake(4000, taps_of(profile), generator), source.real(4000, 4, taps_of(profile), generator)


@pytest.mark.parametrize("profile", [Gaussian(5.0), slr(5.0), Box(6.0)], ids=lambda profile: profile.name)
def test_the_kernel_found_is_turned_into_a_profile_as_wide_as_the_one_it_comes_from(profile):
    assert slice_profile(taps_of(profile), 1.0).variance_mm2 == pytest.approx(profile.variance_mm2, rel=0.08)


def test_it_returns_a_profile_and_how_it_came_to_it(scan):
    profile, trace = espreso(scan, config=QUICK)
    assert profile.fwhm_mm == trace.fwhm_mm
    assert [len(history) for history in trace.histories_mm] == [4, 4]
    assert trace.repeatability_mm[0] <= trace.repeatability_mm[1]
    assert trace.plausible_mm[0] < trace.repeatability_mm[0]  # a gaussian of this standard deviation
    assert trace.plausible_mm[1] > trace.repeatability_mm[1]  # a box


def test_a_profile_that_never_left_its_start_is_not_trusted(scan):
    _, trace = espreso(scan, config=EspresoConfig(steps=1, batch=8))
    assert not trace.informative
    assert "did not learn" in trace.doubts[0]


def test_the_same_seed_gives_the_same_profile_and_the_global_generator_is_left_alone(scan):
    state = torch.random.get_rng_state()
    first, second, other = (
        espreso(scan, config=QUICK, generator=torch.Generator().manual_seed(seed))[0].fwhm_mm for seed in (1, 1, 2)
    )
    assert first == second != other
    assert torch.equal(torch.random.get_rng_state(), state)


def test_generators_of_other_devices_are_left_alone(monkeypatch):
    seeds = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    Discriminator(torch.Generator().manual_seed(0))
    assert seeds == []
    torch.manual_seed(5)  # the broken twin reaches them
    assert seeds == [5]


def test_few_slices_are_refused(scan):
    few = volume_from_image(nib_image(scan.data[:, :, :11], (1.0, 1.0, 4.0)), None)
    with pytest.raises(InputRefused, match="11 slices; ESPRESO needs at least 12"):
        espreso(few)
