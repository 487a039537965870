"""Several scans of one head: how they lie to one another, and methods that make one thin volume explain all."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import hypot
from typing import Any

import nibabel as nib
import numpy as np
import torch
from jaxtyping import Float
from scipy.ndimage import uniform_filter
from torch import Tensor

from forward_models import Acquisition, InputRefused, Volume, noise_sd
from forward_models.alignment import Agreement, Motion, agreement, aligned, unmoved
from forward_models.joint import Measured, jointly_consistent
from forward_models.lattices import Lattice, LatticeResampling
from forward_models.placed import PlacedStack, placed
from forward_models.progress import Progress
from forward_models.shading import Shading, shading
from forward_models.solve import ITERATIONS, total_variation_inverse
from forward_models.stack import Stack, stack_of
from forward_models.timing import seconds_of
from throughplane.inspection import acquisition_record, geometry_record
from throughplane.methods import Method, Outcome
from throughplane.names import MethodName, Preset
from throughplane.residual import size_record

LEAST_CORRELATION = 0.6  # other contrasts of one head reach 0.54, one contrast in four positions 0.82 and more
DOUBTFUL_CORRELATION = 0.8
MISPLACED_MM = 1.0  # from here on, a note
SEAM_VOXELS = 9  # over which another scan's share of the mean falls to nothing at the edge of its field of view
DISAGREEMENT = 0.02  # of the intensity of the head, and DISAGREEMENT_TO_NOISE: above both, a note
DISAGREEMENT_TO_NOISE = 2.0
USUAL_ITERATIONS = 8  # of joint consistency
TIMED_ROWS = 24
MEMORY_PER_VOXEL = 60  # bytes that the other scans take, beside the method


@dataclass(frozen=True, eq=False)
class Another:
    """A further scan of the same head.

    Attributes:
        name: of its file.
        volume, acquisition: as read; its own sidecar says how it was acquired.
        placed: its stack, where it lies in the world of the first scan, shading undone.
        motion: that took it there, from where its header puts it.
        refined: whether `motion` was estimated; else the header stands.
        misplaced_mm: how far the head still seems to lie beside that of the first scan, where the header stands.
        agreement: with the first scan.
        shading: that it had against the first scan, and what differs beside it.
    """

    name: str
    volume: Volume
    acquisition: Acquisition
    placed: PlacedStack
    motion: Motion
    refined: bool
    misplaced_mm: float
    agreement: Agreement
    shading: Shading

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know of it before trusting the result."""
        advice = "pass --thickness or --gap if you know better", "its sidecar can say it, as SliceThickness"
        notes = [note.replace(*advice) for note in (*self.volume.warnings, *self.acquisition.notes)]
        if self.agreement.correlation < DOUBTFUL_CORRELATION:
            notes.append(f"agrees poorly with the first scan: correlation {self.agreement.correlation:.2f}")
        if self.misplaced_mm > MISPLACED_MM:
            notes.append(
                f"its header seems to misplace it by {self.misplaced_mm:.1f} mm, which can cost more than the scan "
                "brings; pass --align"
            )
        noise, share = noise_sd(self.placed.stack.slices), self.shading.share
        if share > DISAGREEMENT and self.disagreement > DISAGREEMENT_TO_NOISE * noise:
            times = f"{self.disagreement / noise:.1f} times its noise" if noise else "without noise of its own"
            notes.append(
                f"differs from the first scan by {100 * share:.1f} % of the intensity of the head beside place and "
                f"shading, {times}, and is explained to that only; expect faint bands where its slices are parallel to "
                "those of the first"
            )
        return tuple(f"{self.name}: {note}" for note in notes)

    @property
    def disagreement(self) -> float:
        """Root mean square of what differs beside place and shading, in the units of its stack."""
        return self.shading.disagreement / self.placed.stack.scale

    @property
    def assumed_noise_sd(self) -> float:
        """To which it is explained, in the units of its stack: its own noise, and what it differs by."""
        return hypot(noise_sd(self.placed.stack.slices), self.disagreement)

    def units_in(self, units: float) -> float:
        """Factor that takes its intensities to those of the first scan, whose `units` in the file count as 1."""
        return self.placed.stack.scale / self.agreement.gain / units

    def measured(self, thin: Lattice, units: float, device: torch.device) -> Measured:
        """As joint consistency sees it; `units` is the intensity of the first scan's file that counts as 1."""
        to_units = self.units_in(units)
        slices = self.placed.stack.slices * to_units
        return Measured(self.placed.seen_from(thin), slices.to(device), self.assumed_noise_sd * to_units)


