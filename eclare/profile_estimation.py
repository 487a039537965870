"""The slice profile, estimated from the scan alone.

Second moments decide. In-plane content, blurred by a candidate profile, must vary from one slice spacing to the next as
much as the through-plane content of the scan does. Notation as in docs/conventions.md.

Notes:
    The idea, that the right profile makes in-plane statistics equal to through-plane ones, is that of ESPRESO (Han et
    al., arXiv 2104.00100). Departures: no adversary, the statistics are variograms; the in-plane blur is applied to
    both sides, because the scan's slices are blurred along their normal and its in-plane lines are not; differences
    of anatomy between directions are a Gaussian process with fixed standard deviations, not nothing; and the answer
    comes with its uncertainty.
"""

import time
from dataclasses import dataclass, field

import numpy as np
import scipy.fft
import torch
from jaxtyping import Bool, Float, Int
from scipy.ndimage import gaussian_filter

from forward_models import (
    Acquisition,
    Box,
    Gaussian,
    InputRefused,
    Sampled,
    SliceProfile,
    Volume,
    acquisition_of,
    slr,
)
from forward_models.acquisition import ProfileFamily
from forward_models.profiles import integrate, thin_to_thick
from forward_models.progress import Progress, silent
from forward_models.stack import scaled_slices, working_order

FAMILIES: dict[str, ProfileFamily] = {"gaussian": Gaussian, "slr": slr, "box": Box}
MIN_SLICES = 8
CANDIDATES = 32  # widths of each shape
SAMPLES_PER_FWHM = 32  # of the profile that is returned
NOISE_FREQUENCY = 0.45  # cycles per voxel, along both axes: hardly any anatomy, but as much noise as anywhere
LEAST_SIGNAL = 1.2  # of all power to that of noise
NO_STRUCTURE = "the slices hold no structure to estimate a slice profile from; pass --thickness or --gap"
BLOCKS = 10  # of neighbouring slices, drawn with replacement for the repeatability band


@dataclass(frozen=True)
class ProfileConfig:
    """What is compared, and how much anatomy may differ between directions.

    Widths are searched between `narrowest_ratio` in-plane voxels and the smaller of `widest_ratio` slice spacings
    and `widest_mm`. The standard deviations are of the logarithm of a ratio of variograms; they were fitted to
    thick slices simulated from heads that are not in the validation set (docs/experiments-profile.md).

    Attributes:
        bands_per_mm: edges of the bands of frequencies across both directions that are compared.
        reach_mm: longest lag.
        max_lags, min_lags: how many lags, from the slice spacing on, in about equal ratios.
        equalise_mm: local contrast is made even over this distance, so that fat and scalp do not outweigh the brain.
        level_sd, smooth_sd: of the nuisance in each band: the same at all lags, and smooth over lags. Large-scale
            anatomy differs between directions, texture hardly.
            Both in proportion to correlation ** `correlation_power`.
        smooth_lags, smooth_bands: correlation lengths of the nuisance, in ln(lag) and in bands.
        shared_ratio: correlation between the nuisances of the two in-plane axes.
        noise_sd: of each statistic, on top.
        prior_ratio, prior_sd: width over slice spacing that is expected, and the standard deviation of its logarithm.
        flat_sd: the scan holds too little information where the standard deviation of ln(FWHM) exceeds this.
        end_share: nor is it told where the outermost two widths at both ends are more likely than this together.
        draws: bootstrap draws.
    """

    narrowest_ratio: float = 1.3
    widest_ratio: float = 4.0
    widest_mm: float = 16.0
    bands_per_mm: tuple[float, ...] = (0.0, 0.04, 0.1, 0.2, 0.5)
    reach_mm: float = 24.0
    min_lags: int = 3
    max_lags: int = 6
    equalise_mm: float = 12.0
    correlation_power: float = 0.86
    level_sd: tuple[float, ...] = (1.25, 0.5, 0.17, 0.06)
    smooth_sd: tuple[float, ...] = (0.19, 0.19, 0.35, 0.15)
    smooth_lags: float = 6.0
    smooth_bands: float = 1.9
    shared_ratio: float = 0.19
    noise_sd: float = 0.08
    prior_ratio: float = 0.8
    prior_sd: float = 0.6
    flat_sd: float = 0.2
    end_share: float = 0.2
    draws: int = 100


