"""Outputs are checked before the work starts and written all or nothing."""

import errno
import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from forward_models import FlagConflict, InputRefused
from tests.conftest import oblique_affine
from throughplane.outputs import check_images, check_targets, image_writer, json_writer, record_path, write_all

IMAGE = nib.Nifti1Image(np.arange(24, dtype=np.float32).reshape(2, 3, 4), oblique_affine())


def contents(folder: Path) -> dict[str, str]:
    """Every file in a folder, hidden ones too."""
    return {path.name: path.read_text() for path in folder.iterdir()}


def text_writer(text: str):
    return lambda path: _write(path, text)


def failing_writer(error: BaseException):
    """Writes half of its file, then fails."""

    def write(path: Path) -> None:
        _write(path, "half")
        raise error

    return write


def _write(path: Path, text: str) -> None:
    path.write_text(text)


# ---- writing ----


def test_all_are_written(tmp_path):
    write_all({tmp_path / "a.nii.gz": image_writer(IMAGE), tmp_path / "a.json": json_writer({"seconds": 1.5})})
    again = nib.load(tmp_path / "a.nii.gz")
    assert np.array_equal(again.dataobj, IMAGE.dataobj)
    assert np.allclose(again.affine, IMAGE.affine, atol=1e-5)
    assert json.loads((tmp_path / "a.json").read_text()) == {"seconds": 1.5}
    assert {path.name for path in tmp_path.iterdir()} == {"a.nii.gz", "a.json"}


def test_what_json_does_not_know_is_null(tmp_path):
    record = {"a": float("nan"), "b": {"c": (1.5, np.float64("inf"))}, "d": [None, True, "NaN", 3]}
    write_all({tmp_path / "a.json": json_writer(record)})
    written = json.loads((tmp_path / "a.json").read_text())
    assert written == {"a": None, "b": {"c": [1.5, None]}, "d": [None, True, "NaN", 3]}


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mgz"])
def test_the_name_says_the_format(tmp_path, suffix):
    target = tmp_path / f"a{suffix}"
    write_all({target: image_writer(IMAGE)})
    kind = nib.MGHImage if suffix == ".mgz" else nib.Nifti1Image
    assert type(nib.load(target)) is kind
    assert (target.read_bytes()[:2] == b"\x1f\x8b") == (suffix != ".nii")


DISK_FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (DISK_FULL, InputRefused),
        (OSError(errno.EIO, "Input/output error"), InputRefused),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (MemoryError(), MemoryError),
        (ValueError("surprise"), ValueError),
    ],
    ids=["disk full", "I/O error", "interrupted", "out of memory", "bug"],
)
@pytest.mark.parametrize("order", [1, -1], ids=["fails last", "fails first"])
def test_a_writer_that_fails_half_way_leaves_what_was_there(tmp_path, error, raised, order):
    (tmp_path / "a.json").write_text("old a")
    writers = [(tmp_path / "a.json", text_writer("new a")), (tmp_path / "b.json", failing_writer(error))]
    before = contents(tmp_path)
    with pytest.raises(raised):
        write_all(dict(writers[::order]))
    assert contents(tmp_path) == before


def test_writing_in_place_would_not_pass(tmp_path):
    """The check above sees a `write_all` without temporary files."""

    def write_in_place(writers):
        for target, write in writers.items():
            write(target)

    (tmp_path / "a.json").write_text("old a")
    before = contents(tmp_path)
    with pytest.raises(OSError, match="No space"):
        write_in_place({tmp_path / "a.json": text_writer("new a"), tmp_path / "b.json": failing_writer(DISK_FULL)})
    assert contents(tmp_path) != before


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DISK_FULL, r"could not write .*a\.json: no space left on the device; nothing was written"),
        (OSError(errno.EDQUOT, "Quota"), "no space left on the device; nothing was written"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error; nothing was written"),
    ],
)
def test_the_refusal_says_which_file_and_why(tmp_path, error, message):
    with pytest.raises(InputRefused, match=message):
        write_all({tmp_path / "a.json": failing_writer(error)})


