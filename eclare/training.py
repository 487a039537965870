"""Training on one scan."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from eclare.averaging import averaging
from eclare.config import EclareConfig, Loss
from eclare.inference import super_resolve
from eclare.network import ThroughPlaneNetwork, grid_change, network_for
from eclare.pairs import Patches, PatchSource
from eclare.pretraining import StartingNetwork
from forward_models import SliceGrid, SliceSelection
from forward_models.progress import Progress, silent
from forward_models.solve import total_variation_inverse
from forward_models.stack import Stack

HELD_OUT_PATCHES = 32
LOSSES = {Loss.SQUARED: F.mse_loss, Loss.ABSOLUTE: F.l1_loss}
IMPROVEMENT = 0.999  # of the best held-out error so far; less does not count as an improvement


class TrainingDiverged(RuntimeError):
    """The loss is no longer a number."""


@dataclass(frozen=True, eq=False)
class Training:
    """A trained network and how training went.

    Attributes:
        network: with the weights that did best on the held-out patches.
        config: sizes and schedule, as they were in the end.
        steps: made.
        held_out_rmse: of the network on held-out patches at each look since the last refresh, whose patches are new;
            in scaled intensities.
        interpolation_rmse: of cubic interpolation on the same patches; None where nothing was trained.
        stopped_early: whether the held-out error stopped improving before the steps ran out.
    """

    network: ThroughPlaneNetwork
    config: EclareConfig
    steps: int
    held_out_rmse: tuple[float, ...]
    interpolation_rmse: float | None
    stopped_early: bool

    def record(self) -> dict[str, Any]:
        """For the JSON record of a run."""
        return {
            "parameters": sum(parameter.numel() for parameter in self.network.parameters()),
            "steps": self.steps,
            "stopped_early": self.stopped_early,
            "held_out_rmse": [round(error, 6) for error in self.held_out_rmse],
            "held_out_rmse_of_cubic": None if self.interpolation_rmse is None else round(self.interpolation_rmse, 6),
        }


def train(
    stack: Stack,
    config: EclareConfig,
    *,
    generator: torch.Generator,
    start: StartingNetwork | None = None,
    progress: Progress = silent,
) -> Training:
    """Train a network on the in-plane patches of one scan.

    Args:
        stack: the scan; its own slice selection makes the thick half of every pair.
        config: sizes and schedule.
        generator: of weights, patches and flips; on the CPU.
        start: taught on other heads (`load_starting_network`), its sizes replace those of `config`; None learns from
            this scan alone.
        progress: called after each step.

    Raises:
        InputRefused: the slices are too small in plane to hold a patch.
        TrainingDiverged: the loss is not finite.

    Notes:
        Beyond the published method (`EclareConfig.as_published` leaves all of it out): the network sees neighbouring
        slices, which a thick-slice scan does not have at the distance of in-plane voxels. They come from a thin volume,
        first the one of least total variation, then the network's own result so far. What it learns is still how
        in-plane detail looks when slices are thick. Weights are averaged, and judged by slices kept from training.
    """
    network = _first_network(stack.selection, config, start, generator).to(stack.slices.device)
    config = config if start is None else start.continued(config)
    if not config.steps:
        return Training(network.eval(), config, 0, (), None, stopped_early=False)
    if start is None:
        lessons = _first_lessons(stack, config, generator, progress)
    else:
        lessons = _lessons_of(stack, network, config, generator, _renamed("starting volume", progress))
    learner = _Learner(config, lessons.source, network)
    watch = _Watch(config.patience)
    step = 0
    for step in range(1, config.steps + 1):
        learner.learn(lessons.source.draw(config.batch, generator=generator))
        progress("training", step, config.steps)
        if step in config.refresh_steps:
            number = config.refresh_steps.index(step) + 1
            lessons = _lessons_of(stack, learner.network, config, generator, _renamed(f"refresh {number}", progress))
            watch = _Watch(config.patience)
        elif step % config.check_every == 0 or step == config.steps:
            watch.look(learner.rmse(lessons.judged), learner.network)
            if watch.gave_up and step > max(config.refresh_steps, default=0):
                progress("training", config.steps, config.steps)
                break
    learner.network.load_state_dict(watch.best_weights)
    interpolation_rmse = learner.interpolation_rmse(lessons.judged)
    network = learner.network.eval()
    return Training(network, config, step, tuple(watch.errors), interpolation_rmse, watch.gave_up)


def repeated_step(source: PatchSource, config: EclareConfig, network: ThroughPlaneNetwork) -> Callable[[], None]:
    """One step of training after the other, for whoever wants to know how long they take."""
    generator = torch.Generator()
    learner = _Learner(config, source, network)
    return lambda: learner.learn(source.draw(config.batch, generator=generator))


@dataclass(frozen=True, eq=False)
class _Lessons:
    """Where pairs come from, and held-out ones to judge by."""

    source: PatchSource
    judged: Patches


def _first_network(
    selection: SliceSelection, config: EclareConfig, start: StartingNetwork | None, generator: torch.Generator
) -> ThroughPlaneNetwork:
    """As others taught it, or else cubic interpolation."""
    if start is not None:
        return start.started(selection, generator)
    return network_for(selection, config, generator)


def _first_lessons(stack: Stack, config: EclareConfig, generator: torch.Generator, progress: Progress) -> _Lessons:
    """From the scan's slices; with neighbours, from the thin volume that total variation makes of them."""
    if not config.neighbours:
        return _lessons(stack.slices, stack.selection.thick, stack, config, generator)
    thin = total_variation_inverse(stack, progress=_renamed("starting volume", progress)).x
    return _lessons(thin, stack.selection.thin, stack, config, generator)


