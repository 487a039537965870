"""The slice profile, told from spectra by a network fitted to simulated scans.

In-plane lines, blurred by a candidate profile and sampled every slice spacing, must have the power spectrum of lines
through the slices. `eclare.profile_estimation` compares variograms, in which large structures bury what is near the
Nyquist frequency of the slices; there shapes of equal variance differ most. Lengths here are in in-plane voxels.

Notes:
    The in-plane blur is applied to both sides, as for variograms. How much anatomy may differ between directions, at
    which frequencies, is not written down: a network of two layers sees the ratios of one candidate and gives it a
    score, the same for all candidates. Another one adds what the spectra within slices tell.
    `scripts/fit_profile_spectra.py` fitted both to scans simulated from the training heads.
"""

import time
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import scipy.fft
import torch
from jaxtyping import Complex, Float
from safetensors.torch import load_file
from torch import Tensor, nn

from eclare.profile_estimation import (
    FAMILIES,
    LEAST_SIGNAL,
    MIN_SLICES,
    ProfileTrace,
    SpectrumFit,
    doubts_about,
    equalised,
    interval,
    mixture,
    noise_power,
    quantile,
)
from forward_models import Acquisition, InputRefused, Sampled, SliceProfile, Volume, acquisition_of
from forward_models.profiles import integrate, thin_to_thick
from forward_models.progress import Progress, silent
from forward_models.stack import scaled_slices, working_order

WIDTHS = np.geomspace(1.3, 13.0, 28)  # FWHM of the candidates of each family
ACROSS = (0.0, 0.03, 0.07, 0.12, 0.2, 0.3, 0.45)  # edges of the bands across, cycles per in-plane voxel
ALONG = (0.04, 0.12, 0.2, 0.28, 0.36, 0.44, 0.5001)  # edges of the bands along, cycles per slice spacing
EQUAL_VOXELS = 12.0  # contrast is made even over this distance
WIDEST_RATIO = 2.4  # of FWHM to spacing
FLOOR = float(np.exp(-7.0))  # power, to that of the strongest bands, below which ratios are not told
STRETCHES = 8  # of half the slices, for the repeatability band
DRAWS = 100
FLAT_SD = 0.25  # of ln(FWHM), above which the scan holds too little information
END_SHARE = 0.5  # of the posterior, in the outermost two widths at both ends, above which it is not told
MISFIT = 0.9  # root mean square of ln(through / within) at the likeliest candidate; 99 % of training scans have less
WEIGHTS = Path(__file__).parent / "weights" / "profile_spectra.safetensors"
NOTHING = "the slices hold no structure to estimate a slice profile from; pass --thickness or --gap"


@dataclass(frozen=True, eq=False)
class Spectra:
    """Power along both in-plane axes and through the slices, for every candidate.

    Attributes:
        through, within: by candidate (families in turn), in-plane axis, band along and band across.
    """

    through: Float[np.ndarray, "candidate axis along across"]
    within: Float[np.ndarray, "candidate axis along across"]

    def log_ratio_and_power(
        self,
    ) -> tuple[Float[np.ndarray, "candidate axis along across"], Float[np.ndarray, "candidate axis along across"]]:
        """ln(through / within), and ln(within) over the largest of the axis."""
        largest = self.within.max(axis=(2, 3), keepdims=True)
        if not (largest > 0).all():
            raise InputRefused(NOTHING)
        through, within = (np.maximum(power / largest, 1e-6) for power in (self.through, self.within))
        return np.log(through / within), np.log(within)


