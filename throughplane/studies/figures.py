"""Figures of a study. Narrow, so that they can be read on a phone, and the same to the byte from the same records."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from math import isfinite

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter
from PIL import Image, ImageDraw, ImageFont

from throughplane.cuts import PLANES
from throughplane.studies.findings import Findings, Group
from throughplane.studies.pictures import TRUTH, decoded
from throughplane.studies.quantities import Measure
from throughplane.studies.records import Degradation, JobRecord, Pictures
from throughplane.studies.statistics import value_of

# Okabe and Ito (2008), told apart by the colour-blind; black stays for what is no method
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F5F00", "#5B5B5B")
MARKERS = "osD^vPX"  # fewer than colours, so that 56 methods go by before one looks like another
WIDTH_IN, DPI = 5.2, 150
LEGEND_CHARACTERS = 42  # in a line
MARKS_OF_CURVE = 8
PALETTE = 128  # colours of a figure, few enough to keep files small
LINE_PX, MARGIN_PX = 18, 4  # of a page of pictures
COST_FIGURE = "quality_against_seconds"
OF_TRUTH, FREQUENCY = "truth_", "cycles_per_mm"  # in the names of columns of curves
TINY = np.finfo(np.float64).tiny
STYLE = matplotlib.RcParams(
    {
        "font.size": 10.5,
        "axes.titlesize": 11,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#e3e3e3",
        "axes.axisbelow": True,
        "legend.frameon": False,
        "text.color": "black",
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
        "svg.hashsalt": "throughplane",
    }
)


@dataclass(frozen=True)
class Drawn:
    """A figure in files.

    Attributes:
        name: of the files, without suffix.
        caption: what it shows, over which mask and data range, of which scans.
        png, svg: the files; no svg of pictures.
        foremost: whether it is among the first that a reader should see.
    """

    name: str
    caption: str
    png: bytes
    svg: bytes | None
    foremost: bool = True


@dataclass(frozen=True)
class Scan:
    """What is shown of one scan: pictures of the truth and of every result there is."""

    volume: str
    degradation: Degradation
    truth: Pictures | None
    results: Mapping[str, Pictures]


def figures(findings: Findings) -> tuple[Drawn, ...]:
    """Every figure that the records have the numbers for, pictures excepted."""
    drawn: list[Drawn] = []
    for group in findings.groups:
        if not any(value_of(r, findings.study.primary) is not None for r in findings.at(group.degradations)):
            continue
        drawn += [_by_cell(findings, group), *_differences(findings, group), *_spectra(findings, group)]
    return (*drawn, *_cost(findings))


def picture_page(scan: Scan, title: str) -> Drawn:
    """Three planes of the truth and of each result, each with its error below, pixel for pixel."""
    truth = {} if scan.truth is None else {TRUTH: scan.truth}
    rows = [
        (name, [decoded(images[plane]).convert("RGB") for plane in PLANES])
        for method, pictures in {**truth, **scan.results}.items()
        for name, images in ((method, pictures.result), (_error_label(pictures), pictures.error))
        if images
    ]
    widths = [max(images[column].width for _, images in rows) for column in range(len(PLANES))]
    heights = [max(image.height for image in images) + LINE_PX for _, images in rows]
    page = Image.new("RGB", (sum(widths) + 4 * MARGIN_PX, sum(heights) + LINE_PX + MARGIN_PX), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(LINE_PX * 0.7)
    pen.text((MARGIN_PX, 0), f"{scan.volume}, {title}, simulated", "black", font)
    for row, (name, images) in enumerate(rows):
        top = LINE_PX + sum(heights[:row])
        pen.text((MARGIN_PX, top), name, "black", font)
        for column, image in enumerate(images):
            page.paste(image, (sum(widths[:column]) + (column + 1) * MARGIN_PX, top + LINE_PX))
    stream = io.BytesIO()
    page.save(stream, format="PNG", optimize=True)
    return Drawn(f"pictures_{scan_slug(scan)}", title, stream.getvalue(), None)


def _error_label(pictures: Pictures) -> str:
    return f"error \N{PLUS-MINUS SIGN}{100 * pictures.error_range:g} %"


def names_of(findings: Findings) -> set[str]:
    """Of the figures and pages of pictures that a study may come to have, as far as curves do not decide it."""
    scans = (Scan(v, d, None, {}) for v in findings.study.volumes for d in findings.study.degradations)
    by_group = (slug(f"{kind}_{group.slug}") for kind in ("primary", "differences") for group in findings.groups)
    return {COST_FIGURE, *by_group, *(f"pictures_{scan_slug(scan)}" for scan in scans)}


def scan_slug(scan: Scan) -> str:
    """For the name of a file."""
    d = scan.degradation
    return f"{scan.volume}_{d.thickness_mm:g}_{d.gap_mm:g}_{d.profile}_{d.noise_sd:g}"


def _by_cell(findings: Findings, group: Group) -> Drawn:
    measure, methods = findings.primary, findings.study.methods

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        width = 0.8 / len(methods)
        for place, degradation in enumerate(group.degradations):
            offsets = [place + (i - (len(methods) - 1) / 2) * width for i in range(len(methods))]
            by_volume = _by_volume(findings, measure.name, degradation)
            for values in by_volume.values():
                axes.plot(offsets, [values.get(m, np.nan) for m in methods], color="#b5b5b5", linewidth=0.7, zorder=1)
            for offset, (method, colour, marker) in zip(offsets, _styles(methods), strict=True):
                points = [values[method] for values in by_volume.values() if method in values]
                axes.plot([offset] * len(points), points, ".", color=colour, markersize=4, alpha=0.6, zorder=2)
                if points:
                    label = method if place == 0 else None
                    axes.plot(offset, np.mean(points), marker, color=colour, markersize=7, label=label, zorder=3)
        axes.set_xticks(range(len(group.degradations)), [d.cell for d in group.degradations])
        axes.set_xlim(-0.5, len(group.degradations) - 0.5)
        axes.grid(axis="x", visible=False)
        axes.set(xlabel="thickness|gap, mm", ylabel=_axis_label(measure))
        _legend_below(figure, axes)

    return _drawn(
        f"primary_{group.slug}",
        f"{measure.label} by slice thickness and gap. Large marks: means over the volumes that a method "
        f"finished; dots: single volumes, each joined across methods by a grey line. {_provenance(measure, group)}",
        draw,
        (WIDTH_IN, 4.2),
    )


def _differences(findings: Findings, group: Group) -> Iterator[Drawn]:
    measure, (reference, *methods) = findings.primary, findings.study.methods
    if not methods:
        return
    cells = group.degradations

    def draw(figure: Figure) -> None:
        panels = figure.subplots(len(cells), 1, sharex=True, squeeze=False)[:, 0]
        for axes, degradation in zip(panels, cells, strict=True):
            for place, (method, colour, marker) in enumerate(tuple(_styles(findings.study.methods))[1:]):
                found = findings.compare(method, reference, measure.name, (degradation,))
                axes.plot(
                    list(found.by_subject.values()), [place] * len(found.by_subject), ".", color=colour, alpha=0.6
                )
                if found.estimate is None:
                    axes.annotate("  no scan that both finished", (0, place), fontsize=8, va="center")
                else:
                    e = found.estimate
                    if e.low is not None and e.high is not None:
                        axes.plot([e.low, e.high], [place, place], color=colour, linewidth=2)
                    axes.plot(e.mean, place, marker, color=colour, markersize=7)
            axes.axvline(0, color="black", linewidth=1)
            axes.set_yticks(range(len(methods)), methods)
            axes.set_ylim(len(methods) - 0.4, -0.6)
            axes.set_title(f"{degradation.cell} mm", loc="left")
        figure.supxlabel(f"difference to {reference}: {_axis_label(measure)}", fontsize=10.5)

    yield _drawn(
        f"differences_{group.slug}",
        f"Paired differences to {reference} in {measure.label}: dots are subjects, marks their means, bars 95 % "
        f"bootstrap intervals. Only scans that both finished. {_provenance(measure, group)}",
        draw,
        (WIDTH_IN, 0.9 + len(cells) * (0.45 + 0.27 * len(methods))),
    )


def _spectra(findings: Findings, group: Group) -> Iterator[Drawn]:
    """A figure for each curve and column in the records, those of the truth excepted."""
    done = [r for r in findings.at(group.degradations) if r.failure is None]
    for name in sorted({name for record in done for name in record.curves}):
        records = [r for r in done if name in r.curves]
        _, *columns = records[0].curves[name]
        shown = [column for column in columns if not column.startswith(OF_TRUTH)]
        for place, column in enumerate(shown):
            yield _curves(findings, group, records, name, column, foremost=place == 0)


def _curves(
    findings: Findings, group: Group, records: Sequence[JobRecord], name: str, column: str, foremost: bool
) -> Drawn:
    cells = [d for d in group.degradations if any(r.job.degradation == d for r in records)]
    abscissa, *columns = records[0].curves[name]
    of_truth = OF_TRUTH + column.partition("_")[2]
    relative = of_truth in columns

    def values(record: JobRecord) -> np.ndarray:
        curve = {key: np.asarray(column, np.float64) for key, column in record.curves[name].items()}
        return _logarithms(curve[column], curve[of_truth]) if relative else curve[column]

    def draw(figure: Figure) -> None:
        panels = figure.subplots(len(cells), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for axes, degradation in zip(panels, cells, strict=True):
            here = [r for r in records if r.job.degradation == degradation]
            at = np.asarray(here[0].curves[name][abscissa], np.float64)
            every = len(at) // MARKS_OF_CURVE + 1
            for method, colour, marker in _styles(findings.study.methods):
                ours = [
                    np.interp(at, r.curves[name][abscissa], values(r), np.nan, np.nan)
                    for r in here
                    if r.job.method == method
                ]
                if ours:
                    mean = np.mean(ours, axis=0)
                    shown = 10**mean if relative else mean
                    style = {"marker": marker, "markersize": 4, "markevery": every}
                    axes.plot(at, shown, color=colour, label=method, linewidth=1.4, **style)
            if relative:
                axes.set_yscale("log")
                axes.axhline(1, color="black", linestyle=":", label=TRUTH)
            if abscissa == FREQUENCY:
                axes.axvline(0.5 / (degradation.thickness_mm + degradation.gap_mm), color="#808080", linestyle="--")
            axes.set_title(f"{degradation.cell} mm", loc="left")
        figure.supylabel(plain(column) + (" over that of the truth" if relative else ""), fontsize=10.5)
        panels[-1].set_xlabel(plain(abscissa))
        _legend_below(figure, panels[0])

    quantity, *where = name.split("/")
    mask = f" Mask: {', '.join(where)}." if where else ""
    over = " over that of the truth, geometric means over volumes." if relative else ", means over volumes."
    nyquist = " Dashed: Nyquist frequency of the scan." if abscissa == FREQUENCY else ""
    return _drawn(
        f"{slug(name)}_{column}_{group.slug}",
        f"{plain(quantity).capitalize()}: {plain(column)}{over}{nyquist}{mask} Scans simulated from thin ones, "
        f"{group.title}.",
        draw,
        (WIDTH_IN, 1.2 + 1.7 * len(cells)),
        foremost,
    )


def _logarithms(result: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Of the ratio, to base 10, whatever the units of the volume; ratios beyond a million count as that."""
    ratio = np.maximum(result, TINY) / np.maximum(truth, TINY)
    return np.clip(np.log10(ratio), -6, 6)


