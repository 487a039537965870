"""Training learns, resumes bit for bit, stops when asked, and says what went wrong."""

import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace

import pytest
import torch

from forward_models import InputRefused
from priors import pace
from priors.checkpoint import load_checkpoint, load_train_state, save_checkpoint
from priors.denoiser import new_denoiser
from priors.learner import new_learner
from priors.loss import denoising_loss
from priors.muon import Muon
from priors.pace import Schedule, WorkClock, stop_on_signal
from priors.patches import PatchConfig, Patches, collate
from priors.training import train
from tests.priors.conftest import TINY, TINY_TRAINING, save_heads
from throughplane import prior_commands
from throughplane.cli import main


def state_of(out):
    tensors, numbers = load_train_state(out / "latest")
    return tensors, {key: value for key, value in numbers.items() if key != "worked_minutes"}


def same(one, other):
    (tensors, numbers), (other_tensors, other_numbers) = one, other
    equal = [torch.equal(tensor, other_tensors[name]) for name, tensor in tensors.items()]
    return numbers == other_numbers and tensors.keys() == other_tensors.keys() and all(equal)


@pytest.fixture(scope="module")
def four_steps(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    train(TINY_TRAINING, Schedule(last_step=4), corpus, out)
    return out


LAYOUT = replace(TINY_TRAINING, patches=PatchConfig(size=16, pixel_mm=4))


def test_a_prior_of_large_pixels_resumes_bit_for_bit_and_says_how_large_they_are(corpus, tmp_path):
    train(LAYOUT, Schedule(last_step=4), corpus, tmp_path / "four")
    for last in (2, 4):
        train(LAYOUT, Schedule(last_step=last), corpus, tmp_path / "two")
    (resumed, _), (at_once, _) = state_of(tmp_path / "two"), state_of(tmp_path / "four")
    assert all(torch.equal(tensor, at_once[name]) for name, tensor in resumed.items())
    loaded = load_checkpoint(tmp_path / "two" / "best")
    assert loaded.preprocess["spacing_mm"] == loaded.data["spacing_mm"] == 4.0
    card = (tmp_path / "two" / "best" / "README.md").read_text()
    assert all(words in card for words in ("4 mm pixels", "16 x 16 pixels", "3.6 to 4.8 mm were not seen"))


def test_a_run_of_a_version_without_pixel_sizes_goes_on(corpus, four_steps, tmp_path):
    train(TINY_TRAINING, Schedule(last_step=2), corpus, tmp_path)
    path = tmp_path / "latest" / "config.json"
    config = json.loads(path.read_text())
    assert config["training"]["patches"].pop("pixel_mm") == 1
    path.write_text(json.dumps(config))
    with pytest.raises(InputRefused, match="other configuration: training is"):
        train(LAYOUT, Schedule(last_step=4), corpus, tmp_path)
    train(TINY_TRAINING, Schedule(last_step=4), corpus, tmp_path)
    assert same(state_of(tmp_path), state_of(four_steps))


WITH_MUON = replace(TINY_TRAINING, kernel_learning_rate=1e-3)


@pytest.mark.parametrize("config", [TINY_TRAINING, WITH_MUON], ids=["Adam", "Muon"])
@pytest.mark.parametrize(
    "forgets", [None, torch.optim.Adam, Muon], ids=lambda kind: "" if kind is None else kind.__name__
)
def test_only_a_forgetful_optimiser_resumes_otherwise(corpus, tmp_path, monkeypatch, config, forgets):
    """The broken twin makes the same two calls, the moments of one optimiser lost in between."""
    train(config, Schedule(last_step=4), corpus, tmp_path / "four")
    train(config, Schedule(last_step=2), corpus, tmp_path / "two")
    if forgets is not None:
        monkeypatch.setattr(forgets, "load_state_dict", lambda *_: None)
    train(config, Schedule(last_step=4), corpus, tmp_path / "two")
    unharmed = forgets is None or (forgets is Muon and config is TINY_TRAINING)
    assert same(state_of(tmp_path / "two"), state_of(tmp_path / "four")) == unharmed


def test_training_leaves_a_checkpoint_that_loads_and_a_log(corpus, four_steps):
    latest, best = load_checkpoint(four_steps / "latest"), load_checkpoint(four_steps / "best")
    assert latest.data == best.data == corpus.record()
    assert latest.config["reached"]["step"] == 4
    assert not (four_steps / "best" / "train_state.safetensors").exists()
    lines = [json.loads(line) for line in (four_steps / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["validation_psnr_db"].keys() == {"0.05", "0.1", "0.2", "0.5"}
    card = (four_steps / "latest" / "README.md").read_text()
    assert all(word in card for word in ("philips_T1w.nii.gz", "BSD-2-Clause", "uih2", "Faces", "4 steps"))


def test_the_weights_kept_are_averages(four_steps):
    tensors, _ = load_train_state(four_steps / "latest")
    kept = load_checkpoint(four_steps / "latest").prior.network.state_dict()
    assert all(torch.equal(kept[name], tensors[f"ema/{name}"]) for name in kept)
    assert any(not torch.equal(kept[name], tensors[f"network/{name}"]) for name in kept)


@pytest.mark.parametrize("kernel_learning_rate", [None, 3e-3], ids=["Adam", "Muon"])
def test_the_loss_falls(corpus, tmp_path, kernel_learning_rate):
    config = replace(TINY_TRAINING, batch_size=8, learning_rate=3e-3, kernel_learning_rate=kernel_learning_rate)
    train(config, Schedule(last_step=25), corpus, tmp_path)
    patches = Patches(corpus.train, corpus.label_maps, config.patches, seed=99)
    batch = replace(collate([patches[i] for i in range(64)]), sigma=torch.full((64,), 0.5))
    trained, untrained = load_checkpoint(tmp_path / "latest").prior.network, new_denoiser(TINY)
    with torch.no_grad():
        before, after = (denoising_loss(net, TINY.preconditioning, batch) for net in (untrained, trained))
    assert float(after) < 0.8 * float(before)


def test_a_silent_network_has_loss_one_on_gaussian_patches():
    edm = TINY.preconditioning
    generator = torch.Generator().manual_seed(0)
    items = [
        (
            edm.mean + edm.sigma_data * torch.randn(32, 32, generator=generator),
            torch.randn(32, 32, generator=generator),
            sigma,
            0,
            0,
        )
        for sigma in (0.01, 0.3, 5.0)
    ]

    def silent(x, sigma, _plane):
        return edm.mean + edm.c_skip(sigma[:, None, None]) * (x - edm.mean)

    assert float(denoising_loss(silent, edm, collate(items))) == pytest.approx(1, abs=4 * (2 / (3 * 1024)) ** 0.5)


def test_a_loss_that_is_not_finite_says_where(corpus, tmp_path):
    scans = tuple(replace(scan, voxels=scan.voxels * float("nan")) for scan in corpus.train)
    spoilt = replace(corpus, train=scans, label_maps=())
    with pytest.raises(FloatingPointError, match=r"loss is nan at step 0; patches of .*_T.w.nii.gz; sigma \d"):
        train(TINY_TRAINING, Schedule(last_step=2), spoilt, tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_training_with_a_checkpoint(corpus, tmp_path, number):
    def stop(progress):
        if progress.step == 2:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    train(TINY_TRAINING, Schedule(last_step=50), corpus, tmp_path, report=stop)
    assert state_of(tmp_path)[1]["step"] == 3
    assert signal.getsignal(number) is before


def test_a_signal_to_workers_too_ends_training_with_a_checkpoint(corpus, tmp_path):
    """As from a terminal or a scheduler, which signal the whole group."""

    def stop(progress):
        if progress.step == 2:
            for worker in multiprocessing.active_children():
                os.kill(worker.pid, signal.SIGTERM)
            time.sleep(0.3)
            os.kill(os.getpid(), signal.SIGTERM)

    train(TINY_TRAINING, Schedule(last_step=50, workers=1), corpus, tmp_path, report=stop)
    assert state_of(tmp_path)[1]["step"] == 3


def test_without_a_signal_nothing_stops():
    with stop_on_signal() as stopping:
        assert not stopping()


def test_killed_between_its_two_checkpoints_training_loses_no_best_weights(corpus, tmp_path, monkeypatch):
    written = []

    def killed(folder, *content):
        if written:
            raise KeyboardInterrupt
        save_checkpoint(folder, *content)
        written.append(folder)

    monkeypatch.setattr("priors.training.save_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        train(TINY_TRAINING, Schedule(last_step=2), corpus, tmp_path)
    assert load_checkpoint(tmp_path / "best").config["reached"]["step"] == 2
    assert not (tmp_path / "latest").exists()  # so that nothing remembers a better one


def test_a_folder_of_something_else_is_refused_before_training(corpus, tmp_path):
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "thesis.txt").touch()
    with pytest.raises(InputRefused, match=r"best holds files and no config.json"):
        train(TINY_TRAINING, Schedule(last_step=1), corpus, tmp_path, report=pytest.fail)


def test_other_settings_or_data_do_not_continue_a_run(corpus, four_steps):
    with pytest.raises(InputRefused, match=r"trained with other configuration: training is .* --start-from"):
        train(replace(TINY_TRAINING, learning_rate=1.0), Schedule(last_step=5), corpus, four_steps)
    with pytest.raises(InputRefused, match="trained with other data: label_maps is"):
        train(TINY_TRAINING, Schedule(last_step=5), replace(corpus, label_maps=()), four_steps)


def test_a_new_run_starts_from_the_weights_it_is_given(corpus, four_steps, tmp_path):
    config = replace(TINY_TRAINING, learning_rate=5e-4)
    learner = new_learner(config, corpus, tmp_path / "latest", start_from=four_steps / "latest")
    kept = load_checkpoint(four_steps / "latest").prior.network.state_dict()
    assert learner.step == 0
    assert [run["patches"] for run in learner.before] == [8]
    assert all(torch.equal(tensor, kept[name]) for name, tensor in learner.network.state_dict().items())


def test_the_seed_draws_the_weights_and_no_global_seed_is_set(corpus, tmp_path, monkeypatch):
    torch.manual_seed(TINY_TRAINING.seed)
    expected = new_denoiser(TINY).state_dict()
    before, seeds = torch.get_rng_state(), []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    network = new_learner(TINY_TRAINING, corpus, tmp_path / "latest", None).network
    assert all(torch.equal(tensor, expected[name]) for name, tensor in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), before)
    assert seeds == []


def test_earlier_runs_are_told_by_the_card_of_the_last(corpus, four_steps, tmp_path):
    """Over a resume and a further start."""
    for last in (1, 2):
        train(TINY_TRAINING, Schedule(last_step=last), corpus, tmp_path / "second", start_from=four_steps / "latest")
    train(TINY_TRAINING, Schedule(last_step=1), corpus, tmp_path / "third", start_from=tmp_path / "second" / "latest")
    before = load_checkpoint(tmp_path / "third" / "latest").config["before"]
    assert [run["patches"] for run in before] == [8, 4]
    assert "after 12 patches of earlier runs" in (tmp_path / "third" / "latest" / "README.md").read_text()
    assert "earlier runs" not in (four_steps / "latest" / "README.md").read_text()


def test_a_pause_does_not_count_as_work(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])
    clock = WorkClock(5.0)
    for passed in (60.0, 60.0, 36_000.0, 60.0):  # seconds; the third was a night
        now[0] += passed
        clock.tick()
    assert 5 + 4 <= clock.minutes <= 5 + 3 + pace.PAUSE
    now[0] += 600
    clock.skip()
    assert clock.minutes <= 5 + 3 + pace.PAUSE


def test_limits_end_training_and_time_left_follows_from_the_pace():
    assert Schedule(time_limit_minutes=5.0).is_over(step=1, minutes=5.1)
    assert Schedule(last_step=10).is_over(step=10, minutes=0.0)
    assert not Schedule().is_over(step=10**9, minutes=1e9)
    assert Schedule().minutes_left(step=5, first_step=0, minutes=5.0) is None
    assert Schedule(time_limit_minutes=60.0, last_step=40).minutes_left(step=20, first_step=10, minutes=5.0) == 10


def test_the_command_trains_resumes_and_refuses(tmp_path, capsys, monkeypatch):
    heads = save_heads(tmp_path / "heads")
    monkeypatch.setattr(prior_commands, "training_config", lambda flags: replace(TINY_TRAINING, seed=flags.seed))
    arguments = ["train-prior", str(heads), str(tmp_path / "out"), "--seed", "3", "--no-sample-sheets"]
    assert main([*arguments, "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["split"]["validation"] == ["uih2"]
    assert not (tmp_path / "out").exists()
    assert main([*arguments, "--last-step", "1"]) == 0
    assert main([*arguments, "--last-step", "2"]) == 0
    assert "step 2: 4 patches" in capsys.readouterr().out
    assert main(["train-prior", str(tmp_path / "nowhere"), str(tmp_path / "out")]) == 3
    assert "nowhere does not exist" in capsys.readouterr().err
