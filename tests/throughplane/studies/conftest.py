"""One tiny thin volume that tests of studies share."""

from pathlib import Path

import pytest

from forward_models import read_volume
from tests.conftest import head_phantom, oblique_affine, save
from throughplane.studies.cases import Case, case_of
from throughplane.studies.records import Degradation

DEGRADATION = Degradation(4.0, 0.0, "gaussian")


@pytest.fixture(scope="session")
def thin_file(tmp_path_factory) -> Path:
    """24 x 26 x 33 voxels of 1 mm, oblique, in a folder of its own."""
    folder = tmp_path_factory.mktemp("thin")
    return save(folder / "a_T1w.nii.gz", head_phantom((24, 26, 33)), oblique_affine((1.0, 1.0, 1.0)))


@pytest.fixture(scope="session")
def case(thin_file) -> Case:
    """Its scan of 8 slices of 4 mm."""
    return case_of(read_volume(thin_file), DEGRADATION)