@dataclass(frozen=True, eq=False)
class ProfileTrace:
    """How an estimate came about.

    Attributes:
        fwhm_mm: of the profile; for variograms the exponential of the posterior mean of ln(FWHM).
        sd_mm: standard deviation of the profile, which variograms determine better than its FWHM.
        repeatability_mm: 5 to 95 % of the estimates from blocks of slices drawn with replacement; for ESPRESO the
            range over seeds.
        plausible_mm: 5 to 95 % of the posterior: repeatability, anatomy and the unknown shape; for ESPRESO, which
            has none, repeatability and the unknown shape.
        doubts: reasons not to trust the estimate, one line each.
        fit: what was matched, for variograms.
        histories_mm: FWHM while ESPRESO learned, one for each seed.
        seconds: taken.
    """

    fwhm_mm: float
    sd_mm: float
    repeatability_mm: tuple[float, float]
    plausible_mm: tuple[float, float]
    doubts: tuple[str, ...] = ()
    fit: "VariogramFit | None" = None
    histories_mm: tuple[tuple[float, ...], ...] = ()
    seconds: float = 0.0

    @property
    def informative(self) -> bool:
        """Whether nothing speaks against the estimate."""
        return not self.doubts


@dataclass(frozen=True, eq=False)
class VariogramFit:
    """The posterior, and the variograms of its likeliest candidate.

    Attributes:
        candidates_mm: widths that were tried.
        posterior: of each family at each of them; sums to one.
        lags_mm: distances that were compared.
        bands_per_mm: edges of the frequency bands across.
        through_plane, in_plane: over variance, by axis, band and lag; they tend to one at lags where nothing is alike.
    """

    candidates_mm: Float[np.ndarray, " n"]
    posterior: dict[str, Float[np.ndarray, " n"]]
    lags_mm: Float[np.ndarray, " m"]
    bands_per_mm: tuple[float, ...]
    through_plane: Float[np.ndarray, "axis band m"]
    in_plane: Float[np.ndarray, "axis band m"]


@dataclass(frozen=True, eq=False)
class _Spectra:
    """Of one in-plane axis, by block of slices, lag, band across and frequency along.

    Attributes:
        power: mean power of the slices that are `lag` apart.
        cross: real part of their cross spectrum.
        frequency_per_mm: along the axis.
        voxel_mm: along the axis.
    """

    power: Float[np.ndarray, "block lag band f"]
    cross: Float[np.ndarray, "block lag band f"]
    frequency_per_mm: Float[np.ndarray, " f"]
    voxel_mm: float


@dataclass(frozen=True, eq=False)
class _Variograms:
    """Of in-plane lines blurred by every candidate: by axis, block, candidate, band and lag."""

    through_plane: Float[np.ndarray, "axis block n band lag"]
    in_plane: Float[np.ndarray, "axis block n band lag"]
    variance: Float[np.ndarray, "axis block n band lag"] = field(repr=False)


