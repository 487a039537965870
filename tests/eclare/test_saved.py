"""Networks on disk."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from eclare import SavedNetwork, TrainedFor, load_network, save_network, super_resolve
from eclare.network import new_network
from forward_models import Box, Gaussian, InputRefused
from tests.conftest import head_phantom
from tests.eclare.conftest import TINY, stack_and_truth


def saved_for(stack, config=TINY) -> SavedNetwork:
    network = new_network(config, 4, torch.Generator().manual_seed(0))
    torch.nn.init.normal_(network.tail.weight, std=0.05, generator=torch.Generator().manual_seed(1))
    return SavedNetwork(network.eval(), config, TrainedFor.of(stack.selection))


@pytest.mark.parametrize("config", [TINY, replace(TINY, neighbours=0, refreshes=0)], ids=["neighbours", "single"])
def test_a_network_comes_back_as_it_was(stack, tmp_path, config):
    saved, path = saved_for(stack, config), tmp_path / "net.safetensors"
    save_network(saved, path)
    loaded = load_network(path)
    assert (loaded.config, loaded.trained_for) == (saved.config, saved.trained_for)
    assert len(loaded.sha256) == 64
    first, second = (super_resolve(stack, s.network, s.config) for s in (saved, loaded))
    assert torch.equal(first, second)


def test_loading_leaves_the_global_generator_alone(stack, tmp_path):
    save_network(saved_for(stack), tmp_path / "net.safetensors")
    before = torch.get_rng_state()
    load_network(tmp_path / "net.safetensors")
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("profile", "gap_mm", "thin_mm", "message"),
    [
        (Gaussian(3.0), 2.0, 1.0, "slice spacing of 4 mm, this scan asks for 5 mm"),
        (Gaussian(2.5), 1.5, 1.0, "thickness of 3 mm, this scan asks for 2.5 mm"),
        (Gaussian(3.0), 1.0, 0.8, "thin spacing of 1 mm, this scan asks for 0.8 mm"),
        (Box(3.0), 1.0, 1.0, "gaussian profile, this scan has a box one"),
    ],
    ids=["spacing", "thickness", "thin", "profile"],
)
def test_other_slices_are_refused(stack, profile, gap_mm, thin_mm, message):
    other, _ = stack_and_truth(head_phantom((40, 44, 40)), profile, gap_mm, thin_mm)
    with pytest.raises(InputRefused, match=message):
        saved_for(stack).require_fit(other.selection)


def test_more_slices_of_the_same_kind_fit(stack):
    other, _ = stack_and_truth(head_phantom((30, 34, 60)), Gaussian(3.0), 1.0)
    saved_for(stack).require_fit(other.selection)


def test_what_is_not_a_network_is_refused(tmp_path):
    missing, text, foreign, damaged = (tmp_path / f"{n}.safetensors" for n in ("missing", "text", "foreign", "damaged"))
    text.write_text("hello")
    save_file({"x": torch.zeros(1)}, foreign)
    about = {"format": "throughplane eclare network, 2", "config": {"block": "plain"}, "trained_for": {}}
    save_file({"x": torch.zeros(1)}, damaged, metadata={"eclare": json.dumps(about)})
    for path, message in (
        (missing, "does not exist"),
        (text, "is not a .safetensors file"),
        (foreign, "has format None, not"),
        (damaged, "does not hold the network that it describes"),
    ):
        with pytest.raises(InputRefused, match=message):
            load_network(path)
