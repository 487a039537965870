import nibabel as nib
import numpy as np
import pytest

from forward_models import InputRefused, volume_from_image
from tests.conftest import head_phantom, oblique_affine, placed_image, save
from throughplane.studies.cases import case_of, on_grid_of, read_mask
from throughplane.studies.records import Degradation

SHAPE = (24, 26, 32)
AFFINE = oblique_affine((1.0, 1.0, 1.0))


@pytest.fixture(scope="module")
def thin():
    return volume_from_image(placed_image(head_phantom(SHAPE), AFFINE))


def stored_as(data: np.ndarray, affine: np.ndarray, code: str):
    """The same voxels in the order of another orientation code."""
    image = nib.Nifti1Image(data, affine)
    turn = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(code))
    return volume_from_image(image.as_reoriented(turn))


@pytest.mark.parametrize("code", ["RAS", "LPS", "SPL", "AIR"])
def test_a_volume_in_another_order_comes_back_to_the_very_voxels(thin, code):
    other = stored_as(thin.data, thin.affine, code)
    back = on_grid_of(other, thin, "result")
    np.testing.assert_array_equal(back.data, thin.data)
    np.testing.assert_array_equal(back.affine, thin.affine)


@pytest.mark.parametrize(
    ("affine", "shape", "said"),
    [
        (oblique_affine((1.0, 1.0, 1.0), angles=(0.2, -0.1, 0.06)), SHAPE, "rotated against"),
        (AFFINE, (24, 26, 31), "24 x 26 x 31 voxels .* expected 24 x 26 x 32"),
        (oblique_affine((1.0, 1.0, 1.0), origin=(-31.0, 12.5, -40.15)), SHAPE, "0.1 mm away"),
        (oblique_affine((1.0, 1.0, 1.01)), SHAPE, "mm away"),
    ],
    ids=["rotated", "shape", "shifted", "spacing"],
)
def test_a_volume_on_another_grid_is_refused(thin, affine, shape, said):
    other = volume_from_image(placed_image(np.ones(shape, np.float32), affine))
    with pytest.raises(InputRefused, match=f"result .*{said}"):
        on_grid_of(other, thin, "result")


def test_masks_are_cut_like_the_truth(thin):
    """5 mm slices every 6.5 mm cannot use all 32 thin slices."""
    mask = volume_from_image(placed_image((thin.data > 500).astype(np.uint8), thin.affine))
    case = case_of(thin, Degradation(5.0, 1.5, "gaussian"), brain=mask)
    assert case.truth.data.shape[case.axis] < SHAPE[2]
    np.testing.assert_array_equal(case.brain, case.truth.data > 500)
    assert case.lesions is None


def test_a_mask_is_what_lies_above_one_half(thin, tmp_path):
    shares = np.where(thin.data > 500, 0.7, 0.3).astype(np.float32)
    mask = read_mask(save(tmp_path / "m.nii.gz", shares, AFFINE), thin)
    np.testing.assert_array_equal(mask.data, thin.data > 500)


def test_an_empty_mask_is_refused(thin, tmp_path):
    path = save(tmp_path / "m.nii.gz", np.zeros(SHAPE, np.uint8), AFFINE)
    with pytest.raises(InputRefused, match=r"m\.nii\.gz is no mask"):
        read_mask(path, thin)