def estimate_profile(
    volume: Volume,
    acquisition: Acquisition | None = None,
    config: ProfileConfig | None = None,
    *,
    generator: torch.Generator | None = None,
    progress: Progress = silent,
) -> tuple[Sampled, ProfileTrace]:
    """The slice profile that makes in-plane content vary like through-plane content.

    For a candidate p, in-plane lines blurred by its kernel q (`thin_to_thick`) have the variogram g_x, at lags of whole
    slice spacings; the same blurred lines have the variogram g_z from slice to slice. Where p is right, both axes of
    the image are blurred alike and ln(g_z / g_x) is zero but for anatomy. Sampling by the slices needs no model: at
    lags that are multiples of the spacing, a variogram does not change by it.

    Shapes of equal variance cannot be told apart this way (docs/experiments-profile.md), so the profile is a mixture of
    gaussian, SLR and box, and its FWHM is uncertain by a sixth for that alone.

    Args:
        volume: the scan.
        acquisition: which axis is the slice axis; worked out from the volume by default.
        config: see `ProfileConfig`.
        generator: of the bootstrap; seeded with 0 by default.
        progress: called with stage, steps done and steps in all.

    Raises:
        InputRefused: too few slices, or slices without structure.
    """
    started = time.monotonic()
    config = config or ProfileConfig()
    acquisition = acquisition or acquisition_of(volume)
    generator = generator or torch.Generator().manual_seed(0)
    spectra, lags_mm = _measured(volume, acquisition, config)
    progress("profile", 1, 3)
    widths = _widths(max(acquisition.in_plane_mm), acquisition.spacing_mm, config)
    candidates = [family(width) for family in FAMILIES.values() for width in widths]
    variograms = _variograms(spectra, candidates, lags_mm)
    progress("profile", 2, 3)
    inference = _Inference.of(variograms, lags_mm, widths, acquisition.spacing_mm, config)
    posterior = inference.posterior(np.ones((1, BLOCKS)))[0]
    draws = torch.randint(BLOCKS, (config.draws, BLOCKS), generator=generator).numpy()
    counts = np.stack([np.bincount(draw, minlength=BLOCKS) for draw in draws]).astype(float)
    repeats = np.exp(inference.mean_log_width(inference.posterior(counts)))
    shares = posterior.reshape(len(FAMILIES), -1)
    profile = mixture(float(np.exp(inference.mean_log_width(posterior[None])[0])), shares.sum(axis=1))
    low, high = np.percentile(repeats, [5, 95])
    uncertain = max(inference.sd_log_width(posterior), float(np.log(repeats).std()))
    progress("profile", 3, 3)
    return profile, ProfileTrace(
        fwhm_mm=profile.fwhm_mm,
        sd_mm=float(np.sqrt(profile.variance_mm2)),
        repeatability_mm=(float(low), float(high)),
        plausible_mm=_interval(widths, shares.sum(axis=0)),
        doubts=_doubts(uncertain, shares.sum(axis=0), widths, config),
        fit=_fit(variograms, posterior, widths, lags_mm, config),
        seconds=time.monotonic() - started,
    )


def _measured(
    volume: Volume, acquisition: Acquisition, config: ProfileConfig
) -> tuple[tuple[_Spectra, _Spectra], Float[np.ndarray, " m"]]:
    """Spectra of both in-plane axes, and the lags in mm."""
    count, spacing = acquisition.slices.count, acquisition.spacing_mm
    if count < MIN_SLICES:
        raise InputRefused(
            f"{count} slices; estimating a slice profile needs at least {MIN_SLICES}; pass --thickness or --gap instead"
        )
    order = working_order(volume, acquisition.axis)
    slices = scaled_slices(volume, order)[0].numpy()
    in_plane_mm = (volume.voxel_mm[order.axes[0]], volume.voxel_mm[order.axes[1]])
    steps = lags_for(count, spacing, config)
    even = equalised(slices, in_plane_mm, spacing, config.equalise_mm)
    return _spectra(even, in_plane_mm, steps * spacing, steps, config), steps * spacing


def _fit(
    variograms: _Variograms,
    posterior: Float[np.ndarray, " n"],
    widths_mm: Float[np.ndarray, " width"],
    lags_mm: Float[np.ndarray, " m"],
    config: ProfileConfig,
) -> VariogramFit:
    likeliest = int(posterior.argmax())
    g_z, g_x, variance = (
        v.sum(axis=1)[:, likeliest] for v in (variograms.through_plane, variograms.in_plane, variograms.variance)
    )
    variance = np.where(variance > 1e-9 * variance.max(), variance, np.inf)  # bands that hold nothing
    families = dict(zip(FAMILIES, posterior.reshape(len(FAMILIES), -1), strict=True))
    return VariogramFit(widths_mm, families, lags_mm, config.bands_per_mm, g_z / variance, g_x / variance)