def fitted(
    first: PlacedStack, name: str, volume: Volume, acquisition: Acquisition, thin_mm: float, align: bool
) -> Another:
    """Find out how another scan lies to the first, by its header or, with `align`, by what both show.

    Raises:
        InputRefused: the two hardly overlap, or do not look like the same head in the same contrast.
    """
    own = placed(stack_of(volume, acquisition, thin_mm), volume)
    try:
        alike = align or agreement(first, own).correlation >= LEAST_CORRELATION
        found = aligned(first, own) if alike else unmoved(own)
        motion = found if align else unmoved(own)
        moved = own.moved(motion.matrix)
        agreed = agreement(first, moved)
        LatticeResampling(first.thin, moved.slices)
    except InputRefused as refusal:
        raise InputRefused(f"--with {name}: {refusal}") from None
    if agreed.correlation < LEAST_CORRELATION:
        hint = "" if align else ", or pass --align if its header misplaces it"
        raise InputRefused(
            f"--with {name}: its intensities do not follow those of the first scan (correlation "
            f"{agreed.correlation:.2f}, at least {LEAST_CORRELATION} expected); give scans of one head in one contrast"
            f"{hint}"
        )
    shaded = shading(first, moved, agreed.gain)
    even = replace(moved, stack=replace(moved.stack, slices=shaded.undone(moved.stack.slices)))
    return Another(name, volume, acquisition, even, motion, align, 0.0 if align else found.reach_mm, agreed, shaded)


def measured_from(first: PlacedStack, others: Sequence[Another]) -> list[Measured]:
    """What the other scans measured of the thin volume of the first."""
    stack = first.stack
    return [other.measured(first.thin, stack.scale, stack.slices.device) for other in others]


def jointly(name: MethodName, alone: Method, lattice: Lattice, others: Sequence[Another]) -> Method:
    """`inverse` or `eclare` for several scans; `lattice` is where the slices of the first lie, in working order."""
    run, sweeps = {"inverse": (_inverse, ITERATIONS), "eclare": (_learned, 0)}[name]

    def run_all(stack: Stack, preset: Preset, generator: torch.Generator, progress: Progress) -> Outcome:
        first = PlacedStack(stack, lattice)
        measured = measured_from(first, others)

        def one(stack: Stack, number: int) -> Outcome:
            return alone.run(stack, preset, generator, numbered(progress, number))

        return run(first, others, measured, one, progress)

    def seconds(stack: Stack, preset: Preset) -> float:
        sweeping = sum(sweep_seconds(PlacedStack(stack, lattice), other) for other in others)
        stacks = (stack, *(other.placed.stack for other in others)) if name == "eclare" else (stack,)
        return (sweeps + USUAL_ITERATIONS) * sweeping + sum(alone.seconds(each, preset) for each in stacks)

    fixed, per_voxel, per_measured = alone.memory
    return replace(alone, run=run_all, seconds=seconds, memory=(fixed, per_voxel + MEMORY_PER_VOXEL, per_measured))


Alone = Callable[[Stack, int], Outcome]  # a stack and its number, from 1


def _inverse(
    first: PlacedStack, others: Sequence[Another], measured: Sequence[Measured], alone: Alone, progress: Progress
) -> Outcome:
    """A volume of low total variation that explains all scans."""
    del others, alone
    solution = total_variation_inverse(first.stack, measured, progress=progress)
    return Outcome(solution.x, {"iterations": solution.iterations, "last_change": solution.change})


def _learned(
    first: PlacedStack, others: Sequence[Another], measured: Sequence[Measured], alone: Alone, progress: Progress
) -> Outcome:
    """Each scan by itself, brought to the first grid and averaged, then made to explain all."""
    device = first.stack.slices.device
    stacks = [first.stack, *(other.placed.stack.to(device) for other in others)]
    outcomes = [alone(stack, number) for number, stack in enumerate(stacks, start=1)]
    theirs = [(other, other.placed.thin, each.thin) for other, each in zip(others, outcomes[1:], strict=True)]
    progress("joint consistency", 0, 1)
    x = averaged(first, outcomes[0].thin, theirs)
    solution = jointly_consistent(x, first.stack.slices, first.stack.selection, measured)
    progress("joint consistency", 1, 1)
    details = {
        **outcomes[0].details,
        "others": [dict(outcome.details) for outcome in outcomes[1:]],
        "joint_iterations": solution.iterations,
        "joint_gradient": solution.gradient,
    }
    return Outcome(solution.x, details)


