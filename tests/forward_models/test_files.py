"""Files are written all or nothing."""

import stat
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from forward_models import InputRefused, atomic_files, read_volume, write_image


def test_all_files_appear_together(tmp_path):
    a, b = tmp_path / "a.nii.gz", tmp_path / "b.json"
    with atomic_files(a, b) as staged:
        staged[a].write_text("A")
        staged[b].write_text("B")
        assert not a.exists()
    assert (a.read_text(), b.read_text()) == ("A", "B")
    assert len(list(tmp_path.iterdir())) == 2
    assert stat.S_IMODE(a.stat().st_mode) & 0o400


def test_files_are_renamed_in_the_order_given(tmp_path, monkeypatch):
    renamed = []
    monkeypatch.setattr(Path, "replace", lambda self, target: renamed.append(target.name) or self.rename(target))
    names = ["out.nii.gz", "mask.nii.gz", "out.json"]
    with atomic_files(*(tmp_path / name for name in names)):
        pass
    assert renamed == names


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


def scaled(dtype: str, slope: float = 1.0, inter: float = 0.0) -> nib.Nifti1Image:
    """Stored values 0 to 23 that mean slope * stored + inter."""
    image = nib.Nifti1Image(np.arange(24, dtype=dtype).reshape(2, 3, 4), np.eye(4), dtype=np.dtype(dtype))
    image.header.set_slope_inter(slope, inter)
    return image


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mgz"])
def test_what_a_format_holds_is_read_back(tmp_path, dtype, suffix):
    write_image(scaled(dtype), tmp_path / f"a{suffix}")
    again = read_volume(tmp_path / f"a{suffix}")
    assert again.data.dtype == dtype
    assert np.array_equal(again.data.ravel(), np.arange(24))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            scaled("int16", 0.5),
            r"would hold int16 with slope 0\.5 and intercept 0, but \.mgz holds uint8, int16, int32",
        ),
        (scaled("int16", 1.0, -1024.0), "with slope 1 and intercept -1024"),
        (scaled("float64"), r"would hold float64, but .* without scaling; name it \.nii\.gz, or store float32"),
        (scaled("uint16"), "would hold uint16, but"),
    ],
    ids=["slope", "intercept", "float64", "uint16"],
)
def test_mgh_refuses_what_it_cannot_hold(tmp_path, image, message):
    with pytest.raises(InputRefused, match=message):
        write_image(image, tmp_path / "a.mgz")
    assert list(tmp_path.iterdir()) == []
    write_image(image, tmp_path / "a.nii")
    expected = np.arange(24) * image.header["scl_slope"] + image.header["scl_inter"]
    assert np.allclose(nib.load(tmp_path / "a.nii").get_fdata().ravel(), expected)


def test_an_image_scaled_by_its_file_is_not_stored_as_mgh_either(tmp_path):
    """nibabel then keeps the scaling with the data, not in the header."""
    write_image(scaled("int16", 0.5), tmp_path / "a.nii")
    with pytest.raises(InputRefused, match="would hold float64"):
        write_image(nib.load(tmp_path / "a.nii"), tmp_path / "a.mgz")
