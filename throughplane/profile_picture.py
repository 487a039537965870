"""The picture of `throughplane profile --plot`."""

from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eclare.profile_estimation import ProfileTrace, VariogramFit
from forward_models import Sampled

STYLE = matplotlib.RcParams(
    {"font.size": 11, "text.color": "black", "figure.facecolor": "white", "savefig.facecolor": "white"}
)


def profile_picture(profile: Sampled, trace: ProfileTrace, title: str, path: Path) -> None:
    """The estimated profile, and how it was arrived at."""
    with matplotlib.rc_context(STYLE):
        figure = _drawn(profile, trace)
        doubt = "" if trace.informative else " (not told by the scan)"
        figure.suptitle(f"{Path(title).name}{doubt}")
        figure.savefig(path, format="png")


def _drawn(profile: Sampled, trace: ProfileTrace) -> Figure:
    figure = Figure(figsize=(10 if trace.fit is None else 15, 5), dpi=100, layout="constrained")
    shape, *others = figure.subplots(1, 2 if trace.fit is None else 3)
    shape.plot(profile.offsets_mm, profile.weights / profile.step_mm, color="C0")
    shape.axvspan(-trace.fwhm_mm / 2, trace.fwhm_mm / 2, color="C0", alpha=0.12)
    shape.set(title=f"slice profile, FWHM {trace.fwhm_mm:.2f} mm", xlabel="offset from the slice centre, mm")
    shape.set_ylabel("density, 1/mm")
    if trace.fit is None:
        _draw_histories(others[0], trace)
    else:
        _draw_posterior(others[0], trace, trace.fit)
        _draw_variograms(others[1], trace.fit)
    return figure


def _draw_histories(axes: Axes, trace: ProfileTrace) -> None:
    for history in trace.histories_mm:
        axes.plot(history)
    axes.set(title="learning, a line for each seed", xlabel="step", ylabel="FWHM, mm", ylim=(0, None))


def _draw_posterior(width: Axes, trace: ProfileTrace, fit: VariogramFit) -> None:
    low, high = trace.repeatability_mm
    for name, share in fit.posterior.items():
        width.plot(fit.candidates_mm, share, label=f"{name}, {100 * share.sum():.0f} %")
    width.axvline(trace.fwhm_mm, color="black", linestyle=":")
    width.axvspan(low, high, color="black", alpha=0.1, label="repeatability")
    width.set(title="posterior", xlabel="FWHM, mm", xscale="log", ylabel="probability")
    ticks = [t for t in (1, 1.5, 2, 3, 4, 6, 8, 12, 16) if fit.candidates_mm[0] <= t <= fit.candidates_mm[-1]]
    width.set_xticks(ticks, [f"{t:g}" for t in ticks])
    width.minorticks_off()
    width.legend(frameon=False)


def _draw_variograms(axes: Axes, fit: VariogramFit) -> None:
    for band, (first, last) in enumerate(zip(fit.bands_per_mm[:-1], fit.bands_per_mm[1:], strict=True)):
        for values, style in ((fit.through_plane, "o"), (fit.in_plane, "-")):
            label = f"{first:g} to {last:g} /mm" if style == "o" else None
            axes.plot(fit.lags_mm, values[:, band].mean(axis=0), style, color=f"C{band}", label=label)
    axes.set(
        title="variograms: slices (dots), in plane (lines)", xlabel="lag, mm", ylabel="over variance", ylim=(0, None)
    )
    axes.legend(frameon=False, title="frequency across")
