"""Thickness, gap and axis are found, sourced, and contradicted in plain words."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from forward_models import (
    Box,
    FlagConflict,
    Gaussian,
    InputRefused,
    Sidecar,
    Source,
    acquisition_of,
    plane_of,
    read_sidecar,
    read_volume,
    sidecar_path,
    volume_from_image,
)
from tests.conftest import oblique_affine


def scan(voxel_mm=(0.9, 0.9, 5.0), shape=(20, 22, 12)):
    return volume_from_image(nib.Nifti1Image(np.ones(shape, np.float32), oblique_affine(voxel_mm)))


def test_the_sidecar_gives_thickness_and_gap(thick_scan):
    found = acquisition_of(read_volume(thick_scan), read_sidecar(sidecar_path(thick_scan)))
    assert (found.axis, found.thickness_mm) == (2, 3.0)
    assert found.gap_mm == pytest.approx(0.3, abs=1e-5)
    assert found.thin_mm == pytest.approx(0.9)
    assert (found.sources.axis, found.sources.thickness) == (Source.HEADER, Source.SIDECAR)
    assert found.sources.profile == Source.ASSUMPTION
    assert found.notes == ()


def test_flags_beat_the_sidecar():
    found = acquisition_of(scan(), Sidecar(4.0, 5.0, "2D"), thickness_mm=3.0, profile=Box)
    assert (found.thickness_mm, found.sources.thickness) == (3.0, Source.FLAG)
    assert (found.profile.name, found.sources.profile) == ("box", Source.FLAG)
    assert acquisition_of(scan(), Sidecar(4.0, 5.0, "2D"), gap_mm=1.5).thickness_mm == pytest.approx(3.5)
    assert acquisition_of(scan(), gap_mm=-1.0).thickness_mm == pytest.approx(6.0)


def test_an_unknown_thickness_assumes_no_gap_loudly():
    found = acquisition_of(scan())
    assert found.gap_mm == pytest.approx(0.0, abs=1e-6)
    assert found.sources.thickness == Source.ASSUMPTION
    assert any("ASSUMING NO GAP" in note for note in found.notes)


@pytest.mark.parametrize(
    ("spacing_tag", "note"),
    [(2.07, "is the gap"), (2.0, "is the gap"), (5.5, "contradicts"), (7.07, None), (None, None)],
)
def test_positions_beat_the_spacing_tag(spacing_tag, note):
    found = acquisition_of(scan((0.9, 0.9, 7.07)), Sidecar(5.0, spacing_tag, "2D"))
    assert found.spacing_mm == pytest.approx(7.07, abs=1e-5)
    assert found.gap_mm == pytest.approx(2.07, abs=1e-5)
    assert [note in n for n in found.notes] == ([True] if note else [])


@pytest.mark.parametrize(("thickness_mm", "said"), [(3.3, False), (5.0, True)])
def test_overlap_that_only_the_sidecar_knows_of_is_noted(thickness_mm, said):
    found = acquisition_of(scan((0.9, 0.9, 3.3)), Sidecar(thickness_mm, 3.3, "2D"))
    assert any("says that slices overlap" in note for note in found.notes) == said
    assert acquisition_of(scan((0.9, 0.9, 3.3)), thickness_mm=thickness_mm).notes == ()


def test_a_3d_acquisition_is_mentioned():
    assert any("3-D acquisition" in n for n in acquisition_of(scan(), Sidecar(5.0, None, "3D")).notes)


@pytest.mark.parametrize(("axis", "voxel"), [(0, (4, 1, 1)), (1, (1, 4, 1)), (2, (1, 1, 4))])
def test_the_slice_axis_is_the_thick_one(axis, voxel):
    found = acquisition_of(scan(voxel))
    assert found.axis == axis
    assert found.in_plane_mm == pytest.approx((1, 1))


def test_planes_are_named_in_world_terms():
    assert plane_of(scan(), 2)[0] == "axial"
    assert plane_of(scan(), 0)[0] == "sagittal"
    assert plane_of(volume_from_image(nib.Nifti1Image(np.ones((4, 4, 4), np.float32), np.eye(4))), 1) == (
        "coronal",
        0.0,
    )


@pytest.mark.parametrize(
    ("voxel", "message"),
    [
        ((1.0, 1.0, 1.0), "isotropic and needs no super-resolution"),
        ((1.0, 1.0, 1.000001), "isotropic"),
        ((1.0, 1.0, 1.05), "isotropic"),
        ((1.0, 5.0, 5.0), r"axes 1 and 2 are equally thick; pass --axis, .* and --spacing"),
        ((5.0, 1.0, 5.1), "equally thick"),
    ],
)
def test_stacks_without_one_thick_axis_are_refused(voxel, message):
    with pytest.raises(InputRefused, match=message):
        acquisition_of(scan(voxel))


def test_an_axis_settles_two_thick_ones_but_must_be_thick():
    assert acquisition_of(scan((1.0, 5.0, 5.0)), axis=1).axis == 1
    with pytest.raises(InputRefused, match=r"--axis 0 has spacing 0\.9 mm, less than 1\.1 times that in plane"):
        acquisition_of(scan(), axis=0)
    with pytest.raises(InputRefused, match="expected 0, 1 or 2"):
        acquisition_of(scan(), axis=3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"thickness_mm": 0.0}, "--thickness 0; expected a positive"),
        ({"thickness_mm": -2.0}, "--thickness -2; expected a positive"),
        ({"thickness_mm": float("nan")}, "expected a number"),
        ({"thickness_mm": 100.0}, "exceeds the stack's length of 60 mm"),
        ({"thickness_mm": 4.0, "gap_mm": 2.0}, "add up to 6 mm, but slices lie 5 mm apart"),
        ({"gap_mm": 5.0}, "leaves no slice"),
        ({"gap_mm": float("inf")}, "expected a number"),
    ],
)
def test_impossible_numbers_are_refused(given, message):
    with pytest.raises(InputRefused, match=message):
        acquisition_of(scan(), **given)


def test_thickness_beside_a_sampled_profile_names_both_flags():
    for flags, name in (({"thickness_mm": 4.0}, "--thickness"), ({"gap_mm": 1.0}, "--gap")):
        with pytest.raises(FlagConflict, match=f"{name}.*--profile"):
            acquisition_of(scan(), profile=Gaussian(4.0), **flags)


def test_too_few_slices_are_refused():
    for count in (1, 3):
        with pytest.raises(InputRefused, match=f"{count} slices along axis 2; at least 4"):
            acquisition_of(scan(shape=(20, 22, count)))


def sidecar_saying(folder: Path, content: str | bytes) -> Sidecar:
    (folder / "s.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_sidecar(folder / "s.json")


@pytest.mark.parametrize(("content", "message"), [("{", "not readable JSON"), ("[1]", "holds a list")])
def test_a_sidecar_that_is_none_is_refused(tmp_path, content, message):
    with pytest.raises(InputRefused, match=message):
        sidecar_saying(tmp_path, content)


@pytest.mark.parametrize("value", ['"5"', "-5", "0", "true", "[5]", "NaN", "Infinity", "1" + 400 * "0"])
def test_a_thickness_that_is_no_length_is_refused_unless_another_is_passed(tmp_path, value):
    sidecar = sidecar_saying(tmp_path, f'{{"SliceThickness": {value}, "MRAcquisitionType": "2D"}}')
    with pytest.raises(InputRefused, match=r"SliceThickness is .*; correct it, or pass --thickness or --gap"):
        acquisition_of(scan(), sidecar)
    assert acquisition_of(scan(), sidecar, thickness_mm=4.0).thickness_mm == 4.0
    assert acquisition_of(scan(), sidecar, gap_mm=1.0).thickness_mm == pytest.approx(4.0)
    assert acquisition_of(scan(), sidecar, profile=Gaussian(4.0)).thickness_mm == 4.0


@pytest.mark.parametrize(("value", "told"), [("0", "0"), ("true", "True"), ('"5"', "'5'")])
def test_a_spacing_that_is_no_length_is_told_where_it_would_be_compared(tmp_path, value, told):
    sidecar = sidecar_saying(tmp_path, f'{{"SliceThickness": 4, "SpacingBetweenSlices": {value}}}')
    acquisition = acquisition_of(scan(), sidecar)
    assert acquisition.thickness_mm == 4.0
    (note,) = acquisition.notes
    assert note.endswith(f"SpacingBetweenSlices is {told}; expected a positive number of mm; positions are followed")
    assert acquisition_of(scan(), sidecar, thickness_mm=4.0).notes == ()


@pytest.mark.parametrize(
    "content",
    [
        '{"SliceThickness": 4, "InstitutionName": "Klinikum München"}'.encode("latin-1"),
        '{"SliceThickness": 4, "InstitutionName": "Klinikum München"}'.encode(),
        '{"SliceThickness": 4}'.encode("utf-8-sig"),
    ],
    ids=["latin-1", "utf-8", "byte order mark"],
)
def test_the_encoding_of_other_fields_does_not_matter(tmp_path, content):
    assert sidecar_saying(tmp_path, content) == Sidecar(thickness_mm=4.0)


def test_null_and_missing_mean_not_recorded(tmp_path):
    (tmp_path / "s.json").write_text('{"SliceThickness": null}')
    assert read_sidecar(tmp_path / "s.json") == Sidecar()
    assert read_sidecar(tmp_path / "none.json") == Sidecar()
