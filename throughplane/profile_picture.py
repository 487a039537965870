"""The picture of `throughplane profile --plot`."""

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from eclare import ProfileTrace
from forward_models import Sampled

STYLE = matplotlib.RcParams(
    {"font.size": 11, "text.color": "black", "figure.facecolor": "white", "savefig.facecolor": "white"}
)


def profile_picture(profile: Sampled, trace: ProfileTrace, title: str, path: Path) -> None:
    """The estimated profile, how likely each width is, and the variograms that were matched."""
    with matplotlib.rc_context(STYLE):
        figure = _drawn(profile, trace)
        doubt = "" if trace.informative else " (not told by the scan)"
        figure.suptitle(f"{Path(title).name}{doubt}")
        figure.savefig(path, format="png")


def _drawn(profile: Sampled, trace: ProfileTrace) -> Figure:
    figure = Figure(figsize=(15, 5), dpi=100, layout="constrained")
    shape, width, fit = figure.subplots(1, 3)
    low, high = trace.repeatability_mm
    shape.plot(profile.offsets_mm, profile.weights / profile.step_mm, color="C0")
    shape.axvspan(-trace.fwhm_mm / 2, trace.fwhm_mm / 2, color="C0", alpha=0.12)
    shape.set(title=f"slice profile, FWHM {trace.fwhm_mm:.2f} mm", xlabel="offset from the slice centre, mm")
    shape.set_ylabel("density, 1/mm")
    for name, share in trace.posterior.items():
        width.plot(trace.candidates_mm, share, label=f"{name}, {100 * share.sum():.0f} %")
    width.axvline(trace.fwhm_mm, color="black", linestyle=":")
    width.axvspan(low, high, color="black", alpha=0.1, label="repeatability")
    width.set(title="posterior", xlabel="FWHM, mm", xscale="log", ylabel="probability")
    ticks = [t for t in (1, 1.5, 2, 3, 4, 6, 8, 12, 16) if trace.candidates_mm[0] <= t <= trace.candidates_mm[-1]]
    width.set_xticks(ticks, [f"{t:g}" for t in ticks])
    width.minorticks_off()
    width.legend(frameon=False)
    for band, (first, last) in enumerate(zip(trace.bands_per_mm[:-1], trace.bands_per_mm[1:], strict=True)):
        for values, style in ((trace.through_plane, "o"), (trace.in_plane, "-")):
            label = f"{first:g} to {last:g} /mm" if style == "o" else None
            fit.plot(trace.lags_mm, values[:, band].mean(axis=0), style, color=f"C{band}", label=label)
    fit.set(
        title="variograms: slices (dots), in plane (lines)", xlabel="lag, mm", ylabel="over variance", ylim=(0, None)
    )
    fit.legend(frameon=False, title="frequency across")
    return figure