def lags_for(slices: int, spacing_mm: float, config: ProfileConfig) -> Int[np.ndarray, " m"]:
    """Lags in slices: from one on, up to `reach_mm`, in about equal ratios."""
    longest = min(max(config.min_lags, int(config.reach_mm // spacing_mm)), slices // 2)
    return np.unique(np.round(np.geomspace(1, longest, min(longest, config.max_lags))).astype(int))


def _widths(voxel_mm: float, spacing_mm: float, config: ProfileConfig) -> Float[np.ndarray, " n"]:
    narrowest = config.narrowest_ratio * voxel_mm
    widest = max(min(config.widest_ratio * spacing_mm, config.widest_mm), 2 * narrowest)
    return np.geomspace(narrowest, widest, CANDIDATES)


def equalised(
    slices: Float[np.ndarray, "a b k"], in_plane_mm: tuple[float, float], spacing_mm: float, reach_mm: float
) -> Float[np.ndarray, "a b k"]:
    """Slices less their local mean, over the root mean square of their in-plane gradient nearby, tapered.

    Taking off the local mean is a filter alike in all directions, so it commutes with slice selection. Without it, what
    the field of view cuts off would vary in plane, by the taper, and not from slice to slice.
    """
    energy = sum(np.gradient(slices, mm, axis=axis) ** 2 for axis, mm in enumerate(in_plane_mm))
    assert isinstance(energy, np.ndarray)
    sigma = [reach_mm / mm for mm in (*in_plane_mm, spacing_mm)]
    local = gaussian_filter(energy, sigma, mode="nearest")
    busy = local[local > 0.05 * local.max()]
    if busy.size == 0:
        raise InputRefused(NO_STRUCTURE)
    detail = slices - gaussian_filter(slices, sigma, mode="nearest")
    even = detail / np.sqrt(local + 0.1 * busy.mean())
    return even * _taper(slices.shape[0])[:, None, None] * _taper(slices.shape[1])[:, None]


def _taper(count: int) -> Float[np.ndarray, " n"]:
    """Cosine flanks over a tenth of the field of view at either end."""
    window = np.ones(count, np.float32)
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(max(count // 10, 1)) + 0.5) / max(count // 10, 1))
    window[: ramp.size] = ramp
    window[-ramp.size :] = ramp[::-1]
    return window


def _spectra(
    slices: Float[np.ndarray, "a b k"],
    in_plane_mm: tuple[float, float],
    lags_mm: Float[np.ndarray, " m"],
    steps: Int[np.ndarray, " m"],
    config: ProfileConfig,
) -> tuple[_Spectra, _Spectra]:
    """Power and cross spectra along either in-plane axis, summed over bands of the other."""
    sizes = [
        scipy.fft.next_fast_len(n + int(lags_mm[-1] / mm)) for n, mm in zip(slices.shape, in_plane_mm, strict=False)
    ]
    transformed = scipy.fft.fft2(slices.transpose(2, 0, 1), sizes)
    frequencies = [np.abs(scipy.fft.fftfreq(n, mm)) for n, mm in zip(sizes, in_plane_mm, strict=True)]
    members = [_bands(f, config.bands_per_mm) for f in frequencies]
    power = transformed.real**2 + transformed.imag**2
    noise = noise_power(power)
    if power.mean() < LEAST_SIGNAL * noise.mean():
        raise InputRefused(NO_STRUCTURE)
    power -= noise
    totals = [np.zeros((2, BLOCKS, len(steps), len(config.bands_per_mm) - 1, n)) for n in sizes]
    for lag, step in enumerate(steps):
        block = (np.arange(slices.shape[2] - step) * BLOCKS) // (slices.shape[2] - step)
        for number in range(BLOCKS):
            first = np.flatnonzero(block == number)
            if first.size == 0:
                continue
            mean = (power[first] + power[first + step]).sum(axis=0) / 2
            cross = (transformed[first + step] * transformed[first].conj()).real.sum(axis=0)
            for kind, image in enumerate((mean, cross)):
                totals[0][kind, number, lag] = members[1] @ image.T
                totals[1][kind, number, lag] = members[0] @ image
    first_axis, second_axis = (
        _Spectra(total[0], total[1], f, mm) for total, f, mm in zip(totals, frequencies, in_plane_mm, strict=True)
    )
    return first_axis, second_axis


def noise_power(power: Float[np.ndarray, "k fa fb"]) -> Float[np.ndarray, "k 1 1"]:
    """What white noise adds to the power of each slice at every frequency: all that is left in the corner.

    Noise differs from slice to slice and anatomy hardly, so noise looks like a narrow profile unless it is taken off.
    The median passes over what anatomy leaves there; that of exponential variates is ln 2 times their mean.
    Where the scanner interpolated in plane the corner is empty, and nothing is taken off.
    """
    along, across = (np.abs(scipy.fft.fftfreq(n)) > NOISE_FREQUENCY for n in power.shape[1:])
    return np.median(power[:, along][:, :, across], axis=(1, 2), keepdims=True) / np.log(2)


def _bands(frequency_per_mm: Float[np.ndarray, " f"], edges: tuple[float, ...]) -> Bool[np.ndarray, "band f"]:
    low, high = np.array(edges[:-1])[:, None], np.array(edges[1:])[:, None]
    return (frequency_per_mm >= low) & (frequency_per_mm < high)


def _response(
    profile: SliceProfile, voxel_mm: float, frequency_per_mm: Float[np.ndarray, " f"]
) -> Float[np.ndarray, " f"]:
    """Squared transfer function of what maps in-plane voxels to slices of `profile`."""
    kernel = thin_to_thick(profile, voxel_mm)
    reach = int(np.ceil(kernel.half_width_mm / voxel_mm)) + 1
    offsets = np.arange(-reach, reach + 1) * voxel_mm
    weights = integrate(kernel, np.zeros(1), offsets)[0]
    return (np.cos(2 * np.pi * np.outer(frequency_per_mm, offsets)) @ weights) ** 2


def _variograms(
    spectra: tuple[_Spectra, _Spectra], candidates: list[SliceProfile], lags_mm: Float[np.ndarray, " m"]
) -> _Variograms:
    """Variograms from slice to slice and along the lines, of lines blurred by every candidate."""
    through, within, variance = [], [], []
    for axis in spectra:
        response = np.stack([_response(profile, axis.voxel_mm, axis.frequency_per_mm) for profile in candidates])
        moved = 1 - np.cos(2 * np.pi * np.outer(lags_mm, axis.frequency_per_mm))
        through.append(np.einsum("nf,kmbf->knbm", response, axis.power - axis.cross, optimize=True))
        within.append(np.einsum("nf,mf,kmbf->knbm", response, moved, axis.power, optimize=True))
        variance.append(np.einsum("nf,kmbf->knbm", response, axis.power, optimize=True))
    return _Variograms(*(np.stack(part) for part in (through, within, variance)))


@dataclass(frozen=True, eq=False)
class _Inference:
    """ln(g_z / g_x) of every candidate against the nuisance of anatomy, for any weighting of the blocks."""

    variograms: _Variograms
    whitening: Float[np.ndarray, "n d d"]
    log_determinant: Float[np.ndarray, " n"]
    log_prior: Float[np.ndarray, " n"]
    log_widths: Float[np.ndarray, " n"]
    used: Bool[np.ndarray, " statistic"]

    @staticmethod
    def of(
        variograms: _Variograms,
        lags_mm: Float[np.ndarray, " m"],
        widths_mm: Float[np.ndarray, " w"],
        spacing_mm: float,
        config: ProfileConfig,
    ) -> "_Inference":
        within, variance = (v.sum(axis=1).swapaxes(0, 1) for v in (variograms.in_plane, variograms.variance))
        candidates, axes, bands = within.shape[:3]
        used = (variance.reshape(candidates, -1) > 1e-9 * variance.max()).all(axis=0)
        if not used.any():
            raise InputRefused(NO_STRUCTURE)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            correlation = np.clip(1 - within / variance, 0, 1).reshape(candidates, -1)[:, used]
        share = correlation**config.correlation_power
        nuisance = _nuisance(np.log(lags_mm), axes, bands, config)[np.ix_(used, used)]
        covariance = share[:, :, None] * nuisance * share[:, None, :] + config.noise_sd**2 * np.eye(int(used.sum()))
        whitening = np.linalg.inv(np.linalg.cholesky(covariance))
        log_widths = np.tile(np.log(widths_mm), len(FAMILIES))
        away = (log_widths - np.log(config.prior_ratio * spacing_mm)) / config.prior_sd
        diagonal = np.diagonal(whitening, axis1=1, axis2=2)
        return _Inference(variograms, whitening, -np.log(diagonal).sum(axis=1), -0.5 * away**2, log_widths, used)

    def posterior(self, counts: Float[np.ndarray, "draw block"]) -> Float[np.ndarray, "draw n"]:
        """Of the candidates, with each block of slices counted so many times."""
        through, within = (
            np.einsum("dk,aknbm->dnabm", counts, v).reshape(len(counts), len(self.log_prior), -1)[..., self.used]
            for v in (self.variograms.through_plane, self.variograms.in_plane)
        )
        tiny = np.finfo(float).tiny
        ratio = np.log(np.maximum(through, tiny)) - np.log(np.maximum(within, tiny))
        misfit = (np.einsum("nij,dnj->dni", self.whitening, ratio) ** 2).sum(axis=-1)
        log_posterior = self.log_prior - 0.5 * misfit - self.log_determinant
        weight = np.exp(log_posterior - log_posterior.max(axis=1, keepdims=True))
        return weight / weight.sum(axis=1, keepdims=True)

    def mean_log_width(self, posterior: Float[np.ndarray, "draw n"]) -> Float[np.ndarray, " draw"]:
        return posterior @ self.log_widths

    def sd_log_width(self, posterior: Float[np.ndarray, " n"]) -> float:
        return float(np.sqrt(posterior @ (self.log_widths - posterior @ self.log_widths) ** 2))


def _nuisance(
    log_lags: Float[np.ndarray, " m"], axes: int, bands: int, config: ProfileConfig
) -> Float[np.ndarray, "d d"]:
    """Covariance of ln(g_z / g_x) that anatomy makes, where both are fully correlated."""
    lags, band = len(log_lags), np.arange(bands)
    alike = np.exp(-0.5 * ((band[:, None] - band) / config.smooth_bands) ** 2)
    near = np.exp(-0.5 * ((log_lags[:, None] - log_lags) / config.smooth_lags) ** 2)
    level, smooth = np.array(config.level_sd), np.array(config.smooth_sd)
    one_axis = np.kron(alike * np.outer(level, level), np.ones((lags, lags)))
    one_axis += np.kron(alike * np.outer(smooth, smooth), near)
    return np.kron(np.where(np.eye(axes) > 0, 1.0, config.shared_ratio), one_axis)


def mixture(fwhm_mm: float, shares: Float[np.ndarray, " family"]) -> Sampled:
    """The families in these shares, each with this full width at half maximum, sampled."""
    step = fwhm_mm / SAMPLES_PER_FWHM
    reach = int(np.ceil(1.6 * SAMPLES_PER_FWHM))
    offsets = np.arange(-reach, reach + 1) * step
    density = sum(
        share * family(fwhm_mm).density(offsets) for share, family in zip(shares, FAMILIES.values(), strict=True)
    )
    assert isinstance(density, np.ndarray)
    sampled = Sampled(offsets, np.maximum(density, 0.0), name="estimated")
    return sampled.scaled(fwhm_mm / sampled.fwhm_mm)  # the steps of a box fall between samples


def _interval(widths_mm: Float[np.ndarray, " n"], probability: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """5 to 95 %."""
    below = np.cumsum(probability) - probability / 2
    low, high = np.exp(np.interp([0.05, 0.95], below, np.log(widths_mm)))
    return float(low), float(high)


def _doubts(
    uncertain: float,
    probability: Float[np.ndarray, " n"],
    widths_mm: Float[np.ndarray, " n"],
    config: ProfileConfig,
) -> tuple[str, ...]:
    """Reasons not to trust the estimate."""
    if probability[:2].sum() + probability[-2:].sum() > config.end_share:
        searched = f"{widths_mm[0]:.3g} to {widths_mm[-1]:.3g} mm"
        return (f"the likeliest slice profiles lie at the end of the range searched, {searched}: do not trust them",)
    if uncertain > config.flat_sd:
        return (
            f"the scan holds too little information to tell its slice profile (uncertain by {100 * uncertain:.0f} %): "
            "the estimate leans on what is usual; trust the protocol rather than this number",
        )
    return ()