class ProfileScores(nn.Module):
    """Scores of all candidates from `Spectra.log_ratio_and_power` and the slice spacing: logarithms of a posterior."""

    def __init__(self, hidden: int = 48, cue_hidden: int = 32) -> None:
        super().__init__()
        bands = (len(ACROSS) - 1) * (len(ALONG) - 1)
        self.match = nn.Sequential(
            nn.Linear(3 * bands + 8, hidden),
            nn.SiLU(),
            nn.Dropout(0.1),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, 1),
        )
        told = nn.Linear(cue_hidden, len(FAMILIES) * len(WIDTHS))
        nn.init.zeros_(told.weight)
        nn.init.zeros_(told.bias)
        self.cue = nn.Sequential(nn.Linear(bands + 3, cue_hidden), nn.SiLU(), nn.Dropout(0.3), told)

    def forward(
        self,
        log_ratio: Float[Tensor, "scan candidate axis along across"],
        log_power: Float[Tensor, "scan candidate axis along across"],
        spacing: Float[Tensor, " scan"],
    ) -> Float[Tensor, "scan candidate"]:
        power = log_power.exp()
        ratio = (power * log_ratio.exp() + FLOOR).log() - (power + FLOOR).log()
        ratio = ratio.clamp(-4, 4).flatten(3)
        mean, apart = ratio.mean(2), (ratio[:, :, 0] - ratio[:, :, 1]).abs()
        scans, candidates = mean.shape[:2]
        away = spacing.log()[:, None].expand(scans, candidates)
        width = torch.tensor(np.log(WIDTHS)).to(spacing).repeat(len(FAMILIES)).expand(scans, -1)
        family = torch.eye(len(FAMILIES)).to(spacing).repeat_interleave(len(WIDTHS), 0).expand(scans, -1, -1)
        sizes = [away - 1.4, width - 1.4, width - away, (width - away) ** 2, 1 / spacing[:, None].expand_as(away)]
        seen = torch.cat([mean, mean.abs() - 0.5, apart / 2, torch.stack(sizes, -1), family], -1)
        within = (log_power[:, 0].mean(1).flatten(1) + 4) / 3
        near = (spacing.log() - 1.4)[:, None]
        cue = self.cue(torch.cat([within, near, 1 / spacing[:, None], near**2], 1))
        scores = 8 * self.match(seen)[..., 0] + cue
        return torch.where(width < away + np.log(WIDEST_RATIO), scores, -20.0).log_softmax(1)


def estimate_from_spectra(
    volume: Volume,
    acquisition: Acquisition | None = None,
    *,
    generator: torch.Generator | None = None,
    progress: Progress = silent,
) -> tuple[Sampled, ProfileTrace]:
    """The slice profile that makes in-plane spectra, aliased by the slice spacing, equal to through-plane ones.

    Args:
        volume: the scan.
        acquisition: which axis is the slice axis; worked out from the volume by default.
        generator: of the repeatability band; seeded with 0 by default.
        progress: called with stage, steps done and steps in all.

    Raises:
        InputRefused: too few slices, or slices without structure.
    """
    started = time.monotonic()
    acquisition = acquisition or acquisition_of(volume)
    generator = generator or torch.Generator().manual_seed(0)
    slices, voxels, spacing, unit_mm = _in_voxels(volume, acquisition)
    transformed = transform(slices, spacing, voxels)
    whole = spectra(transformed, voxels, spacing, [(0, len(transformed))])[0]
    progress("profile", 1, 3)
    posterior = posteriors([whole], spacing)[0]
    parts = spectra(transformed, voxels, spacing, _stretches(len(transformed)))
    progress("profile", 2, 3)
    drawn = [[parts[i] for i in torch.randint(STRETCHES, (2,), generator=generator)] for _ in range(DRAWS)]
    both = [Spectra(a.through + b.through, a.within + b.within) for a, b in drawn]
    repeats = np.log([_median_width(p) for p in posteriors(both, spacing)])
    low, high = np.exp(np.percentile(repeats, [5, 95]) - np.median(repeats))
    widths_mm, shares = WIDTHS * unit_mm, posterior.reshape(len(FAMILIES), -1)
    width_mm = _median_width(posterior) * unit_mm
    profile = mixture(width_mm, shares.sum(axis=1))
    sd = float(np.sqrt(shares.sum(axis=0) @ (np.log(widths_mm) - shares.sum(axis=0) @ np.log(widths_mm)) ** 2))
    doubts = doubts_about(max(sd, float(repeats.std())), shares.sum(axis=0), widths_mm, FLAT_SD, END_SHARE)
    if (misfit := _misfit(whole, int(posterior.argmax()))) > MISFIT:
        doubts = (
            *doubts,
            f"no slice profile explains the scan (misfit {misfit:.2g}): it has directions of its own",
        )
    progress("profile", 3, 3)
    return profile, ProfileTrace(
        fwhm_mm=profile.fwhm_mm,
        sd_mm=float(np.sqrt(profile.variance_mm2)),
        repeatability_mm=(width_mm * float(low), width_mm * float(high)),
        plausible_mm=interval(widths_mm, shares.sum(axis=0)),
        doubts=doubts,
        fit=_fit(whole, posterior, unit_mm, spacing),
        seconds=time.monotonic() - started,
    )


