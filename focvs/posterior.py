"""Several samples of one scan: each, their mean, and their spread."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle

import torch
from jaxtyping import Float
from torch import Tensor

from focvs.config import FocvsConfig
from focvs.consistency import StepOn, alone, smooth
from focvs.denoising import VolumeDenoiser, by_slices
from focvs.grid import PriorGrid, prior_grid
from focvs.sampler import sample
from focvs.views import WORLD, view_of
from forward_models.progress import Progress, silent
from forward_models.solve import total_variation_inverse
from forward_models.stack import Stack

EXACTLY = alone(smooth)
Estimate = Callable[[Stack, Progress], Tensor]  # a thin volume that explains the scan


def low_total_variation(stack: Stack, progress: Progress) -> Float[Tensor, "a b thin"]:
    """The plainest thin volume that explains the scan."""
    return total_variation_inverse(stack, progress=progress).x


@dataclass(frozen=True)
class SlicePrior:
    """A denoiser of slices in three planes.

    Attributes:
        denoise: (slices, sigma, world axis of their normal) -> x0; slices (batch, rows, columns), rows and columns
            in the order and directions of RAS, intensities as `forward_models.intensity_scale` leaves them.
        spacing_mm: of its pixels.
    """

    denoise: Callable[[Tensor, float, int], Tensor]
    spacing_mm: float

    def denoisers(self, stack: Stack, own_plane_every: int) -> Sequence[VolumeDenoiser]:
        """What takes turns in sampling the volume of `stack`."""
        return take_turns(self, stack, own_plane_every)


@dataclass(frozen=True)
class VolumePrior:
    """A denoiser of whole volumes; planes do not take turns.

    Attributes:
        denoise: (volume, sigma) -> x0; volume (right, anterior, superior), intensities as those of `SlicePrior`.
        spacing_mm: of its voxels.
    """

    denoise: VolumeDenoiser
    spacing_mm: float

    def denoisers(self, stack: Stack, own_plane_every: int) -> Sequence[VolumeDenoiser]:
        """One, which sees the volume of `stack` as RAS."""
        del own_plane_every
        ras = view_of(stack.directions, 0)  # sagittal slices, in order, are the RAS volume

        def denoise(x: Float[Tensor, "a b z"], sigma: float) -> Float[Tensor, "a b z"]:
            return ras.volume(self.denoise(ras.slices(x), sigma))

        return [denoise]


Prior = SlicePrior | VolumePrior


@dataclass(frozen=True, eq=False)
class Posterior:
    """What several samples say.

    Attributes:
        mean: of the samples; the sample itself if there is one. Explains the scan as well as each of them.
        sd: standard deviation over samples, per voxel; None for one sample.
        samples: how many.
        sweeps: of the denoiser over the volume, in all.
        spacing_mm: of the voxels that the prior worked on.
    """

    mean: Float[Tensor, "a b thin"]
    sd: Float[Tensor, "a b thin"] | None
    samples: int
    sweeps: int
    spacing_mm: tuple[float, float, float]


def super_resolve(
    stack: Stack,
    prior: Prior,
    config: FocvsConfig,
    *,
    generator: torch.Generator,
    samples: int = 1,
    consistency: StepOn = EXACTLY,
    noise_sd: float = 0.0,
    estimate: Estimate = low_total_variation,
    progress: Progress = silent,
) -> Posterior:
    """Mean and spread of `samples` draws from the prior that explain the scan.

    Args:
        stack: the scan.
        prior: what thin slices, or thin volumes, look like.
        config: schedule.
        generator: of the generators of the samples.
        samples: how many to draw.
        consistency: what makes a volume explain the scan, on the grid of the prior and on the scan's own.
        noise_sd: of the scan, for steps that regard it.
        estimate: what sampling starts from, beside noise, where `config` says so.
        progress: called after each sweep.
    """
    grid = prior_grid(stack, prior.spacing_mm)
    mean, squares, count = torch.zeros(()), torch.zeros(()), 0
    each = draws(grid, prior, config, samples, consistency, noise_sd, estimate, generator=generator, progress=progress)
    for x in each:
        count += 1
        deviation = x - mean  # Welford 1962
        mean = mean + deviation / count
        squares = squares + deviation * (x - mean)
    a, b = grid.stack.in_plane_mm
    return Posterior(
        mean=mean,
        sd=torch.sqrt(squares / (count - 1)) if count > 1 else None,
        samples=count,
        sweeps=count * config.steps * config.repeats,
        spacing_mm=(a, b, grid.stack.selection.thin.spacing_mm),
    )


def draws(
    grid: PriorGrid,
    prior: Prior,
    config: FocvsConfig,
    samples: int,
    consistency: StepOn = EXACTLY,
    noise_sd: float = 0.0,
    estimate: Estimate = low_total_variation,
    *,
    generator: torch.Generator,
    progress: Progress = silent,
) -> Iterator[Float[Tensor, "a b thin"]]:
    """Samples on the scan's own grid, one after the other. Sample k does not depend on how many there are."""
    stack = grid.stack
    start = estimate(stack, progress) if config.from_estimate else None
    turns = prior.denoisers(stack, config.own_plane_every)
    step, last = consistency(stack), consistency(grid.own)
    for k in range(samples):
        own = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))
        x = sample(
            turns,
            step,
            stack.slices,
            stack.selection,
            config.levels,
            generator=own,
            start=start,
            noise_sd=noise_sd,
            eta=config.eta,
            repeats=config.repeats,
            told=partial(_tell, progress, k, samples),
        )
        yield grid.carried(x, last, noise_sd)


def _tell(progress: Progress, sample_index: int, samples: int, done: int, total: int) -> None:
    progress("focvs", sample_index * total + done, samples * total)


def take_turns(prior: SlicePrior, stack: Stack, own_plane_every: int = 0) -> Sequence[VolumeDenoiser]:
    """Denoisers in the planes that hold the slice axis, and every so many turns one in the plane of the scan."""
    own = scanned_plane(stack)
    across = [_in_plane(prior, stack, axis) for axis in (1, 0, 2) if axis != own]
    if not own_plane_every:
        return across
    others, scanned = cycle(across), _in_plane(prior, stack, own)
    return [next(others) if turn % own_plane_every else scanned for turn in range(1, 2 * own_plane_every + 1)]


def scanned_plane(stack: Stack) -> int:
    """The world axis along the normal of the scan's own slices: 0 sagittal, 1 coronal, 2 axial."""
    return next(axis for axis in range(len(WORLD)) if view_of(stack.directions, axis).axes[0] == 2)


def _in_plane(prior: SlicePrior, stack: Stack, world_axis: int) -> VolumeDenoiser:
    return by_slices(lambda x, sigma: prior.denoise(x, sigma, world_axis), view_of(stack.directions, world_axis))
