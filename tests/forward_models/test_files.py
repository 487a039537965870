"""Files are written all or nothing."""

import stat

import pytest

from forward_models import atomic_files


def test_all_files_appear_together(tmp_path):
    a, b = tmp_path / "a.nii.gz", tmp_path / "b.json"
    with atomic_files(a, b) as staged:
        staged[a].write_text("A")
        staged[b].write_text("B")
        assert not a.exists()
    assert (a.read_text(), b.read_text()) == ("A", "B")
    assert len(list(tmp_path.iterdir())) == 2
    assert stat.S_IMODE(a.stat().st_mode) & 0o400


def write_half(staged, target, error):
    staged[target].write_text("half")
    raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, ValueError])
def test_nothing_is_left_after_an_error_and_old_files_stay(tmp_path, error):
    a, b = tmp_path / "a.nii.gz", tmp_path / "b.json"
    a.write_text("old")
    with pytest.raises(error), atomic_files(a, b) as staged:
        write_half(staged, a, error)
    assert [p.name for p in tmp_path.iterdir()] == ["a.nii.gz"]
    assert a.read_text() == "old"


def test_a_missing_folder_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_files(tmp_path / "a.json", tmp_path / "no" / "b.json"):
        pytest.fail("must not be entered")
    assert list(tmp_path.iterdir()) == []
