"""How published networks were trained, in terms of x = x0 + sigma n: their noise schedules and what they predict.

A network sees z = signal * x0 + noise * n at a step that it is told; z / signal is x at sigma = noise / signal.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from priors.noise import alpha_from_sigma, time_from_sigma

STEPS = 1000
FIRST_BETA, LAST_BETA = 1e-4, 2e-2


@dataclass(frozen=True)
class PathPoint:
    """z = signal * x0 + noise * n, and the step, from 0 to 1000, that the network is told there."""

    signal: float
    noise: float
    step: float


@lru_cache(maxsize=1)
def linear_beta_sigmas() -> Float64[Tensor, " step"]:
    """sigma of every step of the linear schedule of Ho et al. 2020: signal^2 is the product of 1 - beta so far."""
    betas = torch.linspace(FIRST_BETA, LAST_BETA, STEPS, dtype=torch.float64)
    return torch.sqrt(1 / torch.cumprod(1 - betas, dim=0) - 1)


def step_from_sigma(sigma: float) -> float:
    """Where on the linear-beta schedule `sigma` is, linear in its logarithm between steps, held at both ends."""
    logs = linear_beta_sigmas().log()
    log = math.log(sigma)
    above = int(torch.searchsorted(logs, torch.tensor(log, dtype=torch.float64)))
    if above in (0, STEPS):
        return float(min(above, STEPS - 1))
    low, high = logs[above - 1], logs[above]
    return above - 1 + float((log - low) / (high - low))


def sigma_from_step(step: float) -> float:
    """Inverse of `step_from_sigma` between the ends."""
    logs = linear_beta_sigmas().log()
    below = min(int(step), STEPS - 2)
    return math.exp(float(torch.lerp(logs[below], logs[below + 1], step - below)))


def on_linear_beta(sigma: float) -> PathPoint:
    """The variance-preserving state at `sigma`: signal^2 + noise^2 = 1."""
    signal = alpha_from_sigma(sigma)
    return PathPoint(signal, sigma * signal, step_from_sigma(sigma))


def on_straight_line(sigma: float) -> PathPoint:
    """The state at `sigma` of a rectified flow: signal + noise = 1, and the step is 1000 times the noise."""
    time = time_from_sigma(sigma)
    return PathPoint(1 - time, time, STEPS * time)


def epsilon_from_x0(z: Float[Tensor, "*n"], x0: Float[Tensor, "*n"], at: PathPoint) -> Float[Tensor, "*n"]:
    """n = (z - signal x0) / noise."""
    return (z - at.signal * x0) / at.noise


def x0_from_epsilon(z: Float[Tensor, "*n"], epsilon: Float[Tensor, "*n"], at: PathPoint) -> Float[Tensor, "*n"]:
    """x0 = (z - noise n) / signal."""
    return (z - at.noise * epsilon) / at.signal


def x0_from_sample(_z: Float[Tensor, "*n"], sample: Float[Tensor, "*n"], _at: PathPoint) -> Float[Tensor, "*n"]:
    """The network says x0 itself."""
    return sample


def velocity_from_x0(z: Float[Tensor, "*n"], x0: Float[Tensor, "*n"], at: PathPoint) -> Float[Tensor, "*n"]:
    """v = signal n - noise x0 (Salimans and Ho 2022)."""
    return at.signal * epsilon_from_x0(z, x0, at) - at.noise * x0


def x0_from_velocity(z: Float[Tensor, "*n"], velocity: Float[Tensor, "*n"], at: PathPoint) -> Float[Tensor, "*n"]:
    """x0 = (signal z - noise v) / (signal^2 + noise^2), the divisor being 1 on the linear-beta path."""
    return (at.signal * z - at.noise * velocity) / (at.signal**2 + at.noise**2)


def flow_from_x0(z: Float[Tensor, "*n"], x0: Float[Tensor, "*n"], at: PathPoint) -> Float[Tensor, "*n"]:
    """n - x0, on whatever path."""
    return epsilon_from_x0(z, x0, at) - x0


def x0_from_flow(z: Float[Tensor, "*n"], flow: Float[Tensor, "*n"], at: PathPoint) -> Float[Tensor, "*n"]:
    """x0 = (z - noise flow) / (signal + noise)."""
    return (z - at.noise * flow) / (at.signal + at.noise)


def x0_from_reversed_flow(z: Float[Tensor, "*n"], flow: Float[Tensor, "*n"], at: PathPoint) -> Float[Tensor, "*n"]:
    """The same where the network was trained to say x0 - n."""
    return x0_from_flow(z, -flow, at)


@dataclass(frozen=True)
class Prediction:
    """What a network predicts, and along which path it was trained.

    Attributes:
        name: in files and on the command line.
        path: sigma to the state the network expects.
        x0: state and network output to x0.
    """

    name: str
    path: Callable[[float], PathPoint]
    x0: Callable[[Tensor, Tensor, PathPoint], Tensor]


EPSILON = Prediction("epsilon", on_linear_beta, x0_from_epsilon)
SAMPLE = Prediction("sample", on_linear_beta, x0_from_sample)
VELOCITY = Prediction("velocity", on_linear_beta, x0_from_velocity)
FLOW = Prediction("flow", on_linear_beta, x0_from_flow)
RECTIFIED_FLOW = Prediction("rectified-flow", on_straight_line, x0_from_reversed_flow)
PREDICTIONS = {p.name: p for p in (EPSILON, SAMPLE, VELOCITY, FLOW, RECTIFIED_FLOW)}
