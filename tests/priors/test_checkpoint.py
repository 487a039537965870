"""A checkpoint comes back as it was written, or is refused in one line."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from forward_models import InputRefused, file_sha256
from priors import checkpoint as module
from priors.checkpoint import (
    config_fields,
    load_checkpoint,
    load_train_state,
)
from priors.folders import recover
from priors.planes import Plane
from tests.priors.conftest import TINY, save_tiny_prior

STATE = ({"moment": torch.arange(3.0)}, {"step": 7})


@pytest.fixture
def folder(tmp_path):
    save_tiny_prior(tmp_path / "prior", train_state=STATE)
    return tmp_path / "prior"


def rehash(folder):
    """Make the hashes right again after an edit, so that only the contradiction is left to find."""
    config = json.loads((folder / "config.json").read_text())
    config["sha256"] = {name: file_sha256(folder / name) for name in config["sha256"]}
    (folder / "config.json").write_text(json.dumps(config))


def edit(folder, name, **changes):
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**content, **changes}))


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path):
    network = save_tiny_prior(tmp_path / "prior")
    loaded = load_checkpoint(tmp_path / "prior")
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, loaded.prior.network.state_dict()[name])
    assert loaded.sha256 == file_sha256(tmp_path / "prior" / "weights.safetensors")
    x = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0))
    plane = torch.tensor([Plane.AXIAL.value])
    assert torch.equal(network.eval()(x, torch.tensor([0.2]), plane), loaded.prior.denoise(x, 0.2, Plane.AXIAL))


def test_half_precision_on_disk_halves_the_file_and_changes_little(tmp_path):
    full, half = tmp_path / "full", tmp_path / "half"
    save_tiny_prior(full)
    save_tiny_prior(half, dtype=torch.float16)
    assert (half / "weights.safetensors").stat().st_size < 0.6 * (full / "weights.safetensors").stat().st_size
    x = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0))
    one, other = (load_checkpoint(path).prior.denoise(x, 0.2, Plane.AXIAL) for path in (full, half))
    torch.testing.assert_close(one, other, rtol=0, atol=5e-3)  # float16 keeps 11 bits, over a dozen layers


def test_what_to_resume_from_comes_back(folder):
    tensors, numbers = load_train_state(folder)
    assert torch.equal(tensors["moment"], STATE[0]["moment"])
    assert numbers == STATE[1]


def test_a_shipped_checkpoint_cannot_be_resumed(tmp_path):
    save_tiny_prior(tmp_path / "prior")
    with pytest.raises(InputRefused, match="it cannot be resumed"):
        load_train_state(tmp_path / "prior")


def test_writing_replaces_the_folder_as_a_whole(folder):
    (folder / "leftover.txt").write_text("old")
    save_tiny_prior(folder, seed=1)
    assert not (folder / "leftover.txt").exists()
    assert not (folder / "train_state.safetensors").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["prior"]
    load_checkpoint(folder)


def test_what_is_no_checkpoint_is_not_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    save_tiny_prior(tmp_path / "mine")  # an empty folder is filled
    (tmp_path / "mine" / "config.json").unlink()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputRefused, match=r"mine holds files and no config.json: it is no checkpoint to replace"):
        save_tiny_prior(tmp_path / "mine")
    with pytest.raises(InputRefused, match=r"thesis.txt is a file; a checkpoint is a folder"):
        save_tiny_prior(tmp_path / "mine" / "thesis.txt")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_failed_write_leaves_the_old_checkpoint(folder, monkeypatch):
    before = file_sha256(folder / "weights.safetensors")

    def full_disk(*_args, **_kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr(module, "save_file", full_disk)
    with pytest.raises(OSError, match="no space left"):
        save_tiny_prior(folder, seed=1)
    assert file_sha256(folder / "weights.safetensors") == before
    assert [path.name for path in folder.parent.iterdir()] == ["prior"]


def test_a_crash_between_the_two_renames_is_recovered_from(folder):
    before = file_sha256(folder / "weights.safetensors")
    folder.rename(folder.with_name(".prior-previous"))
    recover(folder)
    assert file_sha256(folder / "weights.safetensors") == before


@pytest.mark.parametrize("name", ["config.json", "weights.safetensors", "preprocess.json", "data.json"])
def test_a_missing_file_is_refused(folder, name):
    (folder / name).unlink()
    with pytest.raises(InputRefused, match=rf"{name} is missing; copy the checkpoint folder again"):
        load_checkpoint(folder)


@pytest.mark.parametrize("name", ["weights.safetensors", "preprocess.json", "data.json"])
def test_a_changed_file_is_refused(folder, name):
    with (folder / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(InputRefused, match=rf"{name} has sha256 .* it was changed or damaged"):
        load_checkpoint(folder)


def contradict_spacing(folder):
    edit(folder, "preprocess.json", spacing_mm=2.0)


def contradict_spacing_everywhere(folder):
    edit(folder, "preprocess.json", spacing_mm=2.0)
    edit(folder, "data.json", spacing_mm=2.0)


def contradict_range(folder):
    content = json.loads((folder / "preprocess.json").read_text())
    edit(folder, "preprocess.json", intensity={**content["intensity"], "sigma_data": 0.5})


def contradict_range_everywhere(folder):
    contradict_range(folder)
    edit(folder, "config.json", denoiser={**config_fields(TINY), "sigma_data": 0.5})


def contradict_scaling(folder):
    content = json.loads((folder / "preprocess.json").read_text())
    edit(folder, "preprocess.json", intensity={**content["intensity"], "robust_maximum_range": [0, 255]})


def contradict_orientation(folder):
    edit(folder, "preprocess.json", orientation="LPS")


def contradict_architecture(folder):
    weights = load_file(folder / "weights.safetensors")
    metadata = {"spacing_mm": "1.0", "mean": str(TINY.mean), "sigma_data": str(TINY.sigma_data)}
    save_file(dict(list(weights.items())[1:]), folder / "weights.safetensors", metadata=metadata)


def contradict_metadata(folder):
    save_file(load_file(folder / "weights.safetensors"), folder / "weights.safetensors")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (contradict_spacing, r"says spacing_mm is 2.0, data.json says 1.0"),
        (contradict_spacing_everywhere, r"says spacing_mm is 2.0, weights.safetensors says 1.0"),
        (contradict_range, r"says intensity sigma_data is 0.5, config.json says 0.35"),
        (contradict_range_everywhere, r"says intensity sigma_data is 0.5, weights.safetensors says 0.35"),
        (contradict_scaling, r"says robust_maximum_range is \[0, 255\]; this version scales scans to \[0.7, 1.42\]"),
        (contradict_orientation, "says orientation LPS; expected RAS"),
        (contradict_architecture, "does not hold the network that config.json describes"),
        (contradict_metadata, "weights.safetensors says None"),
    ],
)
def test_files_that_contradict_each_other_are_refused(folder, spoil, message):
    spoil(folder)
    rehash(folder)
    with pytest.raises(InputRefused, match=message):
        load_checkpoint(folder)


def test_rehashing_alone_is_accepted(folder):
    """The refusals above are due to the contradiction, not to the helper."""
    rehash(folder)
    load_checkpoint(folder)


def test_pickles_are_refused(folder):
    torch.save({}, folder / "weights.pt")
    with pytest.raises(InputRefused, match=r"holds weights.pt, which could run code when read"):
        load_checkpoint(folder)


def test_a_pickle_under_another_name_is_refused(folder):
    torch.save({}, folder / "weights.safetensors")
    rehash(folder)
    with pytest.raises(InputRefused, match="is not a safetensors file"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("content", "message"), [("{", "is not readable JSON"), ("[]", "holds a list"), ("{}", "has format None")]
)
def test_a_config_that_is_none_is_refused(folder, content, message):
    (folder / "config.json").write_text(content)
    with pytest.raises(InputRefused, match=message):
        load_checkpoint(folder)


KNOWN = config_fields(TINY)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"denoiser": {**KNOWN, "experts": 4}}, r"cannot build \(.*experts.*\); copy .* use the version"),
        ({"denoiser": {key: KNOWN[key] for key in KNOWN if key != "channels"}}, "cannot build .KeyError: 'channels'"),
        ({"denoiser": {**KNOWN, "channels": [9, 16]}}, r"cannot build \(ValueError: num_channels"),
        ({"denoiser": {**KNOWN, "channels": 8}}, r"cannot build \(TypeError"),
        ({"denoiser": {**KNOWN, "norm_groups": 0}}, r"cannot build \(ZeroDivisionError"),
        ({"denoiser": [8, 16]}, "config.json holds a list under denoiser; expected a JSON object"),
        ({"sha256": "x"}, "config.json holds a str under sha256; expected a JSON object"),
    ],
    ids=["of a newer version", "no channels", "odd channels", "one channel", "no groups", "a list", "no hashes"],
)
def test_a_config_that_this_version_cannot_use_is_refused(folder, changes, message):
    edit(folder, "config.json", **changes)
    with pytest.raises(InputRefused, match=message):
        load_checkpoint(folder)


def test_what_is_not_a_checkpoint_folder_is_refused(tmp_path):
    (tmp_path / "weights.pt").touch()
    with pytest.raises(InputRefused, match="expected a checkpoint folder"):
        load_checkpoint(tmp_path / "weights.pt")
    with pytest.raises(InputRefused, match="does not exist; expected a checkpoint folder"):
        load_checkpoint(tmp_path / "nowhere")
