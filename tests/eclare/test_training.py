"""Training on one scan."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch

import eclare.network
import eclare.training
from eclare import EclareConfig, TrainingDiverged, train
from eclare.network import new_network
from eclare.pairs import Patches
from eclare.training import _Learner, _lessons, _Watch
from forward_models import Gaussian
from forward_models.progress import silent
from tests.conftest import head_phantom
from tests.eclare.conftest import TINY, stack_and_truth

PLAIN = replace(TINY, neighbours=0, refreshes=0)


def trained(stack, config=TINY, seed=0, progress=silent):
    return train(stack, config, generator=torch.Generator().manual_seed(seed), progress=progress)


def weights(training) -> torch.Tensor:
    return torch.cat([p.flatten() for p in training.network.parameters()])


@pytest.mark.parametrize("config", [TINY, PLAIN], ids=["neighbours", "single slices"])
def test_one_seed_gives_one_network(stack, config):
    first = weights(trained(stack, config))
    torch.manual_seed(99)  # nothing depends on the global generator
    assert torch.equal(first, weights(trained(stack, config)))
    assert not torch.equal(first, weights(trained(stack, config, seed=1)))


def test_the_global_generator_is_left_alone(stack):
    before = torch.get_rng_state()
    trained(stack)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("config", [TINY, PLAIN], ids=["neighbours", "single slices"])
def test_it_learns_what_interpolation_cannot(stack, config):
    config = replace(config, channels=16, patch_width=32, steps=150, averaged_over=20, check_every=50)
    training = trained(stack, config)
    assert training.held_out_rmse[-1] < 0.97 * training.interpolation_rmse  # measured: 0.92 to 0.95


def test_stages_are_told(stack):
    told = {}
    trained(stack, progress=lambda stage, done, total: told.update({stage: (done, total)}))
    assert set(told) == {"starting volume", "training", "refresh 1", "refresh 2"}
    assert all(done == total for done, total in told.values())


def test_each_refresh_learns_from_the_latest_result(stack, monkeypatch):
    learned_from = []

    def noted(volume, slices, *rest):
        learned_from.append((volume, slices))
        return _lessons(volume, slices, *rest)

    monkeypatch.setattr(eclare.training, "_lessons", noted)
    trained(stack)
    assert [grid for _, grid in learned_from] == [stack.selection.thin] * 3
    for volume, _ in learned_from:
        assert torch.allclose(stack.selection.apply(volume), stack.slices, atol=1e-5)  # explains the scan
    assert not torch.equal(learned_from[1][0], learned_from[2][0])


def test_single_slices_are_the_scans_own(stack, monkeypatch):
    learned_from = []
    monkeypatch.setattr(
        eclare.training, "_lessons", lambda volume, *rest: (learned_from.append(volume), _lessons(volume, *rest))[1]
    )
    trained(stack, PLAIN)
    assert len(learned_from) == 1
    assert torch.equal(learned_from[0], stack.slices)


def test_it_stops_when_nothing_is_left_to_learn():
    flat, _ = stack_and_truth(np.full((40, 44, 36), 9.0), Gaussian(3.0))
    training = trained(flat, replace(TINY, steps=300, check_every=5, patience=2))
    assert training.stopped_early
    assert 210 <= training.steps < 300  # at least two looks after the last refresh at 200
    assert len(training.held_out_rmse) == (training.steps - 200) // 5  # earlier patches were others


def test_the_schedule_ends_with_the_steps(stack):
    generator = torch.Generator().manual_seed(0)
    lessons = _lessons(stack.slices, stack.selection.thick, stack, PLAIN, generator)
    learner = _Learner(PLAIN, lessons.source, new_network(PLAIN, 4, generator))
    rates = []
    for _ in range(PLAIN.steps):
        rates.append(learner._optimiser.param_groups[0]["lr"])
        learner.learn(lessons.source.draw(PLAIN.batch, generator=generator))
    assert max(rates) == pytest.approx(PLAIN.learning_rate, rel=0.05)
    assert rates[-1] < 1e-3 * PLAIN.learning_rate


def test_the_weights_that_did_best_win():
    watch, network = _Watch(patience=2), torch.nn.Linear(1, 1)
    for error in (3.0, 1.0, 2.0):
        torch.nn.init.constant_(network.weight, error)
        watch.look(error, network)
    assert float(watch.best_weights["weight"]) == 1.0
    assert not watch.gave_up
    watch.look(2.0, network)
    assert watch.gave_up


def test_divergence_is_an_error(stack):
    with pytest.raises(TrainingDiverged, match=r"at step .*learning rate is too high"):
        trained(stack, replace(PLAIN, learning_rate=1e30, steps=60))


def test_one_bad_pair_does_not_undo_training(stack):
    """Without clipping it does: the same steps end worse than cubic interpolation."""
    generator = torch.Generator().manual_seed(0)
    lessons = _lessons(stack.slices, stack.selection.thick, stack, PLAIN, generator)
    pair = lessons.source.draw(PLAIN.batch, generator=generator)
    spike = Patches(pair.thick, 1e4 * pair.thin)
    errors = {}
    for clip in (PLAIN.clip, None):
        config = replace(PLAIN, clip=clip, steps=100)
        learner = _Learner(config, lessons.source, new_network(config, 4, torch.Generator().manual_seed(0)))
        for step in range(60):
            learner.learn(spike if step == 20 else pair)
        errors[clip] = learner.rmse(pair) / learner.interpolation_rmse(pair)
    assert errors[PLAIN.clip] < 0.9
    assert errors[None] > 1.5


def test_reduced_precision_is_close_to_float32(stack, monkeypatch):
    config = replace(TINY, steps=60)
    reduced = eclare.super_resolve(stack, trained(stack, config).network, config)
    monkeypatch.setattr(eclare.network, "reduced_precision", lambda _: nullcontext())
    full = eclare.super_resolve(stack, trained(stack, config).network, config)
    cubic = eclare.super_resolve(stack, trained(stack, replace(config, learning_rate=1e-12)).network, config)
    assert (reduced - full).norm() < 0.1 * (full - cubic).norm()  # training magnifies rounding a little


def test_published_settings_train(stack):
    config = replace(EclareConfig.as_published(), blocks=1, channels=8, batch=4, steps=6)
    training = trained(stack, config)
    assert training.steps == 6
    assert np.isfinite(training.held_out_rmse[-1])


@pytest.mark.slow
def test_the_result_is_nearer_to_the_truth_than_interpolation():
    stack, truth = stack_and_truth(head_phantom((64, 66, 60)), Gaussian(4.0))
    config = EclareConfig(channels=24, blocks=3, patch_width=48, steps=900, averaged_over=100)
    learned = eclare.super_resolve(stack, trained(stack, config).network, config).numpy()
    start = eclare.super_resolve(stack, trained(stack, replace(TINY, learning_rate=1e-12)).network, TINY).numpy()
    assert np.square(learned - truth).mean() < 0.8 * np.square(start - truth).mean()
