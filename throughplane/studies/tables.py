"""Tables of a study, for programs (csv) and people (markdown, and the cells that the report shows)."""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from throughplane.studies.findings import Findings, Group
from throughplane.studies.quantities import COST, Measure
from throughplane.studies.records import Degradation, JobRecord
from throughplane.studies.statistics import Comparison, Estimate, corrected, value_of

FACTS = ("volume", "subject", "thickness_mm", "gap_mm", "profile", "noise_sd", "method", "seed")
COLUMNS = (*FACTS, "status", "measure", "value", "failure")
MINUS = "\N{MINUS SIGN}"
EMPTY = "\N{EN DASH}"


@dataclass(frozen=True)
class Cell:
    """Text in a table; `strong` where it wins."""

    text: str
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """Rows under heads; the first column names the rows."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def markdown(self) -> str:
        """As a table of GitHub's markdown."""
        head = [_escaped(text) for text in self.heads]
        lines = [_line(head), _line(["---"] * len(head))]
        lines += [_line([_marked(cell) for cell in row]) for row in self.rows]
        return "\n".join(lines)


def csv_text(findings: Findings) -> str:
    """Long form: a row for each job and measure, one for each failure, one for each job that has not run."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    records = {record.job: record for record in findings.records}
    for job in findings.study.jobs:
        d = job.degradation
        facts = (job.volume, job.subject, d.thickness_mm, d.gap_mm, d.profile, d.noise_sd, job.method, job.seed)
        writer.writerows((*facts, *rest) for rest in _csv_values(records.get(job)))
    return text.getvalue()


def _csv_values(record: JobRecord | None) -> Iterator[tuple[str, str, float | str, str]]:
    if record is None:
        yield "missing", "", "", ""
    elif record.failure is not None:
        yield "failed", "", "", record.failure
    else:
        for name in (*sorted(record.measures), *COST):
            value = value_of(record, name)
            if value is not None:
                yield "done", name, value, ""


@dataclass(frozen=True)
class Tables:
    """What is shown of a study, in the order it is read.

    Attributes:
        overviews: the primary measure: cells down, methods across, a table for each profile and level of noise.
        pairs: every two methods in the primary measure, over all degradations.
        details: every measure: measures down, methods across, a table for each degradation.
        failures: every job without a result, with its reason.
    """

    overviews: tuple[Table, ...]
    pairs: Table
    details: tuple[Table, ...]
    failures: Table


def tables_of(findings: Findings) -> Tables:
    """Every table of the study."""
    overviews = tuple(_overview(findings, group) for group in findings.groups)
    details = tuple(_detail(findings, group, d) for group in findings.groups for d in group.degradations)
    return Tables(overviews, pairs_table(findings), details, failures_table(findings))


def markdown_text(findings: Findings, tables: Tables) -> str:
    """All of them, with how to read them."""
    shown = (*tables.overviews, tables.pairs, *tables.details, tables.failures)
    parts = [f"## {table.title}\n\n{table.markdown()}" for table in shown if table.rows]
    return "\n\n".join(["# Comparison of methods", progress_line(findings), legend(findings), *parts]) + "\n"


def progress_line(findings: Findings) -> str:
    """How much of the study there is."""
    jobs = len(findings.study.jobs)
    line = f"{len(findings.done)} of {jobs} jobs have a result, {len(findings.failed)} failed."
    if findings.missing:
        line += f" {len(findings.missing)} have not run: this study is not complete."
    return line


def legend(findings: Findings) -> str:
    """How to read the tables."""
    subjects = len({str(facts["subject"]) for facts in findings.study.volumes.values()})
    few = " With few subjects these intervals are too narrow: with four they hold the mean about 80 times in 100."
    return (
        "Means over subjects, volumes and degradations of a subject averaged first; in brackets the 95 % bootstrap "
        f"interval, subjects resampled ({subjects} in all).{few if subjects < 10 else ''} "
        "A value followed by (n/N) is over n of the N scans that it can be measured on. Bold: finished all, and better "
        "than every other method in pairs, beyond the 95 % interval of the difference. "
        "Arrows point to better. All scans are simulated from thin ones."
    )


def _overview(findings: Findings, group: Group) -> Table:
    measure, methods = findings.primary, findings.study.methods
    rows = []
    for degradation in group.degradations:
        winner = findings.winner(measure, (degradation,))
        cells = (_cell(findings, method, measure, degradation, method == winner) for method in methods)
        rows.append((Cell(degradation.cell), *cells))
    title = f"{measure.label} {measure.arrow}, {group.title}"
    return Table(title, ("thickness|gap, mm", *methods), tuple(rows))


def _detail(findings: Findings, group: Group, degradation: Degradation) -> Table:
    records, methods = findings.at((degradation,)), findings.study.methods
    finished = (findings.finished(method, (degradation,)) for method in methods)
    rows = [(Cell("scans finished"), *(Cell(f"{done}/{asked}") for done, asked in finished))]
    for measure in findings.measures:
        if any(value_of(record, measure.name) is not None for record in records):
            winner = findings.winner(measure, (degradation,))
            cells = (_cell(findings, method, measure, degradation, method == winner) for method in methods)
            rows.append((Cell(f"{measure.label} {measure.arrow}".strip()), *cells))
    return Table(f"{degradation.cell} mm, {group.title}", ("measure", *methods), tuple(rows))


def _cell(findings: Findings, method: str, measure: Measure, degradation: Degradation, strong: bool) -> Cell:
    found = findings.estimate(method, measure.name, (degradation,))
    asked = findings.measurable(measure.name, (degradation,))
    if found is None:
        return Cell(_nothing(findings, method, degradation, measure))
    text = _with_interval(found, measure.quantity.text)
    return Cell(text if found.scans == asked else f"{text} ({found.scans}/{asked})", strong)


def _nothing(findings: Findings, method: str, degradation: Degradation, measure: Measure) -> str:
    records = [record for record in findings.at((degradation,)) if record.job.method == method]
    if not records:
        return "not run"
    if all(record.failure is not None for record in records):
        return "failed"
    values = {value for record in records if (value := value_of(record, measure.name)) is not None}
    return ", ".join(sorted(f"{value:g}" for value in values)) or EMPTY


def pairs_table(findings: Findings) -> Table:
    """Every two methods in the primary measure, over all degradations."""
    measure = findings.primary
    rows = tuple(_pair_row(c, measure) for c in pairs(findings))
    degradations = len(findings.study.degradations)
    over = f"mean over {degradations} degradations within each subject" if degradations > 1 else "one degradation"
    heads = ("difference", measure.label, "subjects for it", "subjects", "scans", "scans left out", "p", "p (Holm)")
    return Table(f"Paired differences in {measure.label}, {over}", heads, rows)


def pairs(findings: Findings) -> tuple[Comparison, ...]:
    """Every two methods in the primary measure over all degradations, p-values corrected over all pairs."""
    methods, study = findings.study.methods, findings.study
    return corrected(
        [
            findings.compare(method, reference, study.primary, study.degradations)
            for place, reference in enumerate(methods)
            for method in methods[place + 1 :]
        ]
    )


def _pair_row(found: Comparison, measure: Measure) -> tuple[Cell, ...]:
    name = Cell(f"{found.method} {MINUS} {found.reference}")
    if found.estimate is None or found.p is None or found.p_holm is None:
        return (
            name,
            Cell("no scan that both finished"),
            *(Cell(EMPTY),) * 3,
            Cell(f"{found.left_out}"),
            *(Cell(EMPTY),) * 2,
        )
    sign = -1 if measure.quantity.better == "lower" else 1
    better = sum(sign * value > 0 for value in found.by_subject.values())
    subjects = found.estimate.subjects
    impossible = f"cannot be significant with {subjects} subject{'s' * (subjects != 1)}"
    return (
        name,
        Cell(_with_interval(found.estimate, lambda value: signed(measure.quantity.text(value)))),
        Cell(f"{better}/{subjects}"),
        Cell(f"{subjects}"),
        Cell(f"{found.estimate.scans}"),
        Cell(f"{found.left_out}"),
        Cell(f"{found.p:.3g}"),
        Cell(f"{found.p_holm:.3g}" if found.can_be_significant else f"{found.p_holm:.3g}: {impossible}"),
    )


def failures_table(findings: Findings) -> Table:
    """Every job without a result, with its reason."""
    rows = tuple(
        (Cell(r.job.method), Cell(r.job.volume), Cell(described(r.job.degradation)), Cell(r.failure or ""))
        for r in findings.failed
    )
    return Table("Failures", ("method", "volume", "scan", "reason"), rows)


def described(degradation: Degradation) -> str:
    """A degradation in words."""
    noise = f", noise {degradation.noise_sd:g}" if degradation.noise_sd else ""
    return f"{degradation.cell} mm, {degradation.profile}{noise}"


def readme_text(findings: Findings) -> str:
    """A table as papers print it, PSNR / SSIM or whatever else there is, with all that it takes to read it alone."""
    shown = (
        findings.measures[:2]
        if findings.measures[1:2] and findings.measures[1].name not in COST
        else findings.measures[:1]
    )
    if not shown:
        return progress_line(findings) + "\n"
    tables = [
        f"{group.title[0].upper()}{group.title[1:]}:\n\n{_published(findings, group, shown).markdown()}"
        for group in findings.groups
    ]
    study = findings.study
    data = ", ".join(f"{name} ({facts['sha256'][:8]})" for name, facts in study.volumes.items())
    names = " / ".join(f"{measure.label} {measure.arrow}".strip() for measure in shown)
    subjects = len({facts["subject"] for facts in study.volumes.values()})
    over = f"means over {subjects} subjects" if subjects > 1 else "one subject"
    caption = (
        f"{names}: {over}; scans simulated from "
        f"{data}. Bold: finished all scans and better than every other method in pairs, beyond the 95 % bootstrap "
        f"interval of the difference. {progress_line(findings)} throughplane {study.version}, {study.created}; "
        f"`{study.command}`."
    )
    return "\n\n".join([*tables, caption]) + "\n"


def _published(findings: Findings, group: Group, measures: Sequence[Measure]) -> Table:
    rows = []
    for degradation in group.degradations:
        winner = findings.winner(measures[0], (degradation,))
        cells = [
            Cell(_slashed(findings, method, measures, degradation), method == winner)
            for method in findings.study.methods
        ]
        rows.append((Cell(degradation.cell), *cells))
    return Table(group.title, ("thickness|gap, mm", *findings.study.methods), tuple(rows))


def _slashed(findings: Findings, method: str, measures: Sequence[Measure], degradation: Degradation) -> str:
    found = [findings.estimate(method, measure.name, (degradation,)) for measure in measures]
    if found[0] is None:
        return _nothing(findings, method, degradation, measures[0])
    texts = [EMPTY if f is None else m.quantity.text(f.mean) for f, m in zip(found, measures, strict=True)]
    done, asked = findings.finished(method, (degradation,))
    return " / ".join(texts) + (f" ({done} of {asked} scans)" if done < asked else "")


def signed(text: str) -> str:
    """A number with its sign, the minus as wide as the plus."""
    return text.replace("-", MINUS) if text.startswith("-") else f"+{text}"


def _with_interval(found: Estimate, text: Callable[[float], str]) -> str:
    if found.low is None or found.high is None:
        return text(found.mean)
    return f"{text(found.mean)} [{text(found.low)}, {text(found.high)}]"


def _line(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _marked(cell: Cell) -> str:
    return f"**{_escaped(cell.text)}**" if cell.strong else _escaped(cell.text)


def _escaped(text: str) -> str:
    for character in ("\\", "|", "<", "*", "`", "_"):
        text = text.replace(character, "\\" + character)
    return " ".join(text.split())
