"""One network for every scan to start from, taught on thin heads how thick slices of every kind come about."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim.swa_utils import AveragedModel

from eclare.averaging import averaging
from eclare.config import EclareConfig
from eclare.network import (
    GridChange,
    ThroughPlaneNetwork,
    grid_change,
    network_for,
    new_network,
    oversampling_for,
)
from eclare.pairs import MIN_PATCH_SLICES, Patches, PatchSource
from forward_models import Box, Gaussian, SliceGrid, SliceProfile, SliceSelection, slice_selection, slr, thin_grid_for
from forward_models.profiles import FWHM_PER_SIGMA
from forward_models.progress import Progress, silent
from forward_models.stack import Stack, WorkingOrder

VOXEL_MM = 1.0  # of the thin heads; only ratios to it matter
NEGLIGIBLE = 3e-4  # squared intensity; nearly even patches count less
PROFILES: tuple[Callable[[float], SliceProfile], ...] = (Gaussian, Box, slr)

DrawHead = Callable[[torch.Generator], Float[Tensor, "a b c"]]


@dataclass(frozen=True)
class PretrainingConfig:
    """What the network to start from learns.

    Attributes:
        network: its sizes, and those of the patches.
        cosines: amplitudes per slice that the network gives; scans with a larger factor add their own.
        factors: slice spacings over thin spacings, drawn evenly on a logarithmic scale.
        filled: slice thicknesses over slice spacings; below 1 leaves gaps, above 1 overlaps.
        steps: of the optimiser.
        batch: patches per step, all of one lesson.
        learning_rate: at the peak of a one-cycle schedule (Adam).
        clip: largest norm of the gradient.
        averaged_over: steps over which weights are averaged.
        lessons: heads and slice selections at hand at any time.
        lesson_steps: steps from one lesson before another takes its place.
    """

    network: EclareConfig = field(default_factory=EclareConfig)
    cosines: int = 12
    factors: tuple[float, float] = (1.8, 11.0)
    filled: tuple[float, float] = (0.55, 1.1)
    steps: int = 40_000
    batch: int = 8
    learning_rate: float = 1e-3
    clip: float = 0.03
    averaged_over: int = 2000
    lessons: int = 12
    lesson_steps: int = 20


class StartingNetwork(nn.Module):
    """A network that is told how the slices were selected: through its biases, which a scan's own network keeps.

    Args:
        config: sizes of the network.
        cosines: amplitudes per slice that it gives.
        generator: of initial weights.
        sha256: of the file that it was read from.
    """

    def __init__(self, config: EclareConfig, cosines: int, generator: torch.Generator, sha256: str = "") -> None:
        super().__init__()
        self.config = config
        self.cosines = cosines
        self.sha256 = sha256
        self.network = new_network(config, cosines, generator)
        sizes = {name: weight.numel() for name, weight in self.network.named_parameters() if name.endswith("bias")}
        self.sizes = {name: size for name, size in sizes.items() if not name.startswith("tail")}
        with torch.random.fork_rng(devices=[]):  # as in `new_network`
            first, last = nn.Linear(3, 32), nn.Linear(32, sum(self.sizes.values()))
        nn.init.kaiming_normal_(first.weight, generator=generator)
        for parameter in (first.bias, last.weight, last.bias):
            nn.init.zeros_(parameter)
        self.told = nn.Sequential(first, nn.ReLU(), last)

    def forward(
        self, slices: Float[Tensor, "batch near thick width"], change: GridChange, selection: SliceSelection
    ) -> Float[Tensor, "batch 1 thin width"]:
        return functional_call(self.network, self._weights_for(selection), (slices, change))

    def continued(self, config: EclareConfig) -> EclareConfig:
        """How this network learns on from a scan: its own sizes, the schedule of `config`, a lower learning rate."""
        own = self.config
        return replace(
            config,
            block=own.block,
            blocks=own.blocks,
            channels=own.channels,
            neighbours=own.neighbours,
            learning_rate=config.starting_rate,
        )

    @torch.no_grad()
    def started(self, selection: SliceSelection, generator: torch.Generator) -> ThroughPlaneNetwork:
        """The network that a scan with this slice selection starts with; amplitudes not known here start at zero."""
        network = network_for(selection, self.config, generator)
        for name, known in self._weights_for(selection).items():
            network.get_parameter(name)[: len(known)] = known
        return network

    def _weights_for(self, selection: SliceSelection) -> dict[str, Tensor]:
        """The network's, with as many amplitudes as the selection needs and the biases that it asks for."""
        shifts = self.told(_description(selection)).split(list(self.sizes.values()))
        shift_of = dict(zip(self.sizes, shifts, strict=True))
        needed = oversampling_for(selection.thick.spacing_mm, selection.thin.spacing_mm)
        return {
            name: parameter[:needed] if name.startswith("tail") else parameter + shift_of.get(name, 0)
            for name, parameter in self.network.named_parameters()
        }


