"""A study with all that came of it so far: what tables and figures are made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from pathlib import Path

import numpy as np

from throughplane.studies.quantities import COST, Measure, in_reading_order, measure_named
from throughplane.studies.records import Degradation, Job, JobRecord, Study, read_jobs, read_study
from throughplane.studies.statistics import Comparison, Estimate, compare, estimate, paired, value_of


@dataclass(frozen=True)
class Group:
    """Degradations that differ in thickness and gap only: one profile, one level of noise."""

    profile: str
    noise_sd: float
    degradations: tuple[Degradation, ...]

    @property
    def title(self) -> str:
        """Profile and noise in words."""
        noise = f"noise of {100 * self.noise_sd:g} % of the data range" if self.noise_sd else "no noise added"
        return f"profile {self.profile}, {noise}"

    @property
    def slug(self) -> str:
        """For the name of a file."""
        return f"{self.profile}_noise{self.noise_sd:g}"


@dataclass(frozen=True)
class Findings:
    """What was asked for, and what came of it.

    Attributes:
        study: as settled before the first job.
        records: of the jobs that ran, in the order of the study.
    """

    study: Study
    records: tuple[JobRecord, ...]

    @cached_property
    def done(self) -> tuple[JobRecord, ...]:
        """What has a result."""
        return tuple(record for record in self.records if record.failure is None)

    @cached_property
    def failed(self) -> tuple[JobRecord, ...]:
        """What has none, and says why."""
        return tuple(record for record in self.records if record.failure is not None)

    @cached_property
    def missing(self) -> tuple[Job, ...]:
        """Jobs that have not run."""
        ran = {record.job for record in self.records}
        return tuple(job for job in self.jobs if job not in ran)

    @cached_property
    def jobs(self) -> tuple[Job, ...]:
        """All that there should be."""
        return self.study.jobs

    @cached_property
    def measures(self) -> tuple[Measure, ...]:
        """Whatever the records hold, time and memory last."""
        names = {name for record in self.done for name in record.measures}
        names |= {name for name in COST if any(value_of(record, name) is not None for record in self.done)}
        return in_reading_order(names, self.study.primary)

    @property
    def primary(self) -> Measure:
        """What the study is decided by."""
        return measure_named(self.study.primary)

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """In the order of the study."""
        keys = dict.fromkeys((d.profile, d.noise_sd) for d in self.study.degradations)
        return tuple(
            Group(*key, tuple(d for d in self.study.degradations if (d.profile, d.noise_sd) == key)) for key in keys
        )

    def at(self, degradations: Sequence[Degradation]) -> tuple[JobRecord, ...]:
        """Records of these degradations."""
        return tuple(record for d in degradations for record in self._by_degradation.get(d, ()))

    @cached_property
    def _by_degradation(self) -> dict[Degradation, list[JobRecord]]:
        found: dict[Degradation, list[JobRecord]] = {}
        for record in self.records:
            found.setdefault(record.job.degradation, []).append(record)
        return found

    def generator(self) -> np.random.Generator:
        """A new one for each interval, so that none depends on what else is shown."""
        return np.random.default_rng(self.study.seed)

    def estimate(self, method: str, measure: str, degradations: Sequence[Degradation]) -> Estimate | None:
        """Of a method, over subjects; values that are not finite are left out."""
        values = [
            (record.job.subject, value)
            for record in self.at(degradations)
            if record.job.method == method and (value := value_of(record, measure)) is not None and isfinite(value)
        ]
        return estimate(values, self.generator())

    def compare(self, method: str, reference: str, measure: str, degradations: Sequence[Degradation]) -> Comparison:
        """Of two methods over the scans that both finished."""
        return compare(self.at(degradations), measure, method, reference, self.generator())

    def finished(self, method: str, degradations: Sequence[Degradation]) -> tuple[int, int]:
        """How many scans a method finished, of how many."""
        asked = sum(job.method == method and job.degradation in degradations for job in self.jobs)
        return sum(r.job.method == method and r.failure is None for r in self.at(degradations)), asked

    def measurable(self, measure: str, degradations: Sequence[Degradation]) -> int:
        """Of how many scans there can be a measure: all but those with results that lack it, as without lesions."""
        scans = {(job.volume, job.degradation) for job in self.jobs if job.degradation in degradations}
        done = [record for record in self.at(degradations) if record.failure is None]
        having = {(r.job.volume, r.job.degradation) for r in done if value_of(r, measure) is not None}
        return len(scans - {(r.job.volume, r.job.degradation) for r in done} | having)

    def winner(self, measure: Measure, degradations: Sequence[Degradation]) -> str | None:
        """The method that is better than every other in pairs, beyond the interval of the difference, if there is one.

        It must have finished every scan: who left out the hard ones wins nothing.
        """
        if measure.quantity.better is None:
            return None
        sign = 1 if measure.quantity.better == "higher" else -1
        found = {m: self.estimate(m, measure.name, degradations) for m in self.study.methods}
        means = {method: sign * of.mean for method, of in found.items() if of is not None}
        if len(means) < 2:
            return None
        best = max(means, key=lambda method: means[method])
        done, asked = self.finished(best, degradations)
        clear = all(self._beats(best, other, measure, sign, degradations) for other in means if other != best)
        return best if clear and done == asked else None

    def _beats(self, best: str, other: str, measure: Measure, sign: int, degradations: Sequence[Degradation]) -> bool:
        pairs, _ = paired(self.at(degradations), measure.name, best, other)
        difference = estimate(pairs, self.generator())
        return difference is not None and difference.excludes_zero and sign * difference.mean > 0


def read_findings(out: Path) -> Findings:
    """From the JSON files of a study.

    Raises:
        InputRefused: there is no study, or a record is not readable.
    """
    study = read_study(out)
    return Findings(study, read_jobs(out, study))
