"""Geometry survives reading and writing; what is not a usable volume is refused in one line."""

import gzip

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forward_models import (
    InputRefused,
    SliceGrid,
    Volume,
    read_volume,
    require_usable,
    volume_from_image,
    write_image,
)
from tests.conftest import oblique_affine, save

RAMP = np.arange(5 * 6 * 7, dtype=np.float32).reshape(5, 6, 7)
angle = st.floats(-3.1, 3.1)


@given(
    angles=st.tuples(angle, angle, angle),
    voxel=st.tuples(*[st.floats(0.3, 9.0)] * 3),
    origin=st.tuples(*[st.floats(-200, 200)] * 3),
    flips=st.tuples(*[st.booleans()] * 3),
    code=st.integers(1, 4),
)
def test_world_positions_survive_a_round_trip(tmp_path_factory, angles, voxel, origin, flips, code):
    path = tmp_path_factory.mktemp("v") / "v.nii.gz"
    affine = oblique_affine(voxel, angles, origin) @ np.diag([*(-1.0 if flip else 1.0 for flip in flips), 1.0])
    image = nib.Nifti1Image(RAMP, affine)
    image.set_sform(affine, code)
    image.set_qform(affine, code)
    image.to_filename(path)
    write_image(read_volume(path).image(), path)
    again = nib.load(path)
    corners = np.array([[0, 0, 0, 1], [4, 5, 6, 1], [4, 0, 6, 1]])
    assert np.abs((again.get_sform() - affine) @ corners.T).max() < 1e-3
    # a quaternion in float32 holds rotations near 180 degrees to 2 sqrt(2^-23) rad, whoever writes it
    assert np.abs((again.get_qform() - affine) @ corners.T).max() < 1e-3 + 7e-4 * np.linalg.norm(np.multiply(voxel, 6))
    assert int(again.header["sform_code"]) == int(again.header["qform_code"]) == code


def test_voxel_sizes_come_from_the_affine_and_contradictions_are_told():
    image = nib.Nifti1Image(RAMP, oblique_affine((1, 1, 5)))
    image.set_sform(oblique_affine((1, 1, 5)), 1)
    image.set_qform(oblique_affine((1, 1, 5), angles=(0, 0, 0)), 1)
    image.header["pixdim"][3] = 4.0
    volume = volume_from_image(image)
    assert volume.voxel_mm == pytest.approx((1, 1, 5), abs=1e-6)
    told = " | ".join(volume.warnings)
    assert "sform (code 1) and qform (code 1)" in told
    assert "the sform is followed" in told
    assert "pixdim says 1 x 1 x 4 mm, the sform says 1 x 1 x 5 mm" in told
    assert "units" in told


def test_a_clean_header_warns_of_nothing(thick_scan):
    assert read_volume(thick_scan).warnings == ()


def test_the_followed_form_is_written_to_both():
    image = nib.Nifti1Image(RAMP, oblique_affine())
    image.set_sform(oblique_affine(angles=(0.3, 0, 0)), 4)
    image.set_qform(oblique_affine(), 1)
    written = volume_from_image(image).image()
    assert np.allclose(written.get_sform(), oblique_affine(angles=(0.3, 0, 0)), atol=1e-5)
    assert np.allclose(written.get_qform(), written.get_sform(), atol=1e-5)
    assert (int(written.header["sform_code"]), int(written.header["qform_code"])) == (4, 4)


def test_a_file_without_orientation_says_so(tmp_path):
    nib.Nifti1Image(RAMP, None).to_filename(tmp_path / "bare.nii")
    image = nib.load(tmp_path / "bare.nii")
    volume = volume_from_image(image)
    assert any("neither sform nor qform" in warning for warning in volume.warnings)
    written = volume.image()
    assert np.allclose(written.affine, image.affine)
    assert int(written.header["sform_code"]) > 0


def test_a_new_grid_keeps_the_middle_of_the_stack():
    volume = volume_from_image(nib.Nifti1Image(RAMP, oblique_affine()))
    finer = volume.on_grid(np.zeros((5, 6, 23), np.float32), 2, SliceGrid(23, 1.0))
    middle = lambda v: (v.affine @ [*((np.array(v.data.shape) - 1) / 2), 1])[:3]  # noqa: E731
    assert middle(finer) == pytest.approx(middle(volume), abs=1e-9)
    assert finer.voxel_mm == pytest.approx((0.9, 0.9, 1.0))