def _in_voxels(
    volume: Volume, acquisition: Acquisition
) -> tuple[Float[np.ndarray, "a b k"], tuple[float, float], float, float]:
    """Slices, and in-plane voxels and slice spacing in units of the mean in-plane voxel, which comes last, in mm."""
    if acquisition.slices.count < MIN_SLICES:
        raise InputRefused(
            f"{acquisition.slices.count} slices; estimating a slice profile needs at least {MIN_SLICES}; "
            "pass --thickness or --gap instead"
        )
    order = working_order(volume, acquisition.axis)
    slices = scaled_slices(volume, order)[0].numpy()
    sizes_mm = (volume.voxel_mm[order.axes[0]], volume.voxel_mm[order.axes[1]])
    unit_mm = float(np.mean(sizes_mm))
    return slices, (sizes_mm[0] / unit_mm, sizes_mm[1] / unit_mm), acquisition.spacing_mm / unit_mm, unit_mm


def transform(
    slices: Float[np.ndarray, "a b k"], spacing: float, voxels: tuple[float, float] = (1.0, 1.0)
) -> Complex[np.ndarray, "k a b"]:
    """Fourier transform of every slice, contrast made even.

    Raises:
        InputRefused: slices without structure.
    """
    even = equalised(slices, voxels, spacing, EQUAL_VOXELS, truncate=2.5)
    transformed = scipy.fft.fft2(even.transpose(2, 0, 1)).astype(np.complex64)
    power = transformed.real**2 + transformed.imag**2
    if power.mean() < LEAST_SIGNAL * noise_power(power).mean():
        raise InputRefused(NOTHING)
    return transformed


