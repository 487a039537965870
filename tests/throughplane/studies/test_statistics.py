"""Known answers for paired comparisons; each check also rejects a broken twin."""

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap, rankdata

from throughplane.studies.records import Degradation, Job, JobRecord
from throughplane.studies.statistics import (
    Comparison,
    bootstrap_interval,
    compare,
    corrected,
    estimate,
    holm,
    signed_rank_p,
    smallest_p,
)

EASY, HARD = Degradation(3.0, 0.0, "gaussian"), Degradation(8.0, 0.0, "gaussian")


def record(subject: str, method: str, value: float | None, degradation: Degradation = EASY) -> JobRecord:
    job = Job(f"{subject}_T1w", subject, degradation, method, 0)
    return JobRecord(job, "crashed") if value is None else JobRecord(job, measures={"m": value})


def new(records: Sequence[JobRecord]) -> Comparison:
    return compare(records, "m", "new", "old", np.random.default_rng(0))


def mean_difference(records: Sequence[JobRecord]) -> float:
    found = new(records).estimate
    assert found is not None
    return found.mean


def difference_of_means(records: Sequence[JobRecord]) -> float:
    """What must not be done: failures are averaged away."""
    values = {m: [r.measures["m"] for r in records if r.job.method == m and not r.failure] for m in ("new", "old")}
    return float(np.mean(values["new"]) - np.mean(values["old"]))


def only_shared_scans_count(difference: Callable[[Sequence[JobRecord]], float]) -> bool:
    """`new` is better by 1 wherever it finishes; it crashes on the easiest head."""
    olds = {"a": 40.0, "b": 20.0, "c": 22.0}
    news = {"a": None, "b": 21.0, "c": 23.0}
    records = [record(s, "old", v) for s, v in olds.items()] + [record(s, "new", v) for s, v in news.items()]
    return difference(records) == pytest.approx(1.0)


def test_only_scans_that_both_finished_are_compared():
    assert only_shared_scans_count(mean_difference)
    assert not only_shared_scans_count(difference_of_means)


def every_subject_counts_once(difference: Callable[[Sequence[JobRecord]], float]) -> bool:
    """Subject a differs by 0 in two scans, b by 6 in one."""
    records = [record("a", m, 20.0, d) for m in ("new", "old") for d in (EASY, HARD)]
    records += [record("b", "new", 26.0), record("b", "old", 20.0)]
    return difference(records) == pytest.approx(3.0)


def test_scans_of_a_subject_are_averaged_first():
    assert every_subject_counts_once(mean_difference)
    assert not every_subject_counts_once(difference_of_means)


def test_what_is_left_out_is_counted():
    records = [record("a", "old", 1.0), record("a", "new", None), record("b", "old", 1.0), record("b", "new", 2.0)]
    records += [record("c", "old", 1.0), record("c", "new", float("inf")), record("d", "old", 1.0)]
    found = new(records)
    assert (found.left_out, found.estimate.scans, found.by_subject) == (3, 1, {"b": 1.0})


def test_without_a_shared_scan_there_is_nothing_to_tell():
    found = new([record("a", "old", 1.0), record("b", "new", 1.0)])
    assert (found.estimate, found.p, found.left_out) == (None, None, 2)


@pytest.mark.parametrize(("other", "subjects"), [("a", 1), ("b", 2)])
def test_one_or_two_subjects_have_no_interval(other, subjects):
    found = estimate([("a", 1.0), (other, 3.0)], np.random.default_rng(0))
    assert (found.mean, found.low, found.high, found.subjects, found.scans) == (2.0, None, None, subjects, 2)
    assert not found.excludes_zero


def test_the_interval_is_that_of_scipy():
    values = np.random.default_rng(1).normal(1.0, 2.0, 12)
    ours = bootstrap_interval(list(values), np.random.default_rng(2))
    theirs = bootstrap(
        (values,), np.mean, method="percentile", random_state=np.random.default_rng(5)
    ).confidence_interval
    # Monte Carlo: 4 standard errors of a 2.5 % quantile of 9999 draws, in either
    error = 4 * np.sqrt(2) * np.sqrt(0.025 * 0.975 / 9999) / 0.0584 * values.std() / np.sqrt(12)
    assert ours == pytest.approx(tuple(theirs), abs=error)
    assert ours == bootstrap_interval(list(values), np.random.default_rng(2))


def test_the_interval_of_four_covers_the_mean_as_often_as_its_docstring_says():
    rng = np.random.default_rng(3)
    intervals = [bootstrap_interval(list(rng.normal(size=4)), rng) for _ in range(400)]
    covered = np.mean([low <= 0 <= high for low, high in intervals])
    assert covered == pytest.approx(0.8, abs=4 * np.sqrt(0.8 * 0.2 / 400))


@pytest.mark.parametrize("differences", [[1.0, 2.0, 3.0, 4.0], [-1.5, 2.0, 3.0, 4.0, 5.5, -0.2, 6.0], [1.0, -1.5]])
def test_the_signed_rank_test_counts_signs(differences):
    """Against every way to put signs: the share with a rank sum as far off the middle or further."""
    ranks = rankdata(np.abs(differences))
    middle = ranks.sum() / 2
    off = abs(ranks[np.array(differences) > 0].sum() - middle)
    sums = [ranks[np.array(signs)].sum() for signs in product((False, True), repeat=len(ranks))]
    expected = np.mean([abs(s - middle) >= off - 1e-9 for s in sums])
    assert signed_rank_p(differences) == pytest.approx(expected)


def test_methods_that_agree_do_not_differ():
    assert signed_rank_p([0.0, 0.0, 0.0]) == 1.0
    assert signed_rank_p([]) is None


@pytest.mark.parametrize("subjects", [1, 2, 4, 6, 9])
def test_the_smallest_p_is_reached_where_all_agree(subjects):
    assert signed_rank_p([float(i + 1) for i in range(subjects)]) == pytest.approx(smallest_p(subjects))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_no_correction_and_bonferronis(p):
    adjusted = np.array(holm(p))
    assert (adjusted >= np.array(p) - 1e-12).all()
    assert (adjusted <= np.minimum(1, len(p) * np.array(p)) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()


@pytest.mark.parametrize(
    ("subjects", "comparisons", "possible"), [(4, 1, False), (6, 1, True), (6, 3, False), (8, 3, True)]
)
def test_it_is_told_when_nothing_could_be_significant(subjects, comparisons, possible):
    records = [record(f"s{i}", m, v) for i in range(subjects) for m, v in (("old", 20.0), ("new", 21.0 + i))]
    found = corrected([new(records)] * comparisons)
    assert {c.can_be_significant for c in found} == {possible}
    assert {c.p_holm <= 0.05 for c in found} == {possible}  # every subject agrees, so what is possible is reached
