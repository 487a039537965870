from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from forward_models import InputRefused, volume_from_image
from tests.conftest import head_phantom, oblique_affine, placed_image
from throughplane.studies.cases import Case, case_of
from throughplane.studies.checks import checked
from throughplane.studies.records import Degradation


def nearest(case: Case) -> np.ndarray:
    """The scan's slices, each as often as thin slices fit into it."""
    return np.repeat(case.scan.data, 4, axis=case.axis)


def test_a_result_passes_as_it_is(case):
    better = np.asarray(case.truth.data) * 0.9
    np.testing.assert_array_equal(checked(case, replace(case.truth, data=better)).data, better)


def test_a_result_stored_in_another_order_passes_in_that_of_the_truth(case):
    image = case.truth.image()
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(("P", "S", "L"))
    )
    np.testing.assert_array_equal(checked(case, volume_from_image(image.as_reoriented(turn))).data, case.truth.data)


def holed(data: np.ndarray) -> np.ndarray:
    data = data.astype(np.float32)
    data[3, 4, 5] = np.nan
    return data


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda case: case.scan, "grid of the scan"),
        (lambda case: replace(case.truth, data=nearest(case)), "its input"),
        (lambda case: replace(case.truth, data=np.rint(nearest(case)).astype(np.int16)), "its input"),
        (lambda case: replace(case.truth, data=np.flip(nearest(case), case.axis)), "its input"),
        (lambda case: replace(case.truth, data=holed(case.truth.data)), "1 voxels that are NaN"),
        (lambda case: replace(case.truth, data=np.zeros(case.truth.data.shape)), "0 everywhere"),
        (lambda case: replace(case.truth, data=case.truth.data[:, :, 1:]), "24 x 26 x 31 voxels"),
        (lambda case: replace(case.truth, affine=oblique_affine((1, 1, 1), (0.3, 0, 0))), "rotated"),
    ],
    ids=["scan", "nearest", "nearest in int16", "nearest upside down", "nan", "constant", "shape", "rotated"],
)
def test_a_broken_result_is_refused(case, broken, said):
    with pytest.raises(InputRefused, match=said):
        checked(case, broken(case))


def test_copies_are_found_where_the_spacing_is_no_whole_number_of_thin_slices():
    thin = volume_from_image(placed_image(head_phantom((20, 22, 36)), oblique_affine((1.0, 1.0, 1.0))))
    case = case_of(thin, Degradation(4.0, 0.4, "gaussian"))
    count = case.truth.data.shape[case.axis]
    which = np.minimum(np.arange(count) / 4.4, case.scan.data.shape[case.axis] - 1).astype(int)
    with pytest.raises(InputRefused, match="its input"):
        checked(case, replace(case.truth, data=np.take(case.scan.data, which, case.axis)))


def test_one_slice_that_is_no_copy_suffices_to_pass(case):
    data = nearest(case)
    data[..., 13] = case.truth.data[..., 13]
    checked(case, replace(case.truth, data=data))