def _stretches(slices: int) -> list[tuple[int, int]]:
    """First slice and number of slices."""
    length = max(MIN_SLICES, slices // 2)
    return [(round(first), length) for first in np.linspace(0, slices - length, STRETCHES)]


def spectra(
    transformed: Complex[np.ndarray, "k a b"],
    voxels: tuple[float, float],
    spacing: float,
    stretches: list[tuple[int, int]],
) -> list[Spectra]:
    """Of stretches of slices, Hann windowed. Noise, the same at all frequencies, is taken off both sides.

    Lines along x blurred by the candidate's kernel q have the power |q(f)|^2 P_x(f), which sampling every `spacing`
    folds onto the frequencies of the slices; the same lines, summed over f, have a power at each of those frequencies.
    """
    frequencies = [np.abs(scipy.fft.fftfreq(n, h)) for n, h in zip(transformed.shape[1:], voxels, strict=True)]
    response = [_responses(f, h) for f, h in zip(frequencies, voxels, strict=True)]
    across = [_members(f, ACROSS) for f in frequencies]
    folded = [
        _members(np.abs((f * spacing + 0.5) % 1 - 0.5), ALONG) / (2 * _band_widths())[:, None] for f in frequencies
    ]
    found = []
    for first, length in stretches:
        through, within = _powers(transformed[first : first + length])
        parts = []
        for axis in (0, 1):
            z, x = (through, within) if axis == 0 else (through.swapaxes(1, 2), within.T)
            z, x = np.einsum("zfc,bc->zfb", z, across[1 - axis]), x @ across[1 - axis].T
            blurred = response[axis][:, None] * folded[axis]
            parts.append((np.tensordot(response[axis], z, (1, 1)), np.tensordot(blurred, x, (2, 0))))
        found.append(Spectra(*(np.stack(both, axis=1) for both in zip(*parts, strict=True))))
    return found


def _powers(
    transformed: Complex[np.ndarray, "k a b"],
) -> tuple[Float[np.ndarray, "along a b"], Float[np.ndarray, "a b"]]:
    """Power in the bands of frequency through the slices, and of one slice."""
    window = np.hanning(len(transformed) + 2)[1:-1]
    window = (window / np.sqrt((window**2).sum())).astype(np.float32)[:, None, None]
    power = transformed.real**2 + transformed.imag**2
    noise = float((window**2 * noise_power(power)).sum())
    size = max(64, scipy.fft.next_fast_len(2 * len(transformed)))
    members = _members(np.abs(scipy.fft.fftfreq(size)), ALONG)
    lines = scipy.fft.fft(transformed * window, size, axis=0)
    through = np.stack([(lines[member].real ** 2 + lines[member].imag ** 2).mean(axis=0) for member in members > 0])
    return through - noise, (power * window**2).sum(axis=0) - noise


def _members(frequency: Float[np.ndarray, " f"], edges: tuple[float, ...]) -> Float[np.ndarray, "band f"]:
    return np.stack([(frequency >= low) & (frequency < high) for low, high in pairwise(edges)]).astype(float)


def _band_widths() -> Float[np.ndarray, " along"]:
    return np.diff(np.minimum(ALONG, 0.5))


def _responses(frequency: Float[np.ndarray, " f"], voxel: float) -> Float[np.ndarray, "candidate f"]:
    """Squared transfer functions of what maps in-plane voxels to slices of the candidates."""
    return np.stack([_response(family(w), voxel, frequency) for family in FAMILIES.values() for w in WIDTHS])


def _response(profile: SliceProfile, voxel: float, frequency: Float[np.ndarray, " f"]) -> Float[np.ndarray, " f"]:
    kernel = thin_to_thick(profile, voxel)
    reach = int(np.ceil(kernel.half_width_mm / voxel)) + 1
    offsets = np.arange(-reach, reach + 1) * voxel
    return (np.cos(2 * np.pi * np.outer(frequency, offsets)) @ integrate(kernel, np.zeros(1), offsets)[0]) ** 2


@lru_cache(maxsize=1)
def _networks() -> tuple[ProfileScores, ...]:
    """Those that ship, fitted from different seeds; their posteriors are averaged."""
    stored = load_file(WEIGHTS)
    members = sorted({name.split(".")[0] for name in stored})
    networks = []
    for member in members:
        network = ProfileScores()
        weights = {k.removeprefix(f"{member}."): v.float() for k, v in stored.items() if k.startswith(f"{member}.")}
        network.load_state_dict(weights)
        networks.append(network.eval())
    return tuple(networks)


def posteriors(scans: list[Spectra], spacing: float) -> Float[np.ndarray, "scan candidate"]:
    """Of the candidates, for each."""
    ratio, power = (
        torch.from_numpy(np.stack(part)).float()
        for part in zip(*(scan.log_ratio_and_power() for scan in scans), strict=True)
    )
    with torch.no_grad():
        told = [network(ratio, power, torch.full((len(scans),), spacing)).double().exp() for network in _networks()]
    return torch.stack(told).mean(0).numpy()


def _median_width(posterior: Float[np.ndarray, " candidate"]) -> float:
    return quantile(WIDTHS, posterior.reshape(len(FAMILIES), -1).sum(axis=0), 0.5)


def _misfit(whole: Spectra, candidate: int) -> float:
    """Root mean square of ln(through / within), mean of both axes, where there is a thousandth of the power or more."""
    ratio, power = (part[candidate] for part in whole.log_ratio_and_power())
    told = (power > np.log(1e-3)).mean(axis=0)
    return float(np.sqrt((np.clip(ratio, -4, 4).mean(axis=0) ** 2 * told).sum() / told.sum()))


def _fit(whole: Spectra, posterior: Float[np.ndarray, " candidate"], unit_mm: float, spacing: float) -> SpectrumFit:
    likeliest = int(posterior.argmax())
    ratio, power = (part[likeliest] for part in whole.log_ratio_and_power())
    return SpectrumFit(
        candidates_mm=WIDTHS * unit_mm,
        posterior=dict(zip(FAMILIES, posterior.reshape(len(FAMILIES), -1), strict=True)),
        frequency_per_mm=np.array([(low + min(high, 0.5)) / 2 for low, high in pairwise(ALONG)]) / (spacing * unit_mm),
        bands_per_mm=tuple(edge / unit_mm for edge in ACROSS),
        through_plane=np.exp(ratio + power),
        in_plane=np.exp(power),
    )
