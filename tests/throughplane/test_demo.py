"""The demo from end to end, on a small head and a network that hardly learns."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import nibabel as nib
import numpy as np
import pytest

import eclare
from forward_models import InputRefused, volume_from_image
from tests.conftest import head_phantom
from throughplane.demo import run_demo
from throughplane.terminal import Teller

METHODS = {"cubic", "inverse", "eclare"}
FILES = {"scan.nii.gz", "scan.json", "scores.json", "comparison.png", *(f"{method}.nii.gz" for method in METHODS)}


@pytest.fixture
def small(monkeypatch) -> None:
    """A phantom in place of the packaged head, and three training steps."""
    config = replace(eclare.PRESETS["fast"], steps=3, channels=4, blocks=1)
    monkeypatch.setattr(eclare, "PRESETS", {**eclare.PRESETS, "fast": config})
    image = nib.Nifti1Image(head_phantom((34, 36, 42)), np.diag([-1.0, 1, 1, 1]))
    image.header.set_xyzt_units("mm")
    monkeypatch.setattr("throughplane.demo.packaged_head", lambda: volume_from_image(image))


def run(folder: Path, force: bool = False, quiet: bool = True) -> None:
    run_demo(folder, 5.0, 0.0, "fast", force, Teller(quiet=quiet, verbose=False))


@pytest.mark.usefixtures("small")
def test_the_demo_ends_with_a_table_scores_and_a_picture(tmp_path, capsys):
    folder = tmp_path / "not" / "there"
    run(folder, quiet=False)
    assert {path.name for path in folder.iterdir()} == FILES
    told = capsys.readouterr().err
    for part in (*METHODS, "PSNR dB", "SSIM", "head mask", "comparison.png"):
        assert part in told
    scores = json.loads((folder / "scores.json").read_text())
    assert set(scores["methods"]) == METHODS
    for name, one in scores["methods"].items():
        assert f"{one['psnr_db']:.2f}" in told
        assert f"{one['ssim_3d']:.4f}" in told
        assert one["method"] == name
    assert scores["methods"]["inverse"]["psnr_db"] > scores["methods"]["cubic"]["psnr_db"] > 10
    picture = matplotlib.image.imread(folder / "comparison.png")
    assert picture.shape[1] > 1000  # four columns
    assert picture[..., :3].std() > 0.05  # not blank
    assert len({nib.load(folder / f"{method}.nii.gz").shape for method in METHODS}) == 1


@pytest.mark.usefixtures("small")
def test_an_earlier_demo_is_kept_unless_forced(tmp_path, monkeypatch):
    (tmp_path / "eclare.nii.gz").write_text("old")
    with pytest.raises(InputRefused, match=r"eclare\.nii\.gz exists; pass --force"):
        run(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"eclare.nii.gz"}
    monkeypatch.setattr("throughplane.demo.METHODS", ("cubic",))
    run(tmp_path, force=True)
    assert "comparison.png" in {path.name for path in tmp_path.iterdir()}


def test_without_nilearn_the_demo_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nilearn.datasets", None)
    with pytest.raises(InputRefused, match=r"needs nilearn; install throughplane\[demo\]"):
        run(tmp_path)
    assert not list(tmp_path.iterdir())
