"""Noise levels, the preconditioning of the denoiser, and conversions between states at a noise level.

Throughout, x = x0 + sigma * n with n standard normal: variance exploding, sigma in the intensity units of x0.
A variance-preserving state is z = alpha * x0 + s * n with alpha^2 + s^2 = 1; then z / alpha is x at sigma = s / alpha.
What published networks predict is in `schedules.py`.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Preconditioning:
    """D(x) = mean + c_skip (x - mean) + c_out F(c_in (x - mean), c_noise): table 1 of Karras et al. 2022.

    If intensities were N(mean, sigma_data^2), F = 0 would be the exact denoiser; F is left with a unit-variance input
    and a unit-variance target at every sigma. The paper has mean 0; head MRI with air at 0 has not.
    """

    mean: float
    sigma_data: float

    def c_skip(self, sigma: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return self.sigma_data**2 / (sigma**2 + self.sigma_data**2)

    def c_out(self, sigma: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return sigma * self.sigma_data / torch.sqrt(sigma**2 + self.sigma_data**2)

    def c_in(self, sigma: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return 1 / torch.sqrt(sigma**2 + self.sigma_data**2)

    def loss_weight(self, sigma: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """1 / c_out^2: every noise level starts with the same loss."""
        return 1 / self.c_out(sigma) ** 2


@dataclass(frozen=True)
class NoiseLevels:
    """The sigmas a prior is trained at: log-normal where denoising is neither trivial nor hopeless, and a tail.

    Below about 0.01 the answer is x itself to within sigma; training there would mostly add noise to gradients.

    Attributes:
        least, useful, most: limits of sigma; the log-normal is cut at the first two.
        median: of the log-normal, about 0.6 times the standard deviation of the data as in Karras et al. 2022.
        spread: standard deviation of its natural logarithm; 1.2 in the paper.
        share_beyond: probability of a sigma between `useful` and `most`, needed to start from pure noise.
    """

    least: float = 0.003
    useful: float = 2.0
    most: float = 40.0
    median: float = 0.2
    spread: float = 1.3
    share_beyond: float = 0.06

    def __post_init__(self) -> None:
        if not 0 < self.least < self.median < self.useful < self.most or not 0 <= self.share_beyond < 1:
            raise ValueError(f"expected 0 < least < median < useful < most and a share below 1, got {self}")

    def draw(self, *, generator: torch.Generator) -> float:
        """One sigma."""
        beyond, where = torch.rand(2, generator=generator).tolist()
        deviate = float(torch.randn((), generator=generator))
        if beyond < self.share_beyond:
            return self.useful * (self.most / self.useful) ** where
        return min(max(self.median * math.exp(self.spread * deviate), self.least), self.useful)


def log_noise(sigma: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """log10(sigma) as the time of a sinusoidal embedding made for 0 to 1000: 0.001 -> 0, 100 -> 1000."""
    return 200 * (torch.log10(sigma) + 3)


def noise_from_x0(x: Float[Tensor, "..."], x0: Float[Tensor, "..."], sigma: float) -> Float[Tensor, "..."]:
    """n = (x - x0) / sigma."""
    return (x - x0) / sigma


def x0_from_noise(x: Float[Tensor, "..."], noise: Float[Tensor, "..."], sigma: float) -> Float[Tensor, "..."]:
    """x0 = x - sigma n."""
    return x - sigma * noise


def alpha_from_sigma(sigma: float) -> float:
    """Signal level of the variance-preserving state at `sigma`: 1 / sqrt(1 + sigma^2)."""
    return 1 / math.sqrt(1 + sigma**2)


def sigma_from_alpha(alpha: float) -> float:
    """Inverse of `alpha_from_sigma`."""
    return math.sqrt(1 / alpha**2 - 1)


def sigma_from_time(time: float) -> float:
    """Noise level of z / (1 - t) on the straight path."""
    return time / (1 - time)


def time_from_sigma(sigma: float) -> float:
    """Inverse of `sigma_from_time`."""
    return sigma / (1 + sigma)
