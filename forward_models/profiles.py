"""Slice profiles: how much each depth in the head contributes to one slice.

A profile is a symmetric, non-negative density over the offset from the slice centre, in millimetres, that integrates
to one. Only `integrate` turns millimetres into weights.
"""

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr

from forward_models.errors import InputRefused

FWHM_PER_SIGMA = float(2 * np.sqrt(2 * np.log(2)))


class SliceProfile(ABC):
    """Interface of all slice profiles."""

    name: str

    @property
    @abstractmethod
    def fwhm_mm(self) -> float:
        """Full width at half maximum, the number that scanners call slice thickness."""

    @property
    @abstractmethod
    def half_width_mm(self) -> float:
        """Distance from the centre beyond which nothing is left but rounding."""

    @property
    @abstractmethod
    def variance_mm2(self) -> float:
        """Second central moment."""

    @abstractmethod
    def scaled(self, ratio: float) -> "SliceProfile":
        """The same shape, `ratio` times as wide."""

    @abstractmethod
    def ramp_response(self, z_mm: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Second antiderivative R(z) = integral of p(u) max(0, z - u) du, from which every weight follows."""

    @abstractmethod
    def density(self, z_mm: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """p(z) in 1/mm, for plots and records."""


@dataclass(frozen=True)
class Gaussian(SliceProfile):
    """p(z) = exp(-z^2 / 2 sigma^2), sigma = FWHM / 2.3548."""

    width_mm: float
    name = "gaussian"

    def __post_init__(self) -> None:
        _require_positive_width(self.width_mm)

    @property
    def fwhm_mm(self) -> float:
        return self.width_mm

    @property
    def sigma_mm(self) -> float:
        return self.width_mm / FWHM_PER_SIGMA

    @property
    def half_width_mm(self) -> float:
        return 8.3 * self.sigma_mm  # the mass outside is below 1e-16

    @property
    def variance_mm2(self) -> float:
        return self.sigma_mm**2

    def scaled(self, ratio: float) -> "Gaussian":
        return Gaussian(self.width_mm * ratio)

    def ramp_response(self, z_mm: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        return z_mm * ndtr(z_mm / self.sigma_mm) + self.variance_mm2 * self.density(z_mm)

    def density(self, z_mm: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        return np.exp(-0.5 * (z_mm / self.sigma_mm) ** 2) / (self.sigma_mm * np.sqrt(2 * np.pi))


@dataclass(frozen=True)
class Box(SliceProfile):
    """Every depth inside the slice counts the same."""

    width_mm: float
    name = "box"

    def __post_init__(self) -> None:
        _require_positive_width(self.width_mm)

    @property
    def fwhm_mm(self) -> float:
        return self.width_mm

    @property
    def half_width_mm(self) -> float:
        return self.width_mm / 2

    @property
    def variance_mm2(self) -> float:
        return self.width_mm**2 / 12

    def scaled(self, ratio: float) -> "Box":
        return Box(self.width_mm * ratio)

    def ramp_response(self, z_mm: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        inside = np.clip(z_mm + self.width_mm / 2, 0, self.width_mm)
        return inside**2 / (2 * self.width_mm) + np.maximum(z_mm - self.width_mm / 2, 0)

    def density(self, z_mm: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        return (np.abs(z_mm) <= self.width_mm / 2) / self.width_mm


@dataclass(frozen=True, eq=False)
class Sampled(SliceProfile):
    """A measured or estimated profile: `weights` at evenly spaced, symmetric `offsets_mm`.

    Between samples the density is linear. Weights are symmetrised and normalised on construction.
    """

    offsets_mm: Float[np.ndarray, " n"]
    weights: Float[np.ndarray, " n"]
    name: str = "sampled"

    def __post_init__(self) -> None:
        offsets, weights = _checked_samples(self.offsets_mm, self.weights)
        object.__setattr__(self, "offsets_mm", offsets)
        object.__setattr__(self, "weights", weights)

    @property
    def step_mm(self) -> float:
        return float(self.offsets_mm[1] - self.offsets_mm[0])

    @property
    def fwhm_mm(self) -> float:
        return _fwhm(self.offsets_mm, self.weights)

    @property
    def half_width_mm(self) -> float:
        return float(self.offsets_mm[-1]) + self.step_mm

    @property
    def variance_mm2(self) -> float:
        # the linear pieces between samples add the variance of a triangle of half-base `step_mm`
        return float(np.sum(self.weights * self.offsets_mm**2)) + self.step_mm**2 / 6

    def scaled(self, ratio: float) -> "Sampled":
        return Sampled(self.offsets_mm * ratio, self.weights, self.name)

    def ramp_response(self, z_mm: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        distance = z_mm[..., None] - self.offsets_mm
        return np.sum(self.weights * _triangle_ramp_response(distance, self.step_mm), axis=-1)

    def density(self, z_mm: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        return np.interp(z_mm, self.offsets_mm, self.weights / self.step_mm, left=0.0, right=0.0)


def slr(width_mm: float) -> Sampled:
    """Slice profile of a Shinnar-Le Roux excitation pulse with a full width at half maximum of `width_mm`.

    The shape (least-squares design, time-bandwidth product 4, ripples 1 %, magnitude of the transverse magnetisation)
    is a table made by `scripts/make_slr_profile.py`; it is stored for a width of 1 mm.
    """
    _require_positive_width(width_mm)
    unit = _slr_table()
    return unit.scaled(width_mm / unit.fwhm_mm)


@lru_cache(maxsize=1)
def _slr_table() -> Sampled:
    table = json.loads(files("forward_models").joinpath("slr_profile.json").read_text())
    return Sampled(np.array(table["offsets_mm"]), np.array(table["weights"]), name="slr")


def load_profile(path: Path) -> Sampled:
    """Read a sampled profile in millimetres.

    Args:
        path: `.json` with `offsets_mm` and `weights`, or `.npy` with an array of shape (n, 2) holding both as columns.

    Raises:
        InputRefused: the file is missing, is not such a file, or does not describe a symmetric, non-negative profile.
    """
    expected = (
        "expected gaussian, box, slr, .json with offsets_mm and weights, or .npy of shape (n, 2) with those columns"
    )
    try:
        if path.suffix == ".json":
            table = json.loads(path.read_text(encoding="utf-8"))
            offsets, weights = np.array(table["offsets_mm"], float), np.array(table["weights"], float)
        elif path.suffix == ".npy":
            offsets, weights = _npy_columns(path)
        else:
            raise InputRefused(f"{path} is not a slice profile; {expected}")
        if offsets.ndim != 1 or offsets.shape != weights.shape:
            raise InputRefused(f"{path}: offsets_mm {offsets.shape} and weights {weights.shape} differ; {expected}")
    except InputRefused:
        raise
    except FileNotFoundError:
        raise InputRefused(f"slice profile {path} does not exist; {expected}") from None
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise InputRefused(f"{path} is not a slice profile ({error}); {expected}") from None
    try:
        return Sampled(offsets, weights)
    except InputRefused as error:
        raise InputRefused(f"{path}: {error}") from None


def _npy_columns(path: Path) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    with path.open("rb") as file:
        table = np.lib.format.read_array(file, allow_pickle=False).astype(float)
    if table.ndim != 2 or table.shape[1] != 2:
        raise ValueError(f"an array of shape {table.shape}")
    return table[:, 0], table[:, 1]


def integrate(
    profile: SliceProfile, thick_centres_mm: Float[np.ndarray, " thick"], thin_centres_mm: Float[np.ndarray, " thin"]
) -> Float[np.ndarray, "thick thin"]:
    """Weights of evenly spaced thin samples in each thick slice.

    W[k, j] = integral of p(z - z_k) hat((z - z_j) / h) dz, where `hat` is linear interpolation between thin samples
    h apart. The integral is the second difference of the profile's ramp response, so no quadrature is involved and
    constants and ramps are kept to rounding, as long as the thin samples cover the profile.
    """
    h = thin_centres_mm[1] - thin_centres_mm[0]
    offset = thin_centres_mm[None, :] - thick_centres_mm[:, None]
    upper, centre, lower = (profile.ramp_response(offset + shift) for shift in (h, 0.0, -h))
    return (upper - 2 * centre + lower) / h


def thin_to_thick(profile: SliceProfile, thin_mm: float) -> SliceProfile:
    """The kernel that maps samples of thin slices to a thick slice.

    A thin slice of `thin_mm` has a profile of its own, of the same shape, and linear interpolation between thin
    samples blurs by another thin_mm^2 / 6. Variances of successive blurs add, so the kernel gets what is left:
    var(kernel) = var(T) - var(h) - h^2 / 6. Without the last term W is 10 to 60 times less accurate for a Gaussian
    (docs/experiments.md).
    """
    left_over = 1 - (thin_mm / profile.fwhm_mm) ** 2 - thin_mm**2 / (6 * profile.variance_mm2)
    # a thin slice nearly as wide as the thick one leaves no kernel: W becomes linear interpolation
    return profile.scaled(float(np.sqrt(max(left_over, 1e-4))))


def _require_positive_width(width_mm: float) -> None:
    if not np.isfinite(width_mm) or width_mm <= 0:
        raise InputRefused(f"slice thickness must be a positive number of mm, got {width_mm:g}; check --thickness")


def _checked_samples(
    offsets_mm: Float[np.ndarray, " n"], weights: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    offsets, weights = np.asarray(offsets_mm, float), np.asarray(weights, float)
    if offsets.size < 3:
        raise InputRefused(f"a sampled slice profile needs at least 3 samples, got {offsets.size}")
    with np.errstate(over="ignore", invalid="ignore"):
        length_mm, total = np.ptp(offsets), weights.sum()
    if not (np.isfinite(length_mm) and np.isfinite(total)):
        raise InputRefused("a slice profile and the sum of its weights must be finite; found NaN, Inf or too large")
    steps = np.diff(offsets)
    if steps[0] <= 0 or np.ptp(steps) > 1e-3 * abs(steps[0]):
        raise InputRefused("offsets of a slice profile must increase evenly, in mm")
    if weights.min() < 0 or total <= 0:
        raise InputRefused(f"weights of a slice profile must be non-negative, the smallest is {weights.min():g}")
    weights = weights / total
    if abs(offsets[0] + offsets[-1]) > 1e-3 * steps[0] or np.abs(weights - weights[::-1]).sum() > 0.02:
        raise InputRefused("a slice profile must be symmetric about 0 mm; centre it on its own middle")
    reach = length_mm / 2
    return np.linspace(-reach, reach, offsets.size), (weights + weights[::-1]) / 2


def _fwhm(offsets_mm: Float[np.ndarray, " n"], weights: Float[np.ndarray, " n"]) -> float:
    """Distance between the outermost crossings of half the maximum, by linear interpolation."""
    step = offsets_mm[1] - offsets_mm[0]
    offsets = np.concatenate([[offsets_mm[0] - step], offsets_mm, [offsets_mm[-1] + step]])
    values = np.concatenate([[0.0], weights, [0.0]]) - weights.max() / 2
    last = np.flatnonzero(values >= 0)[-1]
    crossing = offsets[last] + step * values[last] / (values[last] - values[last + 1])
    return float(2 * crossing)


def _triangle_ramp_response(z_mm: Float[np.ndarray, "*shape"], base_mm: float) -> Float[np.ndarray, "*shape"]:
    """Second antiderivative of a triangle of unit area and half-base `base_mm`: |.|^3 splines."""
    t = z_mm / base_mm
    cubic = (np.maximum(t + 1, 0) ** 3 - 2 * np.maximum(t, 0) ** 3 + np.maximum(t - 1, 0) ** 3) / 6
    return base_mm * np.where(t > 1, t, cubic)  # the cubics cancel badly far to the right