def test_units_intent_and_scaling_are_kept(tmp_path):
    image = nib.Nifti1Image((RAMP * 10).astype(np.int16), oblique_affine())
    image.header.set_intent("estimate", name="T1w")
    image.header.set_xyzt_units("mm", "sec")
    image.header["slice_code"] = 3
    image.header.set_slope_inter(0.5, -3.0)
    image.to_filename(tmp_path / "i.nii.gz")
    written = read_volume(tmp_path / "i.nii.gz").image("like-input")
    assert written.header.get_intent()[0] == "estimate"
    assert written.header.get_xyzt_units() == ("mm", "sec")
    assert int(written.header["slice_code"]) == 0
    assert written.header.get_data_dtype() == np.int16
    write_image(written, tmp_path / "o.nii.gz")
    again, first = (nib.load(tmp_path / name) for name in ("o.nii.gz", "i.nii.gz"))
    assert np.allclose(again.get_fdata(), first.get_fdata())
    assert (again.dataobj.slope, again.dataobj.inter) == (0.5, -3.0)


def test_like_input_rounds_and_counts_what_does_not_fit():
    volume = volume_from_image(nib.Nifti1Image(RAMP.astype(np.uint8), oblique_affine()))
    changed = volume.on_grid(np.full((5, 6, 7), 7.6, np.float32), 2, volume.slice_grid(2))
    assert np.unique(changed.image("like-input").dataobj).tolist() == [8]
    changed.data[0, 0, :3] = -4, 300, 255.4
    assert changed.voxels_outside_stored_dtype() == 2
    assert np.asarray(changed.image("like-input").dataobj)[0, 0, :3].tolist() == [0, 255, 255]
    assert changed.image().get_data_dtype() == np.float32


def test_big_endian_and_mgz_and_nifti2_are_read(tmp_path):
    big = nib.Nifti1Image(RAMP.astype(">i2"), oblique_affine(), nib.Nifti1Header(endianness=">"))
    big.to_filename(tmp_path / "big.nii")
    nib.MGHImage(RAMP, oblique_affine()).to_filename(tmp_path / "m.mgz")
    nib.Nifti2Image(RAMP, oblique_affine()).to_filename(tmp_path / "two.nii")
    for name in ("big.nii", "m.mgz", "two.nii"):
        volume = read_volume(tmp_path / name)
        assert np.array_equal(volume.data, RAMP)
        assert volume.data.dtype.isnative
        assert np.allclose(volume.affine, oblique_affine(), atol=1e-4)
        write_image(volume.image(), tmp_path / "out.mgz")
        assert np.allclose(nib.load(tmp_path / "out.mgz").affine, volume.affine, atol=1e-4)


def test_the_same_image_gives_the_same_bytes_under_any_name(tmp_path):
    image = volume_from_image(nib.Nifti1Image(RAMP, oblique_affine())).image()
    write_image(image, tmp_path / "a.nii.gz")
    write_image(image, tmp_path / "b.nii.gz")
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


@pytest.mark.parametrize("trailing", [(), (1,), (1, 1)], ids=str)
def test_one_volume_of_a_4d_file_is_chosen_never_averaged(trailing):
    volumes = np.stack([RAMP, 2 * RAMP], axis=3)
    image = nib.Nifti1Image(volumes.reshape(*volumes.shape, *trailing), oblique_affine())
    with pytest.raises(InputRefused, match=r"holds 2 volumes; choose one with --volume 0\.\.1"):
        volume_from_image(image)
    assert np.array_equal(volume_from_image(image, volume=1).data, 2 * RAMP)
    with pytest.raises(InputRefused, match="--volume 2 is not one of"):
        volume_from_image(image, volume=2)
    with pytest.raises(InputRefused, match="would be ignored"):
        volume_from_image(nib.Nifti1Image(RAMP, oblique_affine()), volume=0)


def test_singleton_dimensions_are_dropped():
    assert volume_from_image(nib.Nifti1Image(RAMP[..., None, None], oblique_affine())).data.shape == RAMP.shape


