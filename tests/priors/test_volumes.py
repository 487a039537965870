"""Published 3-D priors: schedules against the formulas and MONAI's own, networks that go to disk and come back."""

import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from forward_models import InputRefused
from priors import schedules
from priors.schedules import (
    FLOW,
    PREDICTIONS,
    RECTIFIED_FLOW,
    VELOCITY,
    PathPoint,
    on_linear_beta,
    on_straight_line,
    sigma_from_step,
    step_from_sigma,
)
from priors.volumes import VolumeConfig, VolumePrior, load_volume_prior, new_volume_network, save_volume_prior

SMALL = VolumeConfig(channels=(8, 8, 8), blocks_per_level=1)
PATHS = [on_linear_beta, on_straight_line]
INVERSES = [
    (schedules.epsilon_from_x0, schedules.x0_from_epsilon),
    (schedules.velocity_from_x0, schedules.x0_from_velocity),
    (schedules.flow_from_x0, schedules.x0_from_flow),
]
CORRECT = {  # what a network trained to perfection says of x0 and n, written down again
    "epsilon": lambda _x0, n, _at: n,
    "sample": lambda x0, _n, _at: x0,
    "velocity": lambda x0, n, at: at.signal * n - at.noise * x0,
    "flow": lambda x0, n, _at: n - x0,
    "rectified-flow": lambda x0, n, _at: x0 - n,
}


def drawn(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Oracle(nn.Module):
    """Knows x0, and answers as it should; remembers at which step it was asked."""

    def __init__(self, x0, prediction):
        super().__init__()
        self.x0, self.prediction, self.unused = x0, prediction, nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, z, step):
        self.step = float(step[0])
        if self.prediction is RECTIFIED_FLOW:
            at = PathPoint(1 - self.step / 1000, self.step / 1000, self.step)
        else:
            signal = (1 + sigma_from_step(self.step) ** 2) ** -0.5
            at = PathPoint(signal, (1 - signal**2) ** 0.5, self.step)
        n = (z[:, 0] - at.signal * self.x0) / at.noise
        return CORRECT[self.prediction.name](self.x0, n, at)[:, None]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("there", "back"), INVERSES)
@pytest.mark.parametrize("sigma", [0.02, 0.7, 40.0])
def test_predictions_and_x0_are_each_others_inverse(path, there, back, sigma):
    z, x0 = drawn(2, 50)
    torch.testing.assert_close(back(z, there(z, x0, path(sigma)), path(sigma)), x0)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", list(PREDICTIONS))
def test_what_a_perfect_network_says_becomes_x0(path, name):
    x0, n = drawn(2, 50)
    at = path(0.7)
    said = CORRECT[name](x0, n, at)
    torch.testing.assert_close(PREDICTIONS[name].x0(at.signal * x0 + at.noise * n, said, at), x0)


@given(st.floats(0.0101, 150.0))
def test_paths_are_at_the_noise_level_asked_for(sigma):
    for path in PATHS:
        assert path(sigma).noise / path(sigma).signal == pytest.approx(sigma, rel=1e-9)
    assert on_linear_beta(sigma).signal ** 2 + on_linear_beta(sigma).noise ** 2 == pytest.approx(1, rel=1e-12)
    assert on_straight_line(sigma).signal + on_straight_line(sigma).noise == pytest.approx(1, rel=1e-12)
    assert sigma_from_step(step_from_sigma(sigma)) == pytest.approx(sigma, rel=1e-9)


def test_the_schedule_is_the_one_that_monai_trains_with():
    from monai.networks.schedulers import DDPMScheduler

    kept = DDPMScheduler(
        num_train_timesteps=1000, schedule="linear_beta", beta_start=1e-4, beta_end=2e-2
    ).alphas_cumprod
    expected = torch.sqrt(1 / kept.double() - 1)
    torch.testing.assert_close(schedules.linear_beta_sigmas(), expected, rtol=1e-4, atol=0)  # theirs is float32
    assert [round(step_from_sigma(float(schedules.linear_beta_sigmas()[k])), 6) for k in (0, 1, 500, 999)] == [
        0,
        1,
        500,
        999,
    ]


def test_beyond_the_schedule_the_nearest_step_is_told():
    assert step_from_sigma(1e-6) == 0
    assert step_from_sigma(1e6) == 999


@pytest.mark.parametrize("prediction", PREDICTIONS.values(), ids=lambda p: p.name)
@pytest.mark.parametrize("sigma", [0.05, 1.0])
def test_a_perfect_network_gives_back_the_head_in_its_own_units(prediction, sigma):
    """RAS to LPS and back, the range of x to [-1, 1] and back, padding to 4 and back."""
    head, noise = drawn(2, 1, 8, 7, 6).abs()[0], drawn(1, 8, 7, 6, seed=1)
    in_network_units = 2 * head.flip(1, 2) / 1.3 - 1
    oracle = Oracle(torch.nn.functional.pad(in_network_units, (1, 1, 0, 1), mode="reflect"), prediction)
    prior = VolumePrior(oracle, VolumeConfig(channels=(8, 8, 8)), prediction).for_maximum(1.3)
    torch.testing.assert_close(prior.denoise(head + sigma * noise, sigma), head)
    expected = on_straight_line if prediction is RECTIFIED_FLOW else on_linear_beta
    assert oracle.step == pytest.approx(expected(2 / 1.3 * sigma).step, rel=1e-5)  # the step goes as float32