def pretrain(
    config: PretrainingConfig,
    draw_head: DrawHead,
    *,
    generator: torch.Generator,
    progress: Progress = silent,
    keep: Callable[[int, StartingNetwork], None] = lambda _step, _network: None,
) -> StartingNetwork:
    """Teach a network on thin heads, every few steps with another slice selection; the truth is known.

    Args:
        config: sizes, schedule and range of slice selections.
        draw_head: gives a part of a thin head, cubic voxels, intensities near 0 to 1; neighbouring slices along the
            last axis.
        generator: of weights, selections, heads and patches.
        progress: called after each step.
        keep: called after each step with the averaged network.
    """
    network = StartingNetwork(config.network, config.cosines, generator)
    averaged = AveragedModel(network, avg_fn=averaging(config.averaged_over))
    optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.learning_rate, total_steps=config.steps)
    lessons = [_draw_lesson(config, draw_head, generator) for _ in range(config.lessons)]
    for step in range(1, config.steps + 1):
        chosen = step % config.lessons
        if step > config.lessons and step // config.lessons % config.lesson_steps == chosen % config.lesson_steps:
            lessons[chosen] = _draw_lesson(config, draw_head, generator)
        lesson = lessons[chosen]
        patches = lesson.source.draw(config.batch, generator=generator)
        loss = lesson.loss(network, patches)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip)
        optimiser.step()
        schedule.step()
        averaged.update_parameters(network)
        progress("pre-training", step, config.steps)
        keep(step, cast(StartingNetwork, averaged.module))
    return cast(StartingNetwork, averaged.module)


@dataclass(frozen=True, eq=False)
class _Lesson:
    """A head, and how its slices are selected."""

    source: PatchSource
    change: GridChange
    selection: SliceSelection

    def loss(self, network: StartingNetwork, patches: Patches) -> Float[Tensor, ""]:
        """Mean squared error relative to that of cubic interpolation, so that every slice selection counts alike."""
        middle = patches.thick[:, network.network.neighbours, None]
        scale = F.mse_loss(self.change.interpolate @ middle, patches.thin) + NEGLIGIBLE
        return F.mse_loss(network(patches.thick, self.change, self.selection), patches.thin) / scale


def _draw_lesson(config: PretrainingConfig, draw_head: DrawHead, generator: torch.Generator) -> _Lesson:
    head = draw_head(generator)
    spacing_mm = VOXEL_MM * _log_uniform(config.factors, generator)
    spacing_mm = min(spacing_mm, min(head.shape[:2]) * VOXEL_MM / (MIN_PATCH_SLICES + 1))
    thickness_mm = max(spacing_mm * _uniform(config.filled, generator), 1.05 * VOXEL_MM)
    profile = PROFILES[int(torch.randint(len(PROFILES), (), generator=generator))](thickness_mm)
    thick = SliceGrid(config.network.patch_slices, spacing_mm)
    selection = slice_selection(thick, thin_grid_for(thick, VOXEL_MM), profile)
    order = WorkingOrder((0, 1, 2), (False, False, False))
    resolved = (head.shape[0], head.shape[1])
    stack = Stack(head, (VOXEL_MM, VOXEL_MM), selection, 1.0, order, resolved)
    source = PatchSource(head, SliceGrid(head.shape[2], VOXEL_MM), stack, config.network)
    return _Lesson(source, grid_change(source.thick, source.thin), selection)


def _description(selection: SliceSelection) -> Float[Tensor, "3"]:
    """Factor, how much of the spacing a slice fills, and how box-like its profile is; 0 for 4 mm slices at 1 mm."""
    spacing_mm, profile = selection.thick.spacing_mm, selection.profile
    factor = math.log2(spacing_mm / selection.thin.spacing_mm) - 2
    filled = profile.fwhm_mm / spacing_mm - 1
    peaked = FWHM_PER_SIGMA * math.sqrt(profile.variance_mm2) / profile.fwhm_mm - 1
    return torch.tensor([factor, filled, peaked])


def _uniform(interval: tuple[float, float], generator: torch.Generator) -> float:
    low, high = interval
    return low + (high - low) * float(torch.rand((), generator=generator))


def _log_uniform(interval: tuple[float, float], generator: torch.Generator) -> float:
    return math.exp(_uniform((math.log(interval[0]), math.log(interval[1])), generator))
