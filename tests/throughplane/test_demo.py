"""The demo from end to end, on a small head and a network that hardly learns."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib
import matplotlib.image
import nibabel as nib
import numpy as np
import pytest

import eclare
from forward_models import InputRefused, SliceGrid, volume_from_image
from tests.conftest import head_phantom
from throughplane.cli import main
from throughplane.demo import run_demo
from throughplane.pictures import comparison, nearest_slices
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
    for part in (*METHODS, "PSNR dB", "SSIM", "head mask", *FILES):
        assert part in told
    scores = json.loads((folder / "scores.json").read_text())
    assert set(scores["methods"]) == METHODS
    for name, one in scores["methods"].items():
        assert f"{one['psnr_db']:.2f}" in told
        assert f"{one['ssim_3d']:.4f}" in told
        assert one["method"] == name
    assert scores["methods"]["inverse"]["psnr_db"] > scores["methods"]["cubic"]["psnr_db"] > 10
    picture = matplotlib.image.imread(folder / "comparison.png")
    assert picture.shape[1] > 1000  # five columns
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


@pytest.mark.usefixtures("small")
def test_an_interrupted_demo_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("throughplane.demo._record", interrupted)  # by then everything is computed
    monkeypatch.setattr("throughplane.demo.METHODS", ("cubic",))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "not" / "there")
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_way_is_told_before_the_work(tmp_path):
    (tmp_path / "file").write_text("old")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputRefused, match=r"cannot be made: .*file is a file; give another name"):
            run(folder)


def test_a_folder_that_cannot_be_made_is_told_before_the_work(tmp_path, monkeypatch):
    """Root may write anywhere, so the answer of the system is stood in for."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputRefused, match=f"cannot be made: {tmp_path} is not writable"):
        run(tmp_path / "not" / "there")


@pytest.mark.parametrize("package", ["nilearn", "skimage", "matplotlib"])
def test_a_plain_installation_says_what_to_install(tmp_path, monkeypatch, capsys, package):
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    folder = tmp_path / "demo"
    assert main(["demo", str(folder)]) == 3
    assert capsys.readouterr().err == (
        f"throughplane: the demo needs {package}; run: pip install 'throughplane[demo]'\n"
    )
    assert not folder.exists()


# ---- the picture ----


def test_a_scan_is_shown_as_its_nearest_slices():
    thick, thin = SliceGrid(3, 4.0), SliceGrid(12, 1.0)
    shown = nearest_slices(np.array([[[10, 20, 30]]]), thick, thin)
    assert shown.ravel().tolist() == [10] * 4 + [20] * 4 + [30] * 4


def test_the_picture_leaves_matplotlibs_settings_alone(tmp_path):
    before = dict(matplotlib.rcParams)
    head = head_phantom((24, 26, 22))
    comparison(head, {"scan": head, "other": 0.9 * head}, {"scan": "as it is"}, "title", tmp_path / "p.png")
    assert dict(matplotlib.rcParams) == before
    assert matplotlib.image.imread(tmp_path / "p.png")[..., :3].std() > 0.05


def test_an_empty_picture_is_still_a_picture(tmp_path):
    empty = np.zeros((24, 26, 22), np.float32)
    comparison(empty, {"scan": empty}, {}, "nothing", tmp_path / "p.png")
    assert matplotlib.image.imread(tmp_path / "p.png").size > 0