def _lessons_of(
    stack: Stack, network: ThroughPlaneNetwork, config: EclareConfig, generator: torch.Generator, progress: Progress
) -> _Lessons:
    """From what the network makes of the scan so far, made to explain the scan."""
    thin = super_resolve(stack, network, replace(config, flips=False, consistent=True), progress=progress)
    return _lessons(thin, stack.selection.thin, stack, config, generator)


def _lessons(
    volume: Float[Tensor, "a b slices"],
    slices: SliceGrid,
    stack: Stack,
    config: EclareConfig,
    generator: torch.Generator,
) -> _Lessons:
    source = PatchSource(volume, slices, stack, config)
    return _Lessons(source, source.draw(HELD_OUT_PATCHES, generator=generator, held_out=True))


def _renamed(stage: str, progress: Progress) -> Progress:
    """The same progress under another name."""
    return lambda _, done, total: progress(stage, done, total)


class _Learner:
    """The network that learns, and the average of its weights that counts."""

    def __init__(self, config: EclareConfig, source: PatchSource, network: ThroughPlaneNetwork) -> None:
        self._change = grid_change(source.thick, source.thin).to(network.head.weight.device)
        self._learning = network
        self._loss = LOSSES[config.loss]
        self._clip = config.clip
        self._averaged = AveragedModel(self._learning, avg_fn=averaging(config.averaged_over))
        self._optimiser = torch.optim.Adam(self._learning.parameters(), lr=config.learning_rate)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimiser, config.learning_rate, total_steps=config.steps
        )

    @property
    def network(self) -> ThroughPlaneNetwork:
        """With averaged weights."""
        return cast(ThroughPlaneNetwork, self._averaged.module)

    def learn(self, patches: Patches) -> None:
        """One step of the optimiser."""
        loss = self._loss(self._learning(patches.thick, self._change), patches.thin)
        if not torch.isfinite(loss):
            step = self._schedule.last_epoch + 1
            raise TrainingDiverged(f"the loss is {loss.item()} at step {step}; the learning rate is too high")
        self._optimiser.zero_grad()
        loss.backward()
        if self._clip is not None:
            torch.nn.utils.clip_grad_norm_(self._learning.parameters(), self._clip)
        self._optimiser.step()
        self._schedule.step()
        self._averaged.update_parameters(self._learning)

    @torch.no_grad()
    def rmse(self, patches: Patches) -> float:
        """Root mean square error of the averaged network, in scaled intensities."""
        return float(F.mse_loss(self.network(patches.thick, self._change), patches.thin).sqrt())

    def interpolation_rmse(self, patches: Patches) -> float:
        """The same of cubic interpolation."""
        middle = patches.thick[:, self.network.neighbours, None]
        return float(F.mse_loss(self._change.interpolate @ middle, patches.thin).sqrt())


class _Watch:
    """Keeps the best weights, and gives up after `patience` looks without improvement."""

    def __init__(self, patience: int) -> None:
        self.errors: list[float] = []
        self.best_weights: dict[str, Tensor] = {}
        self._patience = patience
        self._best = float("inf")
        self._mark = float("inf")
        self._since = 0

    def look(self, error: float, network: torch.nn.Module) -> None:
        self.errors.append(error)
        if error <= self._best:
            self._best = error
            self.best_weights = {name: value.clone() for name, value in network.state_dict().items()}
        if error < IMPROVEMENT * self._mark:
            self._mark, self._since = error, 0
        else:
            self._since += 1

    @property
    def gave_up(self) -> bool:
        return self._since >= self._patience
