"""Pictures of results: the right way up, with true sides, grey where nothing is wrong."""

from dataclasses import replace

import numpy as np
import pytest

from forward_models import Volume, volume_from_image
from tests.conftest import head_phantom, placed_image
from tests.throughplane.studies.synthetic import phantom_case, study_of
from throughplane.studies.cases import Case, case_of
from throughplane.studies.pictures import ERROR_COLOURS, ERROR_RANGE, decoded, pictures_of, smaller
from throughplane.studies.records import Degradation

JOB = study_of().jobs[0]


@pytest.fixture(scope="module")
def case() -> Case:
    return phantom_case()


def changed(case: Case, by: float) -> Volume:
    return replace(case.truth, data=(case.truth.data + by * case.data_range).astype(np.float32))


def levels(png: str) -> np.ndarray:
    return np.asarray(decoded(png)).astype(int)


def test_the_truth_has_a_name_of_its_own_and_no_error(case):
    pictures = pictures_of(JOB, case)
    assert pictures.job == replace(JOB, method="truth")
    assert pictures.error == {}
    assert set(pictures.result) == {"sagittal", "coronal", "axial"}


@pytest.mark.parametrize(("by", "level"), [(0.0, 128), (ERROR_RANGE, 255), (-ERROR_RANGE, 0), (3.0, 255)])
def test_an_error_has_the_level_of_its_share(case, by, level):
    for png in pictures_of(JOB, case, changed(case, by)).error.values():
        assert np.abs(levels(png) - level).max() <= 1  # rounding


def test_no_error_is_grey_and_the_ends_are_not():
    low, middle, high = ERROR_COLOURS[[0, 128, 255]].astype(int)
    assert np.ptp(middle) <= 2
    assert min(np.ptp(low), np.ptp(high)) > 50


def test_superior_and_anterior_are_up_and_right_is_right(case):
    data = np.zeros(case.truth.data.shape, np.float32)
    middle = [n // 2 for n in data.shape]
    data[:, :, -8:] = case.data_range  # superior
    high = pictures_of(JOB, case, replace(case.truth, data=data)).result
    for plane in ("sagittal", "coronal"):
        assert levels(high[plane])[0].mean() > levels(high[plane])[-1].mean()
    data[:] = 0
    data[middle[0] + 8 :, middle[1] + 8 :] = case.data_range  # right and anterior
    corner = levels(pictures_of(JOB, case, replace(case.truth, data=data)).result["axial"])
    assert corner[0, -1] > max(corner[0, 0], corner[-1, 0], corner[-1, -1])


@pytest.mark.parametrize("order", [(2, 0, 1), (1, 2, 0)])
def test_the_order_of_the_file_does_not_show(order):
    affine = np.diag([1.0, 1.1, 0.9, 1.0])
    plain = placed_image(head_phantom(), affine)
    flipped = plain.slicer[:, ::-1, ::-1]
    permuted = placed_image(np.transpose(flipped.get_fdata(dtype=np.float32), order), flipped.affine[:, [*order, 3]])
    first, second = (
        pictures_of(JOB, case_of(volume_from_image(i), Degradation(5.0, 0.0, "gaussian"))) for i in (plain, permuted)
    )
    for plane in first.result:
        a, b = levels(first.result[plane]), levels(second.result[plane])
        assert a.shape == b.shape
        assert np.median(np.abs(a - b)) <= 2  # slices lie half a voxel apart where their number is even


def test_voxels_have_their_true_sides():
    tall = pictures_of(JOB, phantom_case((32, 34, 30), np.diag([1.0, 1.0, 2.0, 1.0])))
    for plane in ("sagittal", "coronal"):
        image, flat = decoded(tall.result[plane]), decoded(pictures_of(JOB, phantom_case()).result[plane])
        assert image.width == flat.width
        assert image.height / flat.height == pytest.approx(2, rel=0.25)  # the truth of fewer thick slices is shorter


def test_large_heads_are_shown_smaller(case):
    truth = replace(case.truth, data=np.repeat(case.truth.data, 12, axis=0), affine=np.diag([0.5, 0.5, 0.5, 1.0]))
    mask = np.repeat(case.mask, 12, axis=0)
    png = pictures_of(JOB, replace(case, truth=truth, mask=mask)).result["axial"]
    rows, columns = (np.ptp(np.flatnonzero(mask.any(axis=axes))) for axes in ((0, 2), (1, 2)))
    assert decoded(png).width == 256
    assert decoded(png).height == pytest.approx(256 * rows / columns, rel=0.3)


def test_a_smaller_picture_keeps_its_levels(case):
    for png in pictures_of(JOB, case, changed(case, -ERROR_RANGE)).error.values():
        half = smaller(png, 0.5)
        assert decoded(half).size == pytest.approx(np.array(decoded(png).size) / 2, abs=0.5)
        assert levels(half).max() <= 1
        assert decoded(half).getpalette() == decoded(png).getpalette()
