"""`throughplane prior` and `train-prior`: what they tell, and one line for everything they refuse."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import torch
from matplotlib.image import imread

from forward_models import InputRefused, file_sha256
from priors import shipped
from priors.card import add_evaluation
from priors.checkpoint import load_checkpoint, load_train_state, save_checkpoint
from priors.configs import HEAD_2D_LAYOUT, RECIPES
from priors.corpus import read_corpus
from priors.learner import TrainingConfig, config_record
from priors.pace import Schedule
from priors.patches import PatchConfig
from priors.planes import Plane
from priors.schedules import VELOCITY
from priors.training import train
from priors.volumes import VolumeConfig, VolumePrior, new_volume_network, save_volume_prior
from tests.priors.conftest import TINY_TRAINING, save_heads, save_tiny_prior
from throughplane.cli import main
from throughplane.loaded_priors import load_prior
from throughplane.prior_commands import ScheduleFlags, TrainingFlags, training_config
from throughplane.prior_samples import sheet

ROOT = Path(__file__).parents[2]
EVALUATION = {
    "rows": [{"slices": "all", "sigma": 0.1, "prior": 30.0, "a": 28.0, "gain": 2.0}],
    "verdict": "1 of 1",
    "settings": ["sigma 0.1: h 1"],
}


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    return save_heads(tmp_path_factory.mktemp("data") / "heads")


@pytest.fixture(scope="module")
def trained(heads, tmp_path_factory):
    """A checkpoint after one step, with all its papers."""
    out = tmp_path_factory.mktemp("run")
    train(TINY_TRAINING, Schedule(last_step=1), read_corpus([heads]), out)
    return out / "latest"


def refused(capsys, *arguments, code=3):
    assert main([str(argument) for argument in arguments]) == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_list_has_a_line_per_prior_and_says_which_are_refused(tmp_path, capsys):
    save_tiny_prior(tmp_path / "good")
    save_tiny_prior(tmp_path / "bad")
    (tmp_path / "samples").mkdir()  # no checkpoint, so not its business
    (tmp_path / "bad" / "preprocess.json").unlink()
    assert main(["prior", "list", str(tmp_path)]) == 0
    bad, good = capsys.readouterr().out.splitlines()
    assert bad.startswith("bad: refused: ")
    assert "preprocess.json is missing" in bad
    assert good.startswith(f"good: {file_sha256(tmp_path / 'good' / 'weights.safetensors')[:12]}")


def test_list_without_a_folder_has_what_is_installed(capsys):
    assert main(["prior", "list"]) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == list(shipped.installed_priors())


def test_show_prints_the_card_and_as_json_the_records(trained, capsys):
    assert main(["prior", "show", str(trained)]) == 0
    assert "# A diffusion prior of head MRI slices" in capsys.readouterr().out
    assert main(["prior", "show", str(trained), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["preprocess"]["orientation"] == "RAS"
    assert shown["data"]["split"]["validation"] == ["uih2"]


@pytest.fixture
def volumes(tmp_path) -> Path:
    """A 3-D prior that was never trained."""
    torch.manual_seed(0)
    small = VolumeConfig(channels=(8, 8), blocks_per_level=1)
    save_volume_prior(tmp_path / "volumes", VolumePrior(new_volume_network(small).eval(), small, VELOCITY))
    return tmp_path / "volumes"


def test_show_and_list_know_volumes_too(volumes, capsys):
    assert main(["prior", "show", str(volumes)]) == 0
    assert "volumes of 1 mm, LPS, prediction velocity" in capsys.readouterr().out
    assert main(["prior", "show", str(volumes), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["network"]["channels"] == [8, 8]
    assert main(["prior", "list", str(volumes.parent)]) == 0
    assert capsys.readouterr().out.startswith(f"volumes: {file_sha256(volumes / 'weights.safetensors')[:12]}, volumes")


def test_verify_accepts_slices_and_volumes(trained, volumes, capsys):
    for folder in (trained, volumes):
        assert main(["prior", "verify", str(folder)]) == 0
        assert file_sha256(folder / "weights.safetensors") in capsys.readouterr().out


def change_weights(folder):
    with (folder / "weights.safetensors").open("ab") as file:
        file.write(b" ")


def contradict(change):
    def spoil(folder):
        content = json.loads((folder / "preprocess.json").read_text())
        change(content)
        (folder / "preprocess.json").write_text(json.dumps(content))
        config = json.loads((folder / "config.json").read_text())
        config["sha256"]["preprocess.json"] = file_sha256(folder / "preprocess.json")
        (folder / "config.json").write_text(json.dumps(config))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (change_weights, "weights.safetensors has sha256"),
        (lambda folder: (folder / "preprocess.json").unlink(), "preprocess.json is missing"),
        (contradict(lambda c: c.update(spacing_mm=2.0)), "says spacing_mm is 2.0, data.json says 1.0"),
        (contradict(lambda c: c["intensity"].update(mean=0.9)), "says intensity mean is 0.9, config.json says 0.35"),
        (lambda folder: torch.save({}, folder / "weights.pt"), "holds weights.pt, which could run code when read"),
    ],
    ids=["hash", "preprocess", "spacing", "intensity", "pickle"],
)
@pytest.mark.parametrize("command", ["verify", "show"])
def test_what_does_not_belong_together_is_refused_in_one_line(tmp_path, capsys, command, spoil, message):
    save_tiny_prior(tmp_path / "prior")
    spoil(tmp_path / "prior")
    assert message in refused(capsys, "prior", command, tmp_path / "prior")


def test_weights_that_denoise_to_nothing_finite_are_refused(tmp_path, capsys):
    network = save_tiny_prior(tmp_path / "prior")
    loaded = load_checkpoint(tmp_path / "prior")
    broken = {name: tensor * float("nan") for name, tensor in network.state_dict().items()}
    save_checkpoint(tmp_path / "prior", broken, loaded.config, loaded.preprocess, loaded.data, "# card")
    assert "not finite; its weights are damaged" in refused(capsys, "prior", "verify", tmp_path / "prior")


def test_what_is_no_prior_is_refused(tmp_path, capsys):
    assert "is neither a prior of this installation (" in refused(capsys, "prior", "verify", "nowhere")
    assert "is not a folder" in refused(capsys, "prior", "list", tmp_path / "nowhere")


def test_sample_writes_a_sheet_and_how_close_it_comes_to_training_slices(trained, heads, tmp_path, capsys):
    out = tmp_path / "sheet.png"
    options = ["--slices", "2", "--size", "48", "--steps", "2"]
    assert main(["prior", "sample", str(trained), str(out), "--scans", str(heads), *options]) == 0
    assert "axial: nearest training slice of a sample: median correlation" in capsys.readouterr().out
    assert out.read_bytes().startswith(b"\x89PNG")
    nearest = json.loads(out.with_suffix(".json").read_text())["nearest"]
    assert nearest.keys() == {"sagittal", "coronal", "axial"}
    assert all(len(found["samples"]) == len(found["nearest"]) == 2 for found in nearest.values())
    assert all(abs(found["validation_highest"]) <= 1.0001 for found in nearest.values())
    assert "exists; pass --force" in refused(capsys, "prior", "sample", trained, out, *options)


@pytest.mark.parametrize(
    ("out", "options", "message"),
    [
        ("sheet.jpg", [], "must end in .png"),
        ("sheet.png", ["--slices", "0"], "--slices 0; expected at least 1"),
        ("sheet.png", ["--steps", "1"], "--steps 1; expected at least 2"),
    ],
)
def test_sheets_that_cannot_be_are_refused(trained, tmp_path, capsys, out, options, message):
    assert message in refused(capsys, "prior", "sample", trained, tmp_path / out, *options)


@pytest.fixture(scope="module")
def layout(heads, tmp_path_factory):
    """The same for whole slices on pixels of 4 mm."""
    out = tmp_path_factory.mktemp("layout")
    config = replace(TINY_TRAINING, patches=PatchConfig(size=16, pixel_mm=4))
    train(config, Schedule(last_step=1), read_corpus([heads]), out)
    return out / "latest"


def test_a_layout_shapes_the_sample_and_enters_the_record(trained, layout, heads, tmp_path):
    options = ["--slices", "1", "--size", "48", "--steps", "3"]
    pictures = []
    for name, more in (("with", ["--layout", str(layout), "--scans", str(heads)]), ("without", [])):
        assert main(["prior", "sample", str(trained), str(tmp_path / f"{name}.png"), *options, *more]) == 0
        pictures.append((tmp_path / f"{name}.png").read_bytes())
    assert pictures[0] != pictures[1]
    record = json.loads((tmp_path / "with.json").read_text())
    assert record["layout"] == load_checkpoint(layout).sha256
    assert "layout" not in json.loads((tmp_path / "without.json").read_text())


def test_a_prior_of_large_pixels_is_drawn_from_on_them(layout, tmp_path):
    out = tmp_path / "sheet.png"
    assert main(["prior", "sample", str(layout), str(out), "--slices", "1", "--size", "48", "--steps", "2"]) == 0
    assert imread(out).shape[:2] == (3 * 24, 24)  # three planes below each other, at half size


def test_a_layout_without_larger_pixels_is_refused(trained, tmp_path, capsys):
    message = refused(capsys, "prior", "sample", trained, tmp_path / "sheet.png", "--layout", trained)
    assert "--layout has pixels 1 times as large as the prior; expected twice or another whole multiple" in message


def test_a_layout_is_no_prior_to_sample_volumes_with(layout):
    with pytest.raises(InputRefused, match=r"knows pixels of 4 mm, .* expected a prior of at most 1.5 mm"):
        load_prior(layout, torch.float32, 1e9)


def test_scans_that_it_was_not_trained_on_are_no_yardstick(trained, heads, tmp_path, capsys):
    options = ["--scans", heads / "cstar_T1w.nii.gz", "--slices", "1", "--size", "32", "--steps", "2"]
    message = refused(capsys, "prior", "sample", trained, tmp_path / "sheet.png", *options)
    assert "was trained on cstar_T2w.nii.gz, philips_T1w.nii.gz, which --scans does not hold" in message


def test_the_sheet_shows_heads_upright_in_rows():
    slices = torch.zeros(3, 10, 12)
    slices[0, 2, -1] = 1.2  # right of the axis of rows, top of the head
    picture = sheet({Plane.CORONAL: slices, Plane.AXIAL: slices})
    assert picture.shape == (24, 30)
    assert picture[0, 2] == 1


def test_an_evaluation_enters_the_card_and_leaves_the_weights(trained, tmp_path):
    loaded = load_checkpoint(trained)
    folder = tmp_path / "prior"
    weights = loaded.prior.network.state_dict()
    save_checkpoint(folder, weights, loaded.config, loaded.preprocess, loaded.data, "# card")
    before = file_sha256(folder / "weights.safetensors")
    add_evaluation(folder, EVALUATION)
    assert load_checkpoint(folder).config["evaluation"] == EVALUATION
    assert file_sha256(folder / "weights.safetensors") == before
    card = (folder / "README.md").read_text()
    assert "| all | 0.1 | 30.0 | 28.0 | 2.0 |" in card
    assert "What it learned from" in card


def test_flags_default_to_the_configuration_of_the_library():
    assert training_config(TrainingFlags()) == TrainingConfig()
    flags, schedule = ScheduleFlags(), Schedule()
    assert flags == ScheduleFlags(
        schedule.time_limit_minutes, schedule.last_step, schedule.checkpoint_minutes, schedule.workers
    )


def test_the_configuration_on_file_is_that_of_the_weights():
    for name, recipe in RECIPES.items():
        config = load_checkpoint(shipped.installed_priors()[name]).config
        config["training"]["patches"].setdefault("pixel_mm", 1)  # older checkpoints say neither
        config["training"].setdefault("kernel_learning_rate", None)
        assert config_record(recipe) == {"denoiser": config["denoiser"], "training": config["training"]}


def test_a_recipe_stands_in_place_of_the_flags_that_shape_weights(tmp_path, heads, capsys):
    assert training_config(TrainingFlags(recipe="head-2d-layout")) == HEAD_2D_LAYOUT
    assert get_args(get_args(get_type_hints(TrainingFlags)["recipe"])[0]) == tuple(RECIPES)
    assert main(["train-prior", str(heads), str(tmp_path), "--recipe", "head-2d-layout", "--dry-run"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["training"]["patches"]["pixel_mm"] == told["data"]["spacing_mm"] == 8
    message = refused(capsys, "train-prior", heads, tmp_path, "--recipe", "head-2d", "--patch-size", 32, code=2)
    assert "--recipe decides what --patch-size would; leave one of them out" in message


@pytest.mark.parametrize(
    "flag",
    [
        ("--batch-size", 0),
        ("--learning-rate", 0),
        ("--patch-size", 100),
        ("--synthetic-ratio", 1.5),
        ("--seed", -1),
        ("--time-limit", -5),
        ("--checkpoint-minutes", 0),
        ("--workers", -1),
    ],
    ids=lambda flag: flag[0],
)
def test_settings_that_cannot_be_are_a_usage_error(flag, tmp_path, heads, capsys):
    assert flag[0] in refused(capsys, "train-prior", heads, tmp_path / "run", *flag, code=2)
    assert not (tmp_path / "run").exists()


def test_training_without_scans_is_a_usage_error(tmp_path, capsys):
    assert "needs SCANS, at least one, and then OUT" in refused(capsys, "train-prior", tmp_path, code=2)


@pytest.mark.slow
def test_two_processes_of_one_patch_equal_one_of_two(heads, tmp_path):
    """On the CPU: gradients of the same patches, averaged across processes, to rounding."""
    two_processes = ["torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29517"]
    one_process = ["accelerate.commands.launch", "--cpu", "--num_processes", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"}
    averages = []
    for launcher, batch in ((two_processes, "1"), (one_process, "2")):
        out = tmp_path / batch
        options = ["--batch-size", batch, "--patch-size", "16", "--last-step", "2", "--learning-rate", "1e-4"]
        command = [sys.executable, "-m", *launcher, str(ROOT / "train_prior.py"), str(heads), str(out), *options]
        told = subprocess.run(command, check=True, env=environment, timeout=600, capture_output=True, text=True).stdout
        assert told.count("step 2: 4 patches") == 1  # only the main process speaks
        averages.append({name: t for name, t in load_train_state(out / "latest")[0].items() if "exp_avg/" in name})
    for name, of_two in averages[0].items():  # sums in another order; the second step starts from that difference
        of_one = averages[1][name]
        assert float((of_two - of_one).norm()) <= 1e-2 * float(of_one.norm()) + 1e-7, name
