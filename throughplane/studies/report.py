"""What `throughplane compare-report` leaves in the folder of a study, made of its JSON files alone."""

import base64
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from forward_models import InputRefused
from throughplane.cuts import PLANES
from throughplane.outputs import Writer, write_all
from throughplane.studies.figures import Drawn, Scan, figures, names_of, picture_page
from throughplane.studies.findings import Findings, read_findings
from throughplane.studies.pictures import ERROR_ANCHORS, ERROR_RANGE, TRUTH, smaller
from throughplane.studies.quantities import in_reading_order
from throughplane.studies.records import Degradation, Job, JobRecord, Pictures, Study, read_pictures
from throughplane.studies.statistics import value_of
from throughplane.studies.tables import (
    MINUS,
    Cell,
    Table,
    Tables,
    csv_text,
    described,
    legend,
    markdown_text,
    progress_line,
    tables_of,
)

LARGEST_BYTES = 5_000_000
LARGEST_SVG_BYTES = 300_000
MOST_SCANS = 8
SHRINKING = (1.0, 0.7)  # of the sides of pictures, tried before a scan is left out
LONGEST_TEXT = 200  # characters of a value in the tables of versions


def write_report(out: Path) -> Findings:
    """Write table.csv, table.md, figures/ and report.html into the folder of a study, all or nothing.

    Figures of an earlier report that this one has not go; other files stay.

    Raises:
        InputRefused: there is no study, a record is not readable, or the folder cannot be written.
    """
    findings = read_findings(out)
    tables = tables_of(findings)
    drawn, scans = figures(findings), scans_shown(out, findings)
    pages = tuple(picture_page(scan, described(scan.degradation)) for scan in scans)
    folder = out / "figures"
    files: dict[Path, bytes] = {folder / f"{figure.name}.png": figure.png for figure in (*drawn, *pages)}
    for figure in drawn:
        if figure.svg is not None and len(figure.svg) <= LARGEST_SVG_BYTES:
            files[folder / f"{figure.name}.svg"] = figure.svg
    files[out / "table.csv"] = csv_text(findings).encode()
    files[out / "table.md"] = markdown_text(findings, tables).encode()
    files[out / "report.html"] = fitting_page(findings, tables, drawn, scans).encode()
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputRefused(f"{folder} cannot be made: {error.strerror}") from None
    write_all({path: _bytes_writer(content) for path, content in files.items()})
    names = names_of(findings) | {figure.name for figure in drawn}
    for earlier in {folder / f"{name}.{suffix}" for name in names for suffix in ("png", "svg")} - files.keys():
        earlier.unlink(missing_ok=True)
    return findings


def scans_shown(out: Path, findings: Findings) -> tuple[Scan, ...]:
    """A scan of each volume that there are pictures of; cells of the first profile by turns, from the middle one on."""
    cells = findings.groups[0].degradations
    scans = []
    for place, volume in enumerate(tuple(findings.study.volumes)[:MOST_SCANS]):
        first = len(cells) // 2 + place
        turns = (_scan(out, findings.study, volume, cells[(first + i) % len(cells)]) for i in range(len(cells)))
        scans += [scan for scan in turns if scan.results][:1]
    return tuple(scans)


def _scan(out: Path, study: Study, volume: str, degradation: Degradation) -> Scan:
    job = Job(volume, str(study.volumes[volume]["subject"]), degradation, TRUTH, study.seed)
    found = {method: read_pictures(out, replace(job, method=method)) for method in study.methods}
    results = {method: pictures for method, pictures in found.items() if pictures is not None}
    return Scan(volume, degradation, read_pictures(out, job), results)


def fitting_page(
    findings: Findings,
    tables: Tables,
    drawn: Sequence[Drawn],
    scans: Sequence[Scan],
    largest_bytes: int = LARGEST_BYTES,
) -> str:
    """The page with as many scans, and as large pictures, as fit.

    Raises:
        InputRefused: it does not fit without any.
    """
    for count in range(len(scans), -1, -1):
        for ratio in SHRINKING if count else (1.0,):
            shown = [_shrunk(scan, ratio) for scan in scans[:count]]
            text = page(findings, tables, drawn, shown, len(scans) - count)
            if len(text.encode()) <= largest_bytes:
                return text
    raise InputRefused(
        f"the report is larger than {largest_bytes} bytes even without pictures; compare fewer cells at once"
    )