def _cost(findings: Findings) -> Iterator[Drawn]:
    measure, degradations = findings.primary, findings.study.degradations
    spots = {
        method: [
            (seconds.mean, quality.mean)
            for d in degradations
            if (quality := findings.estimate(method, measure.name, (d,))) is not None
            and (seconds := findings.estimate(method, "seconds", (d,))) is not None
            and seconds.mean > 0
        ]
        for method in findings.study.methods
    }
    if not any(spots.values()):
        return

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for method, colour, marker in _styles(findings.study.methods):
            if spots[method]:
                x, y = np.transpose(spots[method])
                axes.plot(x, y, marker, color=colour, markersize=4, alpha=0.45)
                middle = float(np.exp(np.log(x).mean()))
                axes.plot(middle, y.mean(), marker, color=colour, markersize=9, label=method)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set(xlabel="seconds for a scan", ylabel=_axis_label(measure))
        _legend_below(figure, axes)

    yield _drawn(
        COST_FIGURE,
        f"{measure.label} against wall time. Small marks: means over volumes for each degradation; large: over all. "
        f"Times hold for the machine below only. {_where(measure)} Scans simulated from thin ones.",
        draw,
        (WIDTH_IN, 3.9),
    )


def _by_volume(findings: Findings, measure: str, degradation: Degradation) -> dict[str, dict[str, float]]:
    by_volume: dict[str, dict[str, float]] = {}
    for record in findings.at((degradation,)):
        value = value_of(record, measure)
        if value is not None and isfinite(value):
            by_volume.setdefault(record.job.volume, {})[record.job.method] = value
    return by_volume


