"""How scans lie to one another: known motions are found, and what does not belong together is told."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from forward_models import Gaussian, InputRefused, Sidecar, Volume, acquisition_of, simulate, volume_from_image
from forward_models.alignment import agreement, aligned, unmoved
from forward_models.placed import PlacedStack, placed
from forward_models.stack import stack_of
from tests.conftest import head_phantom, nib_image

FOUND_MM, FOUND_DEGREES = 0.02, 0.4  # slices of 4 mm; measured: up to 0.005 mm and 0.37 degrees on this round head


def phantom() -> Volume:
    """64 mm of head in air."""
    return volume_from_image(nib_image(np.pad(head_phantom((56, 60, 52)), 6)))


def scanned(thin: Volume, axis: int, motion: np.ndarray | None = None, gain: float = 1.0) -> PlacedStack:
    """4 mm slices; `motion` puts a false affine into the header."""
    scan = simulate(thin, Gaussian(4.0), 0.0, axis=axis)
    scan = replace(scan, data=scan.data * np.float32(gain))
    if motion is not None:
        scan = replace(scan, affine=motion @ scan.affine)
    acquisition = acquisition_of(scan, Sidecar(), axis=axis, thickness_mm=4.0)
    return placed(stack_of(scan, acquisition, 1.0), scan)


def rigid(degrees: tuple[float, float, float], shift_mm: tuple[float, float, float], about: np.ndarray) -> np.ndarray:
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_rotvec(degrees, degrees=True).as_matrix()
    motion[:3, 3] = about + shift_mm - motion[:3, :3] @ about
    return motion


HEAD = phantom()
AXIAL, SAGITTAL = scanned(HEAD, 2), scanned(HEAD, 0)


@pytest.mark.parametrize(
    ("degrees", "shift_mm"), [((0, 0, 0), (0, 0, 0)), ((3, -4, 2), (2.5, -1.5, 3)), ((-8, 3, 6), (6, 4, -7))], ids=str
)
def test_a_known_motion_is_found(degrees, shift_mm):
    false = rigid(degrees, shift_mm, SAGITTAL.slices.middle)
    moved = scanned(HEAD, 0, false)
    motion = aligned(AXIAL, moved)
    left = motion.matrix @ false
    corners = np.array([[x, y, z, 1] for x in (10, 58) for y in (10, 62) for z in (8, 56)], float).T
    assert np.linalg.norm(((left - np.eye(4)) @ corners)[:3], axis=0).max() <= 0.4
    assert np.linalg.norm(left[:3, :3] @ SAGITTAL.slices.middle + left[:3, 3] - SAGITTAL.slices.middle) <= FOUND_MM
    assert np.degrees(np.linalg.norm(Rotation.from_matrix(left[:3, :3]).as_rotvec())) <= FOUND_DEGREES


def test_what_is_reported_is_the_motion_that_is_made():
    false = rigid((3, -4, 2), (2.5, -1.5, 3), SAGITTAL.slices.middle)
    motion = aligned(AXIAL, scanned(HEAD, 0, false))
    assert motion.degrees == pytest.approx(29**0.5, abs=FOUND_DEGREES)
    assert np.allclose(motion.vector_degrees, (-3, 4, -2), atol=FOUND_DEGREES)
    assert np.linalg.norm(motion.shift_mm) == pytest.approx((2.5**2 + 1.5**2 + 9) ** 0.5, abs=FOUND_MM)
    assert np.allclose(motion.matrix @ [*motion.centre, 1], [*(motion.centre + motion.shift_mm), 1])


def test_unmoved_is_where_the_header_says():
    assert np.array_equal(unmoved(SAGITTAL).matrix, np.eye(4))
    assert unmoved(SAGITTAL).reach_mm == 0


def test_one_head_in_one_contrast_agrees_whatever_the_gain():
    found = agreement(AXIAL, scanned(HEAD, 0, gain=1.7))
    assert found.gain == pytest.approx(1.7, rel=0.01)
    assert found.correlation > 0.97
    assert found.overlap > 0.95


def test_a_gain_that_was_not_undone_would_be_seen():
    assert agreement(AXIAL, scanned(HEAD, 0, gain=1.7)).gain != pytest.approx(agreement(AXIAL, SAGITTAL).gain, rel=0.1)


def test_another_contrast_does_not_agree():
    inverted = replace(HEAD, data=np.where(HEAD.data > 50, 900 - HEAD.data, 0).astype(np.float32))
    assert agreement(AXIAL, scanned(inverted, 0)).correlation < 0.3


@pytest.mark.parametrize("measure", [agreement, aligned])
def test_scans_that_do_not_overlap_are_refused(measure):
    with pytest.raises(InputRefused, match="hardly overlaps"):
        measure(AXIAL, scanned(HEAD, 0, rigid((0, 0, 0), (300, 0, 0), np.zeros(3))))