def test_a_folder_that_vanished_meanwhile_is_told(tmp_path):
    with pytest.raises(InputRefused, match=r"could not write .*No such file or directory; nothing was written"):
        write_all({tmp_path / "gone" / "a.json": text_writer("a")})


def test_a_record_that_is_not_json_writes_nothing(tmp_path):
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_all({tmp_path / "a.nii.gz": image_writer(IMAGE), tmp_path / "a.json": json_writer({"path": tmp_path})})
    assert contents(tmp_path) == {}


# ---- checking ----


def test_good_targets_pass_and_nothing_is_touched(tmp_path):
    check_targets([tmp_path / "a.nii.gz", tmp_path / "a.json"], [tmp_path / "scan.nii.gz"], force=False)
    assert contents(tmp_path) == {}


def test_existing_output_is_refused_unless_forced(tmp_path):
    (tmp_path / "a.nii.gz").write_text("old")
    with pytest.raises(InputRefused, match=r"a\.nii\.gz exists; pass --force to replace it"):
        check_targets([tmp_path / "b.nii.gz", tmp_path / "a.nii.gz"], [], force=False)
    check_targets([tmp_path / "a.nii.gz"], [], force=True)
    assert contents(tmp_path) == {"a.nii.gz": "old"}


@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.json"], ids=["scan", "sidecar"])
@pytest.mark.parametrize("force", [False, True])
def test_inputs_and_their_sidecars_are_never_overwritten(tmp_path, name, force):
    with pytest.raises(InputRefused, match="would overwrite an input"):
        check_targets([tmp_path / name], [tmp_path / "scan.nii.gz"], force)


def test_an_input_is_recognised_behind_a_link(tmp_path):
    (tmp_path / "scan.nii.gz").write_text("scan")
    (tmp_path / "alias.nii.gz").symlink_to(tmp_path / "scan.nii.gz")
    with pytest.raises(InputRefused, match="would overwrite an input"):
        check_targets([tmp_path / "alias.nii.gz"], [tmp_path / "scan.nii.gz"], force=True)


def test_two_outputs_of_one_name_are_refused(tmp_path):
    (tmp_path / "sub").mkdir()
    with pytest.raises(FlagConflict, match="two outputs would both be written"):
        check_targets([tmp_path / "a.nii.gz", tmp_path / "sub" / ".." / "a.nii.gz"], [], force=True)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(InputRefused, match="no does not exist; create it first"):
        check_targets([tmp_path / "no" / "a.nii.gz"], [], force=False)


def test_a_folder_as_output_is_refused(tmp_path):
    (tmp_path / "a.nii").mkdir()
    with pytest.raises(InputRefused, match="is a folder; give a file name"):
        check_targets([tmp_path / "a.nii"], [], force=True)


def test_an_unwritable_folder_is_refused(tmp_path, monkeypatch):
    """Root may write anywhere, so the answer of the system is stood in for."""
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path or not mode & os.W_OK)
    with pytest.raises(InputRefused, match=f"output folder {tmp_path} is not writable"):
        check_targets([tmp_path / "a.nii.gz"], [], force=False)


@pytest.mark.parametrize("name", ["a.png", "a", "a.gz", "nii.gz.txt", "a.img"])
def test_names_that_do_not_say_their_format_are_refused(tmp_path, name):
    with pytest.raises(InputRefused, match=r"must end in \.nii\.gz, \.nii or \.mgz"):
        check_images([tmp_path / "good.nii.gz", tmp_path / name])


def test_the_record_lies_beside_the_image_unless_told_otherwise(tmp_path):
    assert record_path(tmp_path / "a.b.nii.gz", None) == tmp_path / "a.b.json"
    assert record_path(tmp_path / "a.nii.gz", tmp_path / "r.txt") == tmp_path / "r.txt"
