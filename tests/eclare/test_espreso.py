"""ESPRESO: the constraints on the profile hold by construction, and what the discriminator compares is comparable."""

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
    off_peak,
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

QUICK = EspresoConfig(warm_up=2, steps=3, batch=2, seeds=2)


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


def test_penalties_are_nothing_for_a_narrow_peak_and_something_for_wide_or_hollow_ones():
    narrow, wide, hollow = taps_of(Gaussian(4.0)), torch.full((TAPS,), 1 / TAPS), taps_of(Gaussian(4.0)).roll(4)
    hollow = (hollow + hollow.flip(0)) / 2
    assert float(at_ends(narrow)) < 1e-6
    assert float(at_ends(wide)) == pytest.approx(4 / TAPS)
    assert float(off_peak(narrow)) == 0
    assert float(off_peak(hollow)) > 0.1


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


@pytest.mark.parametrize(("profile", "alike"), [(Gaussian(5.0), True), (Gaussian(1.4), False), (Gaussian(9.0), False)])
def test_fake_lines_vary_like_real_ones_for_the_true_profile_alone(scan, profile, alike):
    source = PatchSource.of(scan, acquisition_of(scan))
    patches = source.draw(400, torch.Generator().manual_seed(0))
    fake, real = source.lines(patches, taps_of(profile))
    ratio = float(fake.diff(dim=1).square().mean() / real.diff(dim=1).square().mean())
    assert (abs(np.log(ratio)) < 0.15) == alike  # one random field varies by some per cent between axes


@pytest.mark.parametrize("profile", [Gaussian(5.0), slr(5.0), Box(6.0)], ids=lambda profile: profile.name)
def test_the_kernel_found_is_turned_into_the_profile_it_comes_from(profile):
    assert slice_profile(taps_of(profile), 1.0).variance_mm2 == pytest.approx(profile.variance_mm2, rel=0.08)


def test_it_returns_a_profile_and_how_it_came_to_it(scan):
    profile, trace = espreso(scan, config=QUICK)
    assert profile.fwhm_mm == trace.fwhm_mm
    assert [len(history) for history in trace.histories_mm] == [3, 3]
    assert trace.repeatability_mm[0] <= trace.repeatability_mm[1]


def test_a_profile_that_never_left_its_start_is_not_trusted(scan):
    _, trace = espreso(scan, config=EspresoConfig(steps=1, batch=2))
    assert not trace.informative
    assert "did not learn" in trace.doubts[0]


def test_the_same_seed_gives_the_same_profile_and_the_global_generator_is_left_alone(scan):
    state = torch.random.get_rng_state()
    first, second, other = (
        espreso(scan, config=QUICK, generator=torch.Generator().manual_seed(seed))[0].weights for seed in (1, 1, 2)
    )
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_few_slices_are_refused(scan):
    few = volume_from_image(nib_image(scan.data[:, :, :11], (1.0, 1.0, 4.0)), None)
    with pytest.raises(InputRefused, match="11 slices; ESPRESO needs at least 12"):
        espreso(few)
