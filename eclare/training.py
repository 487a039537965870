"""Training on one scan."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Int64
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from eclare.config import EclareConfig
from eclare.network import GridChange, ThroughPlaneNetwork, grid_change, oversampling_for
from eclare.pairs import Patches, PatchSource
from forward_models.progress import Progress, silent
from forward_models.stack import Stack

HELD_OUT_PATCHES = 32
IMPROVEMENT = 0.999  # of the best held-out error so far; less does not count as an improvement


class TrainingDiverged(RuntimeError):
    """The loss is no longer a number."""


@dataclass(frozen=True, eq=False)
class Training:
    """A trained network and how training went.

    Attributes:
        network: with the weights that did best on the held-out patches.
        steps: made.
        held_out_rmse: of the network on held-out patches after each look, in scaled intensities.
        interpolation_rmse: of cubic interpolation on the same patches.
        stopped_early: whether the held-out error stopped improving before the steps ran out.
    """

    network: ThroughPlaneNetwork
    steps: int
    held_out_rmse: tuple[float, ...]
    interpolation_rmse: float
    stopped_early: bool

    def record(self) -> dict[str, Any]:
        """For the JSON record of a run."""
        return {
            "parameters": sum(parameter.numel() for parameter in self.network.parameters()),
            "steps": self.steps,
            "stopped_early": self.stopped_early,
            "held_out_rmse": [round(error, 6) for error in self.held_out_rmse],
            "held_out_rmse_of_cubic": round(self.interpolation_rmse, 6),
        }


def train(stack: Stack, config: EclareConfig, *, generator: torch.Generator, progress: Progress = silent) -> Training:
    """Train a network on the in-plane patches of one scan.

    Args:
        stack: the scan; its own slice selection makes the thick half of every pair.
        config: sizes and schedule.
        generator: of weights, patches and flips; on the CPU.
        progress: called after each step.

    Raises:
        InputRefused: the slices are too small in plane to hold a patch.
        TrainingDiverged: the loss is not finite.
    """
    device = stack.slices.device
    learned, held_out = _split(stack.slices.shape[-1], config.held_out)
    source = PatchSource(stack, learned, config.patch_slices, config.patch_width)
    judge = PatchSource(stack, held_out, config.patch_slices, config.patch_width)
    judged = judge.draw(HELD_OUT_PATCHES, generator=generator)
    oversampling = oversampling_for(source.thick, source.thin.spacing_mm)
    change = grid_change(source.thick, source.thin, oversampling).to(device)
    network = _initialised(config, oversampling, generator).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    averaged = AveragedModel(network, avg_fn=_averaging(config.averaged_over))
    optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.learning_rate, total_steps=config.steps)
    watch = _Watch(config.patience)
    step = 0
    for step in range(1, config.steps + 1):
        patches = source.draw(config.batch, generator=generator)
        with reduced_precision(device):
            loss = F.mse_loss(network(patches.thick, change), patches.thin)
        if not torch.isfinite(loss):
            raise TrainingDiverged(f"the loss is {loss.item()} at step {step}; the learning rate is too high")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        averaged.update_parameters(network)
        progress("training", step, config.steps)
        if step % config.check_every == 0 or step == config.steps:
            watch.look(_rmse(averaged.module, judged, change), averaged.module)
            if watch.gave_up:
                progress("training", config.steps, config.steps)
                break
    network.load_state_dict(watch.best_weights)
    return Training(network.eval(), step, tuple(watch.errors), _interpolation_rmse(judged, change), watch.gave_up)


def reduced_precision(device: torch.device) -> AbstractContextManager[Any]:
    """bfloat16 where the device computes it natively, float32 elsewhere."""
    native = {
        "cpu": torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported(),
        "cuda": torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False),
    }
    return torch.autocast(device.type, torch.bfloat16) if native.get(device.type, False) else nullcontext()


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


def _split(count: int, held_out: float) -> tuple[Int64[Tensor, " learned"], Int64[Tensor, " judged"]]:
    """Indices of the slices to learn from and to judge by, the latter spread over the stack.

    Without held-out slices the network is judged by those it learns from.
    """
    everything = torch.arange(count)
    judged = round(held_out * count)
    if judged == 0:
        return everything, everything
    chosen = ((torch.arange(judged) + 0.5) * count / judged).long()
    kept = torch.ones(count, dtype=torch.bool)
    kept[chosen] = False
    return everything[kept], chosen


def _initialised(config: EclareConfig, oversampling: int, generator: torch.Generator) -> ThroughPlaneNetwork:
    """He's initialisation, drawn from the generator; the last layer stays zero."""
    network = ThroughPlaneNetwork(config, oversampling)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d) and module is not network.tail:
            torch.nn.init.kaiming_normal_(module.weight, generator=generator)
            torch.nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    return network


def _averaging(steps: int) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """Exponential average over `steps` steps, over fewer at the beginning; 0 keeps the latest."""

    def average(mean: Tensor, latest: Tensor, count: Tensor | int) -> Tensor:
        over = min(steps, int(count) / 10 + 1)
        return torch.lerp(mean, latest, 1 / over) if over > 1 else latest.clone()

    return average


@torch.no_grad()
def _rmse(network: torch.nn.Module, patches: Patches, change: GridChange) -> float:
    with reduced_precision(patches.thick.device):
        return float(F.mse_loss(network(patches.thick, change), patches.thin).sqrt())


def _interpolation_rmse(patches: Patches, change: GridChange) -> float:
    return float(F.mse_loss(change.interpolate @ patches.thick, patches.thin).sqrt())