SHEARED = oblique_affine() @ np.array([[1, 0.02, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
RGB = np.zeros(RAMP.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (nib.Nifti1Image(RGB, oblique_affine()), "RGB"),
        (nib.Nifti1Image(RAMP.astype(np.complex64), oblique_affine()), "complex"),
        (nib.Nifti1Image(RAMP[0], oblique_affine()), "three dimensions"),
        (nib.Nifti1Image(np.zeros((3, 3, 3, 2, 2), np.float32), oblique_affine()), "three dimensions"),
        (nib.Nifti1Image(RAMP, SHEARED), "sheared affine: array axes are 1.1 degrees"),
        (nib.MGHImage(RAMP, np.diag([1, 1, 1, 1.0])), None),
    ],
)
def test_what_is_not_a_real_rigid_volume_is_refused(image, message):
    if message is None:
        assert volume_from_image(image).data.shape == RAMP.shape
        return
    with pytest.raises(InputRefused, match=message):
        volume_from_image(image)


def test_an_image_without_affine_is_refused():
    with pytest.raises(InputRefused, match="has no affine"):
        volume_from_image(nib.Nifti1Image(RAMP, None))


def test_a_singular_affine_is_refused():
    image = nib.Nifti1Image(RAMP, oblique_affine())
    image.header.set_sform(np.diag([1.0, 1, 0, 1]), 1)
    broken = nib.Nifti1Image.from_bytes(image.to_bytes())
    broken._affine = np.diag([1.0, 1, 0, 1])
    with pytest.raises(InputRefused, match="singular affine"):
        volume_from_image(broken)


def test_units_other_than_mm_are_refused():
    image = nib.Nifti1Image(RAMP, oblique_affine())
    image.header.set_xyzt_units("micron")
    with pytest.raises(InputRefused, match="micron; expected mm"):
        volume_from_image(image)


def test_damaged_files_are_refused_in_one_line(tmp_path):
    good = save(tmp_path / "good.nii.gz", RAMP, oblique_affine()).read_bytes()
    plain = gzip.decompress(good)
    broken = {
        "truncated.nii.gz": good[: len(good) // 2],
        "stump.nii.gz": good[:12],
        "flipped.nii.gz": good[:200] + bytes(b ^ 255 for b in good[200:260]) + good[260:],
        "short.nii": plain[:-100],
        "text.nii": b"this is not an image at all" * 20,
        "text.nii.gz": b"this is not an image at all" * 20,
        "empty.nii.gz": b"",
        "text.mgz": b"not an image" * 40,
    }
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputRefused, match=name) as refusal:
            read_volume(tmp_path / name)
        assert "\n" not in str(refusal.value)


def test_missing_files_folders_and_other_suffixes_are_refused(tmp_path):
    with pytest.raises(InputRefused, match="does not exist"):
        read_volume(tmp_path / "no.nii.gz")
    (tmp_path / "folder.nii").mkdir()
    (tmp_path / "scan.dcm").write_bytes(b"")
    for name in ("folder.nii", "scan.dcm"):
        with pytest.raises(InputRefused, match=r"not a file ending in \.nii"):
            read_volume(tmp_path / name)


def test_nan_inf_and_zero_everywhere_are_refused():
    for value in (np.nan, np.inf):
        data = RAMP.copy()
        data[1, 2, 3] = value
        with pytest.raises(InputRefused, match=r"1 voxels that are NaN or Inf, the first at index \(1, 2, 3\)"):
            require_usable(volume_from_image(nib.Nifti1Image(data, oblique_affine())), "scan")
    with pytest.raises(InputRefused, match="zero everywhere"):
        require_usable(volume_from_image(nib.Nifti1Image(np.zeros_like(RAMP), oblique_affine())), "scan")


@pytest.mark.parametrize(("slope", "inter"), [(1.0, 0.0), (0.25, -10.0)])
@pytest.mark.parametrize("stored", ["int16", "uint8", "float32", "float64"])
@pytest.mark.parametrize("dtype", ["float32", "like-input"])
def test_stored_is_what_a_reader_gets(tmp_path, stored, slope, inter, dtype):
    image = nib.Nifti1Image(np.zeros((2, 3, 4), stored), oblique_affine())
    image.header.set_slope_inter(slope, inter)
    computed = np.random.default_rng(0).uniform(-20, 500, (2, 3, 4))
    volume = Volume(computed, oblique_affine(), image.header)
    volume.image(dtype).to_filename(tmp_path / "v.nii")
    read = nib.load(tmp_path / "v.nii")
    assert read.get_data_dtype() == (stored if dtype == "like-input" else np.float32)
    assert np.array_equal(read.get_fdata(), np.asarray(volume.stored(dtype), np.float64))
    if read.get_data_dtype().kind == "f":  # the scaling of a file of real numbers is undone before it is applied
        assert np.allclose(read.get_fdata(), computed, rtol=1e-6, atol=1e-5)
