"""The methods table: every way from a stack of thick slices to a thin volume, behind one signature."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

import eclare
from eclare import EclareConfig, SavedNetwork, StartingNetwork
from forward_models import along, resampling_weights, slice_selection, slr
from forward_models.progress import Progress
from forward_models.solve import total_variation_inverse
from forward_models.stack import Stack

MethodName = Literal["eclare", "smore", "cubic", "inverse"]
Preset = Literal["fast", "standard", "best"]


@dataclass(frozen=True, eq=False)
class Outcome:
    """A thin volume in working order, what the record should say of how it came about, and the network that made it."""

    thin: Float[Tensor, "a b thin"]
    details: Mapping[str, Any] = field(default_factory=dict)
    network: SavedNetwork | None = None


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


def learned(start: StartingNetwork | None, consistent: bool) -> "Method":
    """ECLARE: a network trained on the scan's own in-plane patches, from where others taught it or from scratch."""

    def run(stack: Stack, preset: Preset, generator: torch.Generator, progress: Progress) -> Outcome:
        config = replace(eclare.PRESETS[preset], consistent=consistent)
        outcome = _learned(stack, config, start, generator, progress)
        sha256 = None if start is None else start.sha256
        return replace(outcome, details={**outcome.details, "init_sha256": sha256, "consistent": consistent})

    return Method(run, learns=True, memory=(7.5e8, 40))


def smore(stack: Stack, preset: Preset, generator: torch.Generator, progress: Progress) -> Outcome:
    """SMORE, version 4: as `EclareConfig.as_smore` says, and an SLR profile of the stated thickness, whatever it is."""
    assumed = slr(stack.selection.profile.fwhm_mm)
    selection = slice_selection(stack.selection.thick, stack.selection.thin, assumed)
    config = eclare.PRESETS[preset].as_smore()
    outcome = _learned(replace(stack, selection=selection), config, None, generator, progress)
    return replace(outcome, network=None)


def _learned(
    stack: Stack,
    config: EclareConfig,
    start: StartingNetwork | None,
    generator: torch.Generator,
    progress: Progress,
) -> Outcome:
    training = eclare.train(stack, config, generator=generator, start=start, progress=progress)
    thin = eclare.super_resolve(stack, training.network, training.config, progress=progress)
    trained_for = eclare.TrainedFor.of(stack.selection)
    return Outcome(thin, training.record(), SavedNetwork(training.network, training.config, trained_for))


def applied_again(saved: SavedNetwork, consistent: bool) -> "Method":
    """ECLARE with a network that was trained before, on another scan of the session or a companion image."""

    def run(stack: Stack, preset: Preset, generator: torch.Generator, progress: Progress) -> Outcome:
        del preset, generator
        saved.require_fit(stack.selection)
        network = saved.network.to(stack.slices.device)
        config = replace(saved.config, consistent=consistent)
        thin = eclare.super_resolve(stack, network, config, progress=progress)
        return Outcome(thin, {"network_sha256": saved.sha256, "consistent": consistent}, saved)

    return Method(run, learns=False, memory=METHODS["eclare"].memory)


METHODS: Mapping[MethodName, Method] = MappingProxyType(
    {
        "eclare": learned(start=None, consistent=True),
        "smore": Method(smore, learns=True, memory=(7.5e8, 40)),
        "cubic": Method(cubic, learns=False, memory=(4e8, 12)),
        "inverse": Method(inverse, learns=False, memory=(4e8, 58)),
    }
)
