"""Watching a training run shows what happens, and changes nothing."""

import pytest
import torch
from matplotlib.image import imread
from safetensors.torch import load_file

from priors.corpus import read_corpus
from priors.pace import Schedule
from priors.training import Progress, train
from tests.priors.conftest import TINY_TRAINING, save_heads
from throughplane import commands
from throughplane.cli import main
from throughplane.prior_samples import Drawing
from throughplane.training_watch import draws_sheets, plots_curves, print_line

SMALL = Drawing(slices=2, size=32, steps=2, seed=0)


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    return save_heads(tmp_path_factory.mktemp("data") / "heads")


def test_a_watched_run_makes_the_same_weights_and_a_sheet_per_checkpoint(heads, tmp_path):
    one_step = Schedule(last_step=1)
    corpus = read_corpus([heads])
    unwatched = train(TINY_TRAINING, one_step, corpus, tmp_path / "unwatched")
    watched = train(TINY_TRAINING, one_step, corpus, tmp_path / "out", report=draws_sheets(tmp_path / "out", SMALL))
    one, other = (load_file(folder / "train_state.safetensors") for folder in (unwatched, watched))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    (sheet,) = (tmp_path / "out" / "samples").iterdir()
    assert sheet.name == "step_00000001.png"
    assert imread(sheet).shape[:2] == (3 * 16, 2 * 16)  # three planes below each other, at half size


def test_curves_hold_what_was_told(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with plots_curves(tmp_path) as told:
        told(Progress(19, 38, 0.5, 1.0, None))  # neither a multiple of 20 nor a checkpoint
        told(Progress(20, 40, 0.25, 1.0, None))
        told(Progress(21, 42, 0.125, 1.0, None, psnr={0.1: 25.0}))
    log = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(point.step, point.value) for point in log.Scalars("loss")] == [(20, 0.25), (21, 0.125)]
    assert [(p.step, p.value) for p in log.Scalars("validation PSNR in dB/sigma 0.1")] == [(21, 25.0)]


def test_lines_come_every_twenty_steps_and_with_checkpoints(capsys):
    for step in (19, 20, 21):
        print_line(Progress(step, 2 * step, 0.25, 1.0, 3.0, psnr={0.1: 25.0} if step == 21 else None))
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["step 20", "step 21"]


@pytest.mark.parametrize(
    ("missing", "flags", "message"),
    [
        ("tensorboard", ["--tensorboard"], r"--tensorboard needs tensorboard; run: pip install"),
        ("matplotlib", [], r"leave them out with --no-sample-sheets"),
    ],
)
def test_what_is_not_installed_is_said_before_the_work_starts(
    heads, tmp_path, capsys, monkeypatch, missing, flags, message
):
    found = commands.find_spec
    monkeypatch.setattr(commands, "find_spec", lambda name: None if name == missing else found(name))
    assert main(["train-prior", str(heads), str(tmp_path / "out"), *flags]) == 3
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