def averaged(
    first: PlacedStack, x: Float[Tensor, "a b thin"], theirs: Sequence[tuple[Another, Lattice, Tensor]]
) -> Float[Tensor, "a b thin"]:
    """The mean of what every scan makes of itself, on the grid of the first.

    Args:
        first: scan.
        x: its thin volume.
        theirs: every other scan, where the voxels of its thin volume lie, and that volume.
    """
    total, weight = x, torch.ones_like(x)
    for other, source, its in theirs:
        brought, share = brought_to(first.thin, source, its)
        total = total + share * brought * other.units_in(first.stack.scale)
        weight = weight + share
    return total / weight


def brought_to(
    thin: Lattice, source: Lattice, x: Float[Tensor, "i j k"]
) -> tuple[Float[Tensor, "a b thin"], Float[Tensor, "a b thin"]]:
    """The thin volume of another scan, on `source`, on the lattice of the first; how far it counts there, 0 to 1."""
    resampling = LatticeResampling(source, thin)
    inside = resampling.inside.numpy().astype(np.float32)
    near = uniform_filter(inside, SEAM_VOXELS, mode="nearest")
    share = torch.from_numpy(inside * np.clip(2 * near - 1, 0, 1))
    return resampling.apply(x), share.to(x)


def explained(
    other: Another, thin: Lattice, x: Float[np.ndarray, "a b thin"]
) -> tuple[dict[str, Any], nib.Nifti1Image]:
    """What the record says of another scan, and A x - y as an image on its grid, in its units; 0 where not counted.

    `x` is the thin volume as stored, in working order and in the units of the first scan's file.
    """
    operator, stack = other.placed.seen_from(thin), other.placed.stack
    counted = operator.counted.bool().numpy()
    field = other.shading.field.double()
    measured = (stack.slices.double().cpu() * field).numpy() * stack.scale
    seen = (operator.apply(torch.from_numpy(x.astype(np.float64))) * field).numpy() * other.agreement.gain
    left = np.where(counted, seen - measured, 0.0)
    noise = noise_sd(stack.slices * other.shading.field) * stack.scale
    acquisition = other.acquisition
    in_file = np.ascontiguousarray(stack.order.undo(left))
    image = other.volume.on_grid(in_file, acquisition.axis, acquisition.slices).image()
    residual = size_record(left[counted], measured[counted], noise)
    return {**_described(other), "share_counted": operator.share_counted, "residual": residual}, image


def _described(other: Another) -> Mapping[str, Any]:
    motion = other.motion
    return {
        "input": {"file": other.name, "sha256": other.volume.sha256, **geometry_record(other.volume)},
        "acquisition": acquisition_record(other.volume, other.acquisition),
        "alignment": {
            "source": "estimate" if other.refined else "header",
            "misplaced_mm": round(other.misplaced_mm, 3),
            "shift_mm": motion.shift_mm.round(4).tolist(),
            "rotation_vector_degrees": motion.vector_degrees.round(4).tolist(),
            "centre_mm": motion.centre.round(4).tolist(),
            "matrix": motion.matrix.tolist(),
        },
        "gain": other.agreement.gain,
        "shading_sd": other.shading.strength,
        "disagreement": other.shading.share,
        "assumed_noise_sd": other.assumed_noise_sd * other.placed.stack.scale,
        "correlation": other.agreement.correlation,
        "overlap": other.agreement.overlap,
    }


def sweep_seconds(first: PlacedStack, other: Another) -> float:
    """Of one application of the operator and one of its adjoint, from a few rows."""
    piece = other.placed.rows(TIMED_ROWS)
    operator = piece.seen_from(first.thin)
    x = torch.ones(first.thin.shape, device=first.stack.slices.device)
    once = seconds_of(lambda: operator.adjoint(operator.apply(x)), x.device)
    return once * other.placed.slices.shape[0] / piece.slices.shape[0]


def numbered(progress: Progress, number: int) -> Progress:
    """The same progress, with the number of the scan in every stage but those of the first."""
    return progress if number == 1 else lambda stage, done, total: progress(f"{stage}, scan {number}", done, total)
