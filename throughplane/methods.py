"""The methods table: every way from a stack of thick slices to a thin volume, behind one signature."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, NoReturn

import torch
from jaxtyping import Float
from torch import Tensor

import eclare
from eclare import EclareConfig, SavedNetwork, StartingNetwork, ThroughPlaneNetwork
from forward_models import along, resampling_weights, slice_selection, slr
from forward_models.progress import Progress, silent
from forward_models.solve import total_variation_inverse, total_variation_seconds
from forward_models.stack import Stack
from forward_models.timing import seconds_of
from throughplane.names import MethodName, Preset

LEARNED_MEMORY = (7.5e8, 20, 20)  # see `Method`


@dataclass(frozen=True, eq=False)
class Outcome:
    """A thin volume in working order, what the record should say of how it came about, and what else came of it.

    Attributes:
        network: that made it, for methods with one.
        sd: standard deviation of the error of `thin`, for methods that draw several samples.
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
        memory: peak bytes, peak bytes per thin voxel, and the same per voxel of `Stack.as_measured`; measured by
            benchmarks/cost.py.
        seconds: (stack, preset) -> how long `run` will take, from pieces of it timed on this machine.
    """

    run: Callable[[Stack, Preset, torch.Generator, Progress], Outcome]
    learns: bool
    memory: tuple[float, float, float]
    seconds: Callable[[Stack, Preset], float]


def cubic(stack: Stack, preset: Preset, generator: torch.Generator, progress: Progress) -> Outcome:
    """Cubic B-spline interpolation at the true positions; linear, no regard for the slice profile."""
    del preset, generator
    weights = resampling_weights(stack.selection.thick, stack.selection.thin)
    thin = along(-1, weights, stack.slices)
    progress("cubic", 1, 1)
    return Outcome(thin)


def inverse(stack: Stack, preset: Preset, generator: torch.Generator, progress: Progress) -> Outcome:
    """A volume of low total variation that explains the scan; nothing learned."""
    del preset, generator
    solution = total_variation_inverse(stack, progress=progress)
    return Outcome(solution.x, {"iterations": solution.iterations, "last_change": solution.change})


def learned(start: StartingNetwork | None, consistent: bool) -> "Method":
    """ECLARE: a network trained on the scan's own in-plane patches, as sharp as they were measured.

    It starts from what others taught it, or from scratch.
    """

    def run(stack: Stack, preset: Preset, generator: torch.Generator, progress: Progress) -> Outcome:
        config = replace(eclare.PRESETS[preset], consistent=consistent)
        outcome = _learned(stack, config, start, generator, progress)
        sha256 = None if start is None else start.sha256
        return replace(outcome, details={**outcome.details, "init_sha256": sha256, "consistent": consistent})

    def seconds(stack: Stack, preset: Preset) -> float:
        return _learned_seconds(stack, eclare.PRESETS[preset], start)

    return Method(run, learns=True, memory=LEARNED_MEMORY, seconds=seconds)


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
    measured = stack.as_measured()
    training = eclare.train(measured, config, generator=generator, start=start, progress=progress)
    thin = _on_grid_of(stack, measured, training.network, training.config, progress)
    trained_for = eclare.TrainedFor.of(stack.selection)
    return Outcome(thin, training.record(), SavedNetwork(training.network, training.config, trained_for))


def _on_grid_of(
    stack: Stack, measured: Stack, network: ThroughPlaneNetwork, config: EclareConfig, progress: Progress
) -> Float[Tensor, "a b thin"]:
    """What the network makes of the scan as it was measured, interpolated in plane as the scanner did it.

    Then made to explain the interpolated scan too: taking magnitudes left in it what is not in the measured one.
    """
    thin = eclare.super_resolve(measured, network, config, progress=progress)
    if measured.slices.shape == stack.slices.shape:
        return thin
    thin = stack.interpolated(thin)
    if not config.consistent:
        return thin
    return stack.selection.less_negative(stack.selection.consistent(thin, stack.slices), stack.slices)


def applied_again(saved: SavedNetwork, consistent: bool) -> "Method":
    """ECLARE with a network that was trained before, on another scan of the session or a companion image."""

    def run(stack: Stack, preset: Preset, generator: torch.Generator, progress: Progress) -> Outcome:
        del preset, generator
        saved.require_fit(stack.selection)
        network = saved.network.to(stack.slices.device)
        config = replace(saved.config, consistent=consistent)
        thin = _on_grid_of(stack, stack.as_measured(), network, config, progress)
        return Outcome(thin, {"network_sha256": saved.sha256, "consistent": consistent}, saved)

    def seconds(stack: Stack, preset: Preset) -> float:
        del preset
        return eclare.inference_seconds(stack.as_measured(), saved.config)

    return Method(run, learns=False, memory=LEARNED_MEMORY, seconds=seconds)


def _cubic_seconds(stack: Stack, preset: Preset) -> float:
    piece = stack.rows(stack.slices.shape[0] // 4 + 1)
    share = piece.slices.shape[0] / stack.slices.shape[0]
    return seconds_of(lambda: cubic(piece, preset, torch.Generator(), silent), stack.slices.device) / share


def _inverse_seconds(stack: Stack, preset: Preset) -> float:
    del preset
    return total_variation_seconds(stack)


def _smore_seconds(stack: Stack, preset: Preset) -> float:
    return _learned_seconds(stack, eclare.PRESETS[preset].as_smore(), None)


def _learned_seconds(stack: Stack, config: EclareConfig, start: StartingNetwork | None) -> float:
    measured = stack.as_measured()
    return eclare.training_seconds(measured, config, start) + eclare.inference_seconds(measured, config)


def _without_prior(*_: object) -> NoReturn:
    """FOCVS is made by `throughplane.sampling`, which brings the prior."""
    raise ValueError("focvs needs a prior: throughplane.sampling.load_sampler(...).method()")


METHODS: Mapping[MethodName, Method] = MappingProxyType(
    {
        "eclare": learned(start=None, consistent=True),
        "focvs": Method(_without_prior, learns=True, memory=(6.5e8, 70, 0), seconds=_without_prior),
        "smore": Method(smore, learns=True, memory=LEARNED_MEMORY, seconds=_smore_seconds),
        "cubic": Method(cubic, learns=False, memory=(4e8, 12, 0), seconds=_cubic_seconds),
        "inverse": Method(inverse, learns=False, memory=(4e8, 58, 0), seconds=_inverse_seconds),
    }
)