def page(findings: Findings, tables: Tables, drawn: Sequence[Drawn], scans: Sequence[Scan], left_out: int) -> str:
    """All of report.html."""
    study = findings.study
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html.jinja").render(
        study=study,
        findings=findings,
        subjects=len({str(facts["subject"]) for facts in study.volumes.values()}),
        progress=progress_line(findings),
        legend=legend(findings),
        tables=tables,
        failures_by_method=Counter(record.job.method for record in findings.failed),
        jobs_by_method=len(study.jobs) // len(study.methods),
        data=data_table(findings),
        machine=machine_table(findings.records),
        methods=method_tables(findings),
        figures=[_Figure(f.caption, base64.b64encode(f.png).decode()) for f in drawn if f.foremost],
        more_figures=[_Figure(f.caption, base64.b64encode(f.png).decode()) for f in drawn if not f.foremost],
        shown=[_shown(findings, scan) for scan in scans],
        left_out=left_out,
        planes=PLANES,
        anchors=ERROR_ANCHORS,
        error_range=ERROR_RANGE,
        minus=MINUS,
    )


def data_table(findings: Findings) -> Table:
    """The volumes, with what the study and its records tell of each."""
    facts = {
        volume: {**_summary([r.truth for r in findings.records if r.job.volume == volume]), **_flat(given)}
        for volume, given in findings.study.volumes.items()
    }
    heads = tuple(dict.fromkeys(key for known in facts.values() for key in known))
    rows = tuple((Cell(name), *(Cell(known.get(key, "")) for key in heads)) for name, known in facts.items())
    return Table("Data", ("volume", *heads), rows)


def machine_table(records: Sequence[JobRecord]) -> Table:
    """Versions, threads, device and date, as recorded by the jobs."""
    return _listed("Machine", _summary([record.machine for record in records]))


def method_tables(findings: Findings) -> tuple[Table, ...]:
    """What each method was told and decided, as recorded by itself."""
    return tuple(
        _listed(f"Details of {method}", _summary([r.details for r in findings.done if r.job.method == method]))
        for method in findings.study.methods
    )


@dataclass(frozen=True)
class _Figure:
    caption: str
    base64: str


@dataclass(frozen=True)
class _Shown:
    scan: Scan
    title: str
    scores: Mapping[str, str]


def _shown(findings: Findings, scan: Scan) -> _Shown:
    records = {r.job.method: r for r in findings.at((scan.degradation,)) if r.job.volume == scan.volume}
    scores = {method: _scores(findings, records.get(method)) for method in scan.results}
    return _Shown(scan, described(scan.degradation), scores)


def _scores(findings: Findings, record: JobRecord | None) -> str:
    """The primary measure and the one that follows it, of one job."""
    measures = in_reading_order({m.name for m in findings.measures}, findings.study.primary)[:2]
    values = {} if record is None else {m: value_of(record, m.name) for m in measures}
    return ", ".join(f"{m.quantity.label} {m.quantity.text(v)}" for m, v in values.items() if v is not None)


def _shrunk(scan: Scan, ratio: float) -> Scan:
    if ratio == 1:
        return scan
    truth = None if scan.truth is None else _shrunk_pictures(scan.truth, ratio)
    return replace(scan, truth=truth, results={m: _shrunk_pictures(p, ratio) for m, p in scan.results.items()})


def _shrunk_pictures(pictures: Pictures, ratio: float) -> Pictures:
    result = {plane: smaller(png, ratio) for plane, png in pictures.result.items()}
    return replace(pictures, result=result, error={plane: smaller(png, ratio) for plane, png in pictures.error.items()})


def _listed(title: str, facts: Mapping[str, str]) -> Table:
    rows = tuple(
        (Cell(key), Cell(textwrap.shorten(text, LONGEST_TEXT, placeholder=" ..."))) for key, text in facts.items()
    )
    return Table(title, ("what", "value"), rows)


def _summary(records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What several records say: a value that they share, the few that there are, or the first and the last of many."""
    values: dict[str, list[str]] = {}
    for record in records:
        for key, value in _flat(record).items():
            if value not in values.setdefault(key, []):
                values[key].append(value)
    return {key: _few(found) for key, found in values.items()}


def _few(values: Sequence[str]) -> str:
    if len(values) <= 3:
        return "; ".join(values)
    numbers = [_number(value) for value in values]
    if all(number is not None for number in numbers):
        ordered = sorted(zip([n for n in numbers if n is not None], values, strict=True))
        return f"{ordered[0][1]} to {ordered[-1][1]} ({len(values)} values)"
    return f"{min(values)} to {max(values)} ({len(values)} values)"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _flat(record: Mapping[str, Any]) -> dict[str, str]:
    return dict(_leaves(record, ""))


def _leaves(record: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in record.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{name}, ")
        elif isinstance(value, list):
            if value:
                yield name, " x ".join(_told(part) for part in value)
        else:
            yield name, _told(value)


def _told(value: object) -> str:
    if value is None:
        return "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _bytes_writer(content: bytes) -> Writer:
    def write(path: Path) -> None:
        path.write_bytes(content)

    return write
