"""What training changes, and how it goes into a checkpoint and comes back bit for bit."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor

from forward_models import InputRefused
from priors.checkpoint import Checkpoint, config_fields, load_checkpoint, load_train_state
from priors.corpus import Corpus
from priors.denoiser import DenoiserConfig, SliceDenoiser, new_denoiser
from priors.folders import Json, recover
from priors.muon import Muon, kernels_of
from priors.patches import PatchConfig

Precision = Literal["no", "bf16"]
ADAM_BETAS = (0.9, 0.99)
MOMENTS = ("exp_avg", "exp_avg_sq", "momentum")  # what Adam and Muon remember of each parameter


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that shapes the weights. Learning rates are constant after warm-up: stop whenever you like.

    Attributes:
        batch_size: patches per process and step.
        learning_rate: of Adam.
        kernel_learning_rate: of Muon, which then moves the kernels in Adam's place; None for Adam alone.
        warmup_steps: over which learning rates rise from 0.
        clip: largest norm of the gradient.
        ema_decay: of the averaged weights, once (1 + step) / (10 + step) exceeds it.
        precision: of the network's arithmetic; weights and optimiser stay in float32.
        seed: of patches, noise and initial weights.
    """

    batch_size: int = 16
    learning_rate: float = 4e-4
    kernel_learning_rate: float | None = None
    warmup_steps: int = 200
    clip: float = 1.0
    ema_decay: float = 0.9995
    precision: Precision = "no"
    seed: int = 1
    patches: PatchConfig = field(default_factory=PatchConfig)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)

    @property
    def spacing_mm(self) -> float:
        """Of the pixels that the prior knows."""
        return float(self.patches.pixel_mm)


@dataclass(eq=False)
class Learner:
    """The state that training changes: all of it goes into a checkpoint and comes back."""

    network: SliceDenoiser
    optimisers: tuple[torch.optim.Optimizer, ...]
    ema: EMAModel
    step: int = 0
    worked_minutes: float = 0.0
    best_psnr: float = float("-inf")
    before: tuple[Json, ...] = ()  # runs that the weights come from

    def averaged(self) -> dict[str, Tensor]:
        """EMA weights by name."""
        names = [name for name, _ in self.network.named_parameters()]
        return dict(zip(names, self.ema.shadow_params, strict=True))


def new_learner(config: TrainingConfig, corpus: Corpus, latest: Path, start_from: Path | None) -> Learner:
    """The one that `latest` holds; where there is none, a new one, from scratch or with the weights of `start_from`.

    Raises:
        InputRefused: `latest` was made with another configuration or other data.
    """
    with torch.random.fork_rng(devices=[]):  # diffusers draws initial weights from the global generator
        torch.default_generator.manual_seed(config.seed)
        network = new_denoiser(config.denoiser)
    recover(latest)
    resuming = latest.exists()
    before: tuple[Json, ...] = ()
    if start_from is not None and not resuming:
        start = load_checkpoint(start_from)
        network.load_state_dict(start.prior.network.state_dict())
        before = (*start.config.get("before", ()), _run_of(start))
    ema = EMAModel(network.parameters(), decay=config.ema_decay)
    learner = Learner(network, _optimisers(network, config), ema, before=before)
    if resuming:
        _restore(learner, config, corpus, latest)
    return learner


def _optimisers(network: SliceDenoiser, config: TrainingConfig) -> tuple[torch.optim.Optimizer, ...]:
    if config.kernel_learning_rate is None:
        return (torch.optim.Adam(network.parameters(), lr=config.learning_rate, betas=ADAM_BETAS),)
    kernels = kernels_of(network)
    apart = {id(kernel) for kernel in kernels}
    others = [parameter for parameter in network.parameters() if id(parameter) not in apart]
    adam = torch.optim.Adam(others, lr=config.learning_rate, betas=ADAM_BETAS)
    return adam, Muon(kernels, lr=config.kernel_learning_rate)


def train_state(learner: Learner) -> tuple[dict[str, Tensor], Json]:
    tensors: dict[str, Tensor] = {f"network/{name}": tensor for name, tensor in learner.network.named_parameters()}
    tensors |= {f"ema/{name}": tensor for name, tensor in learner.averaged().items()}
    for optimiser, names in _named(learner):
        for index, moments in optimiser.state_dict()["state"].items():
            tensors |= {f"{key}/{names[index]}": moments[key] for key in MOMENTS if key in moments}
    numbers = {
        "step": learner.step,
        "worked_minutes": learner.worked_minutes,
        "best_psnr": learner.best_psnr,
        "ema_step": learner.ema.optimization_step,
    }
    return tensors, numbers


def _restore(learner: Learner, config: TrainingConfig, corpus: Corpus, folder: Path) -> None:
    checkpoint = load_checkpoint(folder)
    found = _completed(checkpoint.config, config_record(TrainingConfig()))
    _require_same(folder, found, config_record(config), "configuration")
    _require_same(folder, checkpoint.data, corpus.record(config.spacing_mm), "data")
    learner.before = tuple(checkpoint.config.get("before", ()))
    tensors, numbers = load_train_state(folder)
    parameters = dict(learner.network.named_parameters())
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"network/{name}"])
        for name, average in learner.averaged().items():
            average.copy_(tensors[f"ema/{name}"])
    for optimiser, names in _named(learner):
        kept = [{key: tensors[f"{key}/{name}"] for key in MOMENTS if f"{key}/{name}" in tensors} for name in names]
        steps = float(numbers["step"])
        moments = {i: {"step": torch.tensor(steps), **found} for i, found in enumerate(kept) if found}
        optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})
    learner.ema.optimization_step = numbers["ema_step"]
    learner.step, learner.worked_minutes = numbers["step"], numbers["worked_minutes"]
    learner.best_psnr = numbers["best_psnr"]


def _named(learner: Learner) -> Iterator[tuple[torch.optim.Optimizer, list[str]]]:
    """Every optimiser and the names of its parameters, in its order."""
    names = {id(parameter): name for name, parameter in learner.network.named_parameters()}
    for optimiser in learner.optimisers:
        yield optimiser, [names[id(parameter)] for parameter in optimiser.param_groups[0]["params"]]


def _run_of(checkpoint: Checkpoint) -> Json:
    """What there is to tell of the run that a checkpoint was left by."""
    step, batch_size = checkpoint.config["reached"]["step"], checkpoint.config["training"]["batch_size"]
    return {"sha256": checkpoint.sha256, "step": step, "patches": step * batch_size}


def config_record(config: TrainingConfig) -> Json:
    fields = config_fields(config)
    return {"denoiser": fields.pop("denoiser"), "training": fields}


def _completed(record: Json, defaults: Json) -> Json:
    """With what an older version did not write: it did what is the default now."""
    present = {
        key: _completed(value, defaults.get(key, {})) if isinstance(value, dict) else value
        for key, value in record.items()
    }
    return {**defaults, **present}


def _require_same(folder: Path, found: Json, expected: Json, what: str) -> None:
    for key, value in expected.items():
        if found.get(key) != value:
            raise InputRefused(
                f"{folder} was trained with other {what}: {key} is {_short(found.get(key))} there and "
                f"{_short(value)} here; write to another folder with --start-from {folder}"
            )


def _short(value: object) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) < 200 else text[:197] + "..."
