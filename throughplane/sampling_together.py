"""FOCVS for several scans of one head: a start that all of them have a share in, and steps that explain all."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

import focvs
from focvs.consistency import ON_THE_WAY
from forward_models.joint import ITERATIONS, jointly_consistent
from forward_models.lattices import Lattice
from forward_models.placed import PlacedStack, placed_within
from forward_models.progress import Progress
from forward_models.stack import Stack
from throughplane.methods import Method, Outcome
from throughplane.names import Preset
from throughplane.sampling import Sampler, eclare_start, start_seconds
from throughplane.together import MEMORY_PER_VOXEL, Another, averaged, measured_from, numbered, sweep_seconds


def sampled_jointly(sampler: Sampler, lattice: Lattice, others: Sequence[Another]) -> Method:
    """`focvs` for several scans; `lattice` is where the slices of the first lie, in working order."""
    alone = sampler.method()

    def run(stack: Stack, preset: Preset, generator: torch.Generator, progress: Progress) -> Outcome:
        last_level = focvs.PRESETS[preset].levels[-2]
        consistency = partial(step_for_all, lattice, others, last_level)
        estimate = partial(said_by_all, partial(eclare_start, sampler.taught, preset), lattice, others)
        drawn, details = sampler.drawn(stack, preset, generator, progress, consistency, estimate)
        return Outcome(drawn.mean, details)

    def seconds(stack: Stack, preset: Preset) -> float:
        config = focvs.PRESETS[preset]
        grid = focvs.prior_grid(stack, sampler.prior.spacing_mm)
        first = placed_within(lattice, grid.stack)
        in_full = ITERATIONS + 1
        sweeps = sampler.samples * config.repeats * ((config.steps - 1) * (ON_THE_WAY + 1) + in_full)
        total = alone.seconds(stack, preset)
        for other in others:
            once = sweep_seconds(first, other)
            total += sweeps * once
            if config.from_estimate:
                theirs = start_seconds(sampler.taught, preset, grid.stack.selection.thin.spacing_mm, other.placed.stack)
                total += theirs + in_full * once
            if not grid.is_own:
                total += sampler.samples * in_full * sweep_seconds(PlacedStack(stack, lattice), other)
        return total

    fixed, per_voxel, per_measured = alone.memory
    return replace(alone, run=run, seconds=seconds, memory=(fixed, per_voxel + MEMORY_PER_VOXEL, per_measured))


def step_for_all(lattice: Lattice, others: Sequence[Another], last_level: float, stack: Stack) -> focvs.Consistency:
    """The step that explains all scans, on the grid that the first, `stack`, is given on."""
    return focvs.explaining_all(measured_from(placed_within(lattice, stack), others), last_level)


def said_by_all(
    estimate: focvs.Estimate, lattice: Lattice, others: Sequence[Another], stack: Stack, progress: Progress
) -> Float[Tensor, "a b thin"]:
    """What `estimate` makes of every scan, averaged and made to explain all.

    Every scan has voxels of the size that `stack`, the first, is given in.
    """
    first = placed_within(lattice, stack)
    own, theirs = estimate(stack, progress), []
    for number, other in enumerate(others, start=2):
        seen = starting_stack(stack, other)
        thin = estimate(seen.to(stack.slices.device), numbered(progress, number))
        theirs.append((other, placed_within(other.placed.slices, seen).thin, thin))
    x = averaged(first, own, theirs)
    return jointly_consistent(x, stack.slices, stack.selection, measured_from(first, others)).x


def starting_stack(first: Stack, other: Another) -> Stack:
    """The other scan with thin voxels of the size that those of the first have."""
    return focvs.prior_grid(other.placed.stack, first.selection.thin.spacing_mm).stack
