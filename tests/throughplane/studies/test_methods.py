import pickle

import numpy as np
import pytest

from forward_models import InputRefused, read_volume
from tests.throughplane.studies.conftest import DEGRADATION
from throughplane.metrics import score
from throughplane.studies.cases import case_of
from throughplane.studies.checks import checked
from throughplane.studies.methods import ROWS, Bench, Given, contender, given_of
from throughplane.studies.records import Degradation


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(seed=0, threads=1, folder=tmp_path)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("cubic", "--method cubic"),
        ("eclare", "preset standard"),
        ("eclare@instant", "preset instant"),
        ("scratch@fast", "--init none"),
        ("focvs@fast@4", "preset fast, mean of 4 samples"),
        ("focvs@2", "preset standard, mean of 2 samples"),
        ("dps@best", "preset best"),
    ],
)
def test_what_follows_the_name_is_part_of_how_it_is_run(name, how):
    found = contender(name)
    assert found.name == name
    assert how in found.how


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("magic", "'magic' is unknown; expected cubic, inverse"),
        ("cubic@fast", "expected no @"),
        ("eclare@quick", "@quick means nothing here; expected @instant or @fast"),
        ("eclare@fast@4", "@4 means nothing here"),
        ("scratch@instant", "@instant means nothing here"),
        ("focvs@fast@0", "@0 means nothing here; .* number of samples"),
        ("focvs@4@fast", "@fast means nothing here"),
    ],
)
def test_a_name_that_means_nothing_is_refused(name, said):
    with pytest.raises(InputRefused, match=said):
        contender(name)


def test_no_method_is_shown_the_truth(case):
    given = given_of(case, DEGRADATION)
    assert given.scan is case.scan
    assert set(Given.__dataclass_fields__) == {
        "scan", "axis", "thin_mm", "thickness_mm", "gap_mm", "profile", "profile_name"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["cubic", "inverse", "eclare@instant"])
def test_a_method_makes_a_result_on_the_grid_of_the_truth(case, bench, name):
    made = contender(name).make(given_of(case, DEGRADATION), bench)
    result = checked(case, made.volume)
    found = score(case.truth.data, result.data, case.mask, case.data_range)
    assert found.psnr_db > 17  # a blank volume has 4
    assert made.peak_memory_bytes > 1e8


def test_what_a_method_was_told_is_what_was_simulated(thin_file, bench):
    cell = Degradation(3.0, 1.0, "slr")
    made = contender("inverse").make(given_of(case_of(read_volume(thin_file), cell), cell), bench)
    acquisition = made.details["acquisition"]
    assert acquisition["thickness_mm"] == pytest.approx(3.0)
    assert acquisition["gap_mm"] == pytest.approx(1.0, abs=1e-5)
    assert acquisition["profile"] == "slr"


def test_a_solver_makes_a_result_that_its_seed_decides(case, tmp_path):
    one, again, other = (
        contender("dds@fast").make(given_of(case, DEGRADATION), Bench(seed, 1, tmp_path)).volume for seed in (0, 0, 1)
    )
    assert score(case.truth.data, checked(case, one).data, case.mask, case.data_range).psnr_db > 15
    np.testing.assert_array_equal(one.data, again.data)
    assert np.abs(one.data - other.data).max() > 0


def test_every_method_can_be_sent_to_another_process():
    for name in ROWS:
        assert pickle.loads(pickle.dumps(contender(name))).name == name


def test_an_estimate_of_time_is_made_where_the_pipeline_can_tell(case, bench):
    assert contender("cubic").expected(given_of(case, DEGRADATION), bench) > 0
    assert contender("dds").expected is None
