"""Paired comparisons of methods: differences, their bootstrap intervals, Wilcoxon's test with Holm's correction.

Volumes and degradations of one head are not independent, so they are averaged within a subject before anything else.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import isfinite

import numpy as np
from scipy.stats import wilcoxon

from throughplane.studies.records import Degradation, Job, JobRecord

RESAMPLES = 9999
FEWEST = 3  # subjects with an interval; of two, it would only be their range
Scan = tuple[str, Degradation, int]
LEVEL = 0.05  # of the test, and outside of the intervals


@dataclass(frozen=True)
class Estimate:
    """A mean over subjects.

    Attributes:
        mean: of the means of subjects.
        low, high: 95 % bootstrap interval of the mean, subjects resampled; None with fewer than three.
        subjects, scans: how many there were.
    """

    mean: float
    low: float | None
    high: float | None
    subjects: int
    scans: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Comparison:
    """Method minus reference, over the scans that both finished.

    Attributes:
        by_subject: mean difference of each subject.
        estimate: of the mean difference.
        left_out: scans that only one of the two, or neither, brought to a finite value.
        p: of Wilcoxon's signed rank test, two-sided; None without subjects.
        p_holm: the same after Holm's correction over the comparisons that were made together.
        smallest_p_holm: what p_holm could come to with that many subjects if all comparisons were as clear as can be.
    """

    method: str
    reference: str
    by_subject: Mapping[str, float]
    estimate: Estimate | None
    left_out: int
    p: float | None
    p_holm: float | None = None
    smallest_p_holm: float = 1.0

    @property
    def can_be_significant(self) -> bool:
        """Whether there are subjects enough for any outcome to reach the level of the test."""
        return self.smallest_p_holm <= LEVEL


def value_of(record: JobRecord, measure: str) -> float | None:
    """A measure of a job, time (`seconds`) and memory (`peak_memory_bytes`) included; None where there is none."""
    if record.failure is not None:
        return None
    if measure == "seconds":
        return record.seconds
    if measure == "peak_memory_bytes":
        return record.peak_memory_bytes
    return record.measures.get(measure)


def estimate(values: Sequence[tuple[str, float]], generator: np.random.Generator) -> Estimate | None:
    """The mean of (subject, value) pairs, averaged within subjects first; None of nothing."""
    means = _subject_means(values)
    if not means:
        return None
    low, high = bootstrap_interval(list(means.values()), generator) if len(means) >= FEWEST else (None, None)
    return Estimate(float(np.mean(list(means.values()))), low, high, len(means), len(values))


def bootstrap_interval(values: Sequence[float], generator: np.random.Generator) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean (Efron 1979), 95 %.

    With few values it is too narrow: of normal numbers, four cover the mean about 80 times in 100, ten about 90 times.
    """
    drawn = generator.integers(0, len(values), (RESAMPLES, len(values)))
    means = np.asarray(values, np.float64)[drawn].mean(axis=1)
    low, high = np.quantile(means, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def paired(
    records: Iterable[JobRecord], measure: str, method: str, reference: str
) -> tuple[tuple[tuple[str, float], ...], int]:
    """(subject, method minus reference) of every scan that both finished, and how many scans had to be left out."""
    ours: dict[Scan, JobRecord] = {}
    theirs: dict[Scan, JobRecord] = {}
    for record in records:
        if record.job.method == method:
            ours[_scan(record.job)] = record
        elif record.job.method == reference:
            theirs[_scan(record.job)] = record
    pairs = []
    for scan in ours.keys() & theirs.keys():
        difference = _difference(value_of(ours[scan], measure), value_of(theirs[scan], measure))
        if difference is not None:
            pairs.append((ours[scan].job.subject, difference))
    return tuple(sorted(pairs)), len(ours.keys() | theirs.keys()) - len(pairs)


def compare(
    records: Iterable[JobRecord], measure: str, method: str, reference: str, generator: np.random.Generator
) -> Comparison:
    """`method` against `reference` in one measure; failures of either are left out and counted."""
    pairs, left_out = paired(records, measure, method, reference)
    means = _subject_means(pairs)
    p = signed_rank_p(list(means.values()))
    return Comparison(method, reference, means, estimate(pairs, generator), left_out, p)


def corrected(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """The same with Holm's correction over all of them."""
    tested = [c for c in comparisons if c.p is not None]
    p_holm = iter(holm([c.p for c in tested if c.p is not None]))
    smallest = iter(holm([smallest_p(len(c.by_subject)) for c in tested]))
    return tuple(
        c if c.p is None else replace(c, p_holm=next(p_holm), smallest_p_holm=next(smallest)) for c in comparisons
    )


def signed_rank_p(differences: Sequence[float]) -> float | None:
    """Wilcoxon's signed rank test against a median of 0, two-sided; differences of 0 are dropped."""
    if len(differences) == 0:
        return None
    if not any(differences):
        return 1.0
    return float(wilcoxon(differences).pvalue)


def smallest_p(subjects: int) -> float:
    """The least two-sided p that the signed rank test can give: all differences of one sign."""
    return min(1.0, 2.0 ** (1 - subjects))


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p-values (Holm 1979), in the order given."""
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(np.asarray(p)[order] * np.arange(len(p), 0, -1)))
    return [float(value) for value in adjusted]


def _scan(job: Job) -> Scan:
    return job.volume, job.degradation, job.seed


def _difference(ours: float | None, theirs: float | None) -> float | None:
    if ours is None or theirs is None or not (isfinite(ours) and isfinite(theirs)):
        return None
    return ours - theirs


def _subject_means(values: Iterable[tuple[str, float]]) -> dict[str, float]:
    by_subject = groupby(sorted(values, key=lambda pair: pair[0]), key=lambda pair: pair[0])
    return {subject: float(np.mean([value for _, value in pairs])) for subject, pairs in by_subject}
