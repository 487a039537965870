"""The methods table: every way from a stack of thick slices to a thin volume, behind one signature."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

import eclare
from eclare import SavedNetwork
from forward_models import along, resampling_weights
from forward_models.progress import Progress
from forward_models.solve import total_variation_inverse
from forward_models.stack import Stack

MethodName = Literal["eclare", "focvs", "cubic", "inverse"]
Preset = Literal["fast", "standard", "best"]


@dataclass(frozen=True, eq=False)
class Outcome:
    """A thin volume in working order, what the record should say of how it came about, and what else came of it.

    Attributes:
        network: that made it, for methods with one.
        sd: standard deviation over posterior samples, for methods that draw several.
    """

    thin: Float[Tensor, "a b thin"]
    details: Mapping[str, Any] = field(default_factory=dict)
    network: SavedNetwork | None = None
    sd: Float[Tensor, "a b thin"] | None = None


@dataclass(frozen=True)
class Method:
    """One row of the table.

    Attributes:
        run: (stack, preset, generator, progress) -> outcome.
        learns: whether preset and seed mean anything to it.
        memory: peak bytes, and peak bytes per thin voxel; measured by benchmarks/cost.py.
    """

    run: Callable[[Stack, Preset, torch.Generator, Progress], Outcome]
    learns: bool
    memory: tuple[float, float]


def cubic(stack: Stack, preset: Preset, generator: torch.Generator, progress: Progress) -> Outcome:
    """Cubic B-spline interpolation at the true positions; linear, no regard for the slice profile."""
    del preset, generator
    weights = resampling_weights(stack.selection.thick, stack.selection.thin)
    thin = along(-1, weights, stack.slices)
    progress("cubic", 1, 1)
    return Outcome(thin)


def inverse(stack: Stack, preset: Preset, generator: torch.Generator, progress: Progress) -> Outcome:
    """The volume of least total variation that explains the scan; nothing learned."""
    del preset, generator
    solution = total_variation_inverse(stack, progress=progress)
    return Outcome(solution.x, {"iterations": solution.iterations, "last_change": solution.change})


def learned(stack: Stack, preset: Preset, generator: torch.Generator, progress: Progress) -> Outcome:
    """ECLARE: a network trained on the scan's own in-plane patches."""
    config = eclare.PRESETS[preset]
    training = eclare.train(stack, config, generator=generator, progress=progress)
    thin = eclare.super_resolve(stack, training.network, config, progress=progress)
    trained_for = eclare.TrainedFor.of(stack.selection)
    return Outcome(thin, training.record(), SavedNetwork(training.network, config, trained_for))


def applied_again(saved: SavedNetwork) -> "Method":
    """ECLARE with a network that was trained before, on another scan of the session or a companion image."""

    def run(stack: Stack, preset: Preset, generator: torch.Generator, progress: Progress) -> Outcome:
        del preset, generator
        saved.require_fit(stack.selection)
        network = saved.network.to(stack.slices.device)
        thin = eclare.super_resolve(stack, network, saved.config, progress=progress)
        return Outcome(thin, {"network_sha256": saved.sha256}, saved)

    return Method(run, learns=False, memory=METHODS["eclare"].memory)


def without_prior(stack: Stack, preset: Preset, generator: torch.Generator, progress: Progress) -> Outcome:
    """FOCVS is made by `throughplane.sampling`, which brings the prior."""
    del stack, preset, generator, progress
    raise ValueError("focvs needs a prior: throughplane.sampling.load_sampler(...).method()")


METHODS: Mapping[MethodName, Method] = MappingProxyType(
    {
        "eclare": Method(learned, learns=True, memory=(7.5e8, 40)),
        "focvs": Method(without_prior, learns=True, memory=(6.5e8, 70)),
        "cubic": Method(cubic, learns=False, memory=(4e8, 12)),
        "inverse": Method(inverse, learns=False, memory=(4e8, 58)),
    }
)