def test_the_wrong_prediction_type_would_show():
    head = drawn(1, 8, 8, 8).abs()
    oracle = Oracle(2 * head.flip(1, 2) / 1.1 - 1, FLOW)
    wrong = VolumePrior(oracle, VolumeConfig(channels=(8, 8, 8)), VELOCITY)
    assert float((wrong.denoise(head + 0.5 * drawn(1, 8, 8, 8, seed=1), 0.5) - head).abs().max()) > 0.1


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    small = new_volume_network(SMALL).eval().requires_grad_(False)
    for parameter in small.out.parameters():
        parameter.normal_(std=0.3)  # as after training: MONAI's last layer starts at 0
    return small


@pytest.fixture
def prior(network):
    return VolumePrior(network, SMALL, VELOCITY)


def same_on(prior, other):
    x = drawn(1, 9, 8, 8).float()
    assert prior.denoise(x, 0.3).shape == x.shape
    return torch.equal(prior.denoise(x, 0.3), other.denoise(x, 0.3))


def test_a_folder_comes_back_bit_for_bit(prior, tmp_path):
    save_volume_prior(tmp_path / "prior", prior)
    loaded = load_volume_prior(tmp_path / "prior")
    assert same_on(prior, loaded)
    assert (loaded.prediction, loaded.config, loaded.maximum) == (VELOCITY, SMALL, prior.maximum)


@pytest.mark.parametrize(
    "wrap", [dict, lambda s: {"model": s, "epoch": 3}, lambda s: {f"module.{k}": v for k, v in s.items()}]
)
def test_a_torch_file_of_tensors_is_read(prior, network, tmp_path, wrap):
    torch.save(wrap(network.state_dict()), tmp_path / "model.pt")
    assert same_on(prior, load_volume_prior(tmp_path / "model.pt", VELOCITY, SMALL))


def test_a_safetensors_file_is_read(prior, network, tmp_path):
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    assert same_on(prior, load_volume_prior(tmp_path / "weights.safetensors", VELOCITY, SMALL))


class Harmful:
    def __reduce__(self):
        return print, ("this ran",)


@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_a_file_that_could_run_code_is_refused_unrun(tmp_path, capsys, write):
    write({"model": Harmful()}, tmp_path / "model.pt")
    with pytest.raises(InputRefused, match=r"model.pt holds more than tensors, which could run code"):
        load_volume_prior(tmp_path / "model.pt", VELOCITY)
    assert capsys.readouterr().out == ""


def test_files_that_hold_no_such_network_are_refused(network, tmp_path):
    (tmp_path / "weights.pkl").touch()
    with pytest.raises(InputRefused, match=r"weights.pkl is no file of weights; expected .safetensors or .pt or .pth"):
        load_volume_prior(tmp_path / "weights.pkl", VELOCITY)
    with pytest.raises(InputRefused, match=r"nowhere.pt does not exist"):
        load_volume_prior(tmp_path / "nowhere.pt", VELOCITY)
    torch.save({"model": [1, 2]}, tmp_path / "list.pt")
    with pytest.raises(InputRefused, match=r"list.pt holds no state dict"):
        load_volume_prior(tmp_path / "list.pt", VELOCITY)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    with pytest.raises(InputRefused, match=r"does not hold the network .* has shape .*, expected \("):
        load_volume_prior(tmp_path / "model.pt", VELOCITY, VolumeConfig(channels=(8, 8, 16), blocks_per_level=1))
    with pytest.raises(InputRefused, match="does not say what its network predicts; give one of epsilon, sample"):
        load_volume_prior(tmp_path / "model.pt")


def test_folders_that_are_damaged_are_refused(prior, tmp_path):
    folder = tmp_path / "prior"
    save_volume_prior(folder, prior)
    with pytest.raises(InputRefused, match="says itself what its network is"):
        load_volume_prior(folder, VELOCITY)
    with (folder / "weights.safetensors").open("ab") as file:
        file.write(b" ")
    with pytest.raises(InputRefused, match=r"weights.safetensors has sha256 .* it was changed or damaged"):
        load_volume_prior(folder)
    (folder / "more.pt").touch()
    with pytest.raises(InputRefused, match=r"holds more.pt, which could run code when read"):
        load_volume_prior(folder)


def test_a_network_that_cannot_be_built_is_refused():
    with pytest.raises(InputRefused, match=r"monai cannot build the network VolumeConfig\(channels=\(9, 16\)"):
        new_volume_network(VolumeConfig(channels=(9, 16)))


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan")])
def test_a_noise_level_that_is_none_is_refused(prior, sigma):
    with pytest.raises(ValueError, match="expected a positive noise level"):
        prior.denoise(torch.zeros(1, 8, 8, 8), sigma)