def _styles(methods: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    return zip(methods, cycle(COLOURS), cycle(MARKERS))


def _axis_label(measure: Measure) -> str:
    better = f" ({measure.quantity.better} is better)" if measure.quantity.better else ""
    return f"{measure.quantity.label}{better}"


def _provenance(measure: Measure, group: Group) -> str:
    return f"{_where(measure)} Scans simulated from thin ones, {group.title}."


def _where(measure: Measure) -> str:
    mask, *rest = measure.where or ("not recorded",)
    percents = rest[0].removeprefix("p").replace("-", " to ") if rest else ""
    data_range = f"; data range: {percents} % of the truth in the head" if rest else ""
    return f"Mask: {mask}{data_range}."


def plain(name: str) -> str:
    """A recorded name for people."""
    return name.replace("_", " ")


def slug(name: str) -> str:
    """A name that is safe in a file's."""
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in name)


def _legend_below(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns = max(1, min(3, len(handles), LEGEND_CHARACTERS // max(len(label) for label in labels)))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, handletextpad=0.4)


def _drawn(
    name: str, caption: str, draw: Callable[[Figure], None], size_in: tuple[float, float], foremost: bool = True
) -> Drawn:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size_in, dpi=DPI, layout="constrained")
        draw(figure)
        png = _few_colours(_saved(figure, "png"))
        figure.set_layout_engine("none")  # as laid out already
        return Drawn(slug(name), caption, png, _saved(figure, "svg"), foremost)


def _saved(figure: Figure, format: str) -> bytes:
    stream = io.BytesIO()
    dated = {"Software": None} if format == "png" else {"Date": None, "Creator": None}
    figure.savefig(stream, format=format, metadata=dated)
    return stream.getvalue()


def _few_colours(png: bytes) -> bytes:
    """The most frequent colours are kept, so that lines look like their legend; the rest become the nearest of them."""
    image = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    colours, at, counts = np.unique(image.reshape(-1, 3), axis=0, return_inverse=True, return_counts=True)
    palette = colours[np.argsort(-counts, kind="stable")[:PALETTE]]
    nearest = np.linalg.norm(colours[:, None].astype(np.float32) - palette, axis=2).argmin(axis=1)
    few = Image.fromarray(nearest[at.ravel()].astype(np.uint8).reshape(image.shape[:2]))
    few.putpalette(palette.tobytes())
    stream = io.BytesIO()
    few.save(stream, format="PNG", optimize=True)
    return stream.getvalue()
