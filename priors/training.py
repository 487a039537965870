"""Training a slice prior: fetch, noise, loss, backward, step, average, log, save."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Literal

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader

from forward_models import InputRefused
from priors.card import model_card
from priors.checkpoint import (
    Json,
    config_fields,
    load_checkpoint,
    load_train_state,
    preprocess_record,
    recover,
    save_checkpoint,
)
from priors.corpus import Corpus
from priors.denoiser import DenoiserConfig, Prior, SliceDenoiser
from priors.patches import Batch, BatchIndices, PatchConfig, Patches, collate
from priors.validation import FixedSlice, fixed_slices, mean_psnr_by_sigma

LATEST, BEST, LOG = "latest", "best", "log.jsonl"
PAUSE = 10.0  # a step this many times longer than usual is a pause (a stopped process), not work
Precision = Literal["no", "bf16", "fp16"]


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that shapes the weights. The learning rate is constant after warm-up: stop whenever you like.

    Attributes:
        batch_size: patches per process and step.
        learning_rate: of Adam.
        warmup_steps: over which the learning rate rises from 0.
        clip: largest norm of the gradient.
        ema_decay: of the averaged weights, once (1 + step) / (10 + step) exceeds it.
        precision: of the network's arithmetic; weights and optimiser stay in float32.
        seed: of patches, noise and initial weights.
    """

    batch_size: int = 16
    learning_rate: float = 4e-4
    warmup_steps: int = 200
    clip: float = 1.0
    ema_decay: float = 0.9995
    precision: Precision = "no"
    seed: int = 1
    patches: PatchConfig = field(default_factory=PatchConfig)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)


@dataclass(frozen=True)
class Schedule:
    """When to stop and to save; changes nothing about the weights.

    Attributes:
        time_limit_minutes: of work in this call, pauses not counted; None for no limit.
        last_step: stop after this many steps in all; None for no limit.
        checkpoint_minutes: between checkpoints.
        workers: processes that make patches beside the training one.
    """

    time_limit_minutes: float | None = None
    last_step: int | None = None
    checkpoint_minutes: float = 10.0
    workers: int = 0


@dataclass(frozen=True)
class Progress:
    """What one step tells the caller. `psnr` maps sigma to dB and is set when a checkpoint was written."""

    step: int
    patches: int
    loss: float
    worked_minutes: float
    minutes_left: float | None
    psnr: dict[float, float] | None = None


@dataclass(eq=False)
class Learner:
    """The state that training changes: all of it goes into a checkpoint and comes back."""

    network: SliceDenoiser
    optimiser: torch.optim.Optimizer
    ema: EMAModel
    step: int = 0
    worked_minutes: float = 0.0
    best_psnr: float = float("-inf")

    def averaged(self) -> dict[str, Tensor]:
        """EMA weights by name."""
        names = [name for name, _ in self.network.named_parameters()]
        return dict(zip(names, self.ema.shadow_params, strict=True))


def train(
    config: TrainingConfig,
    schedule: Schedule,
    corpus: Corpus,
    out: Path,
    start_from: Path | None = None,
    report: Callable[[Progress], None] = lambda _: None,
) -> Path:
    """Train until the schedule, SIGTERM or SIGINT ends it, from where `out` was left; returns the latest checkpoint.

    Raises:
        InputRefused: `out` was made with another configuration or other data.
        FloatingPointError: the loss is not finite.
    """
    accelerator = Accelerator(mixed_precision=config.precision)
    learner = _learner(config, corpus, out, start_from)
    patches = Patches(corpus.train, corpus.label_maps, config.patches, config.seed)
    network, optimiser = accelerator.prepare(learner.network, learner.optimiser)
    learner.ema.to(accelerator.device)
    writer = _Writer(config, corpus, out, fixed_slices(corpus.validation), accelerator.device)
    clock = _Clock(learner.worked_minutes)
    began_minutes = saved_minutes = clock.minutes
    first_step = learner.step
    with stop_on_signal() as stopping:
        for batch in _batches(patches, config, schedule, learner.step, accelerator):
            learning_rate = config.learning_rate * min(1.0, (learner.step + 1) / config.warmup_steps)
            for group in optimiser.param_groups:
                group["lr"] = learning_rate
            loss = denoising_loss(network, batch)
            _require_finite(loss, learner.step, batch, patches)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(network.parameters(), config.clip)
            optimiser.step()
            optimiser.zero_grad()
            learner.ema.step(learner.network.parameters())
            learner.step += 1
            learner.worked_minutes = clock.tick()
            ending = stopping() or _due(schedule, learner.step, learner.worked_minutes - began_minutes)
            psnr = None
            if ending or clock.minutes - saved_minutes >= schedule.checkpoint_minutes:
                psnr = writer.save(learner, float(loss.detach())) if accelerator.is_main_process else None
                clock.skip()
                saved_minutes = clock.minutes
            report(
                Progress(
                    step=learner.step,
                    patches=learner.step * config.batch_size * accelerator.num_processes,
                    loss=float(loss.detach()),
                    worked_minutes=learner.worked_minutes,
                    minutes_left=_minutes_left(schedule, learner.step, first_step, clock.minutes - began_minutes),
                    psnr=psnr,
                )
            )
            if ending:
                break
    accelerator.end_training()
    return out / LATEST


def denoising_loss(network: torch.nn.Module, batch: Batch) -> Float[Tensor, ""]:
    """E[ weight(sigma) |D(x0 + sigma n) - x0|^2 ], equation 2 of Karras et al. 2022 with their weight."""
    core = network.module if hasattr(network, "module") else network
    weight = core.config.preconditioning.loss_weight(batch.sigma)
    estimate = network(batch.clean + batch.sigma[:, None, None] * batch.noise, batch.sigma, batch.plane)
    return (weight * ((estimate - batch.clean) ** 2).mean(dim=(1, 2))).mean()


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether SIGTERM or SIGINT came; a second signal acts as usual."""
    came: list[int] = []
    previous = {}

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        signal.signal(number, previous[number])

    with suppress(ValueError):  # signals belong to the main thread; elsewhere there is nothing to do
        for number in (signal.SIGTERM, signal.SIGINT):
            previous[number] = signal.getsignal(number)
            signal.signal(number, note)
    try:
        yield lambda: bool(came)
    finally:
        with suppress(ValueError):
            for number, handler in previous.items():
                signal.signal(number, handler)


class _Clock:
    """Minutes of work: what a stopped process missed does not count."""

    def __init__(self, minutes: float) -> None:
        self.minutes = minutes
        self._last = time.monotonic()
        self._usual: float | None = None

    def tick(self) -> float:
        """Count the time since the last tick, and return the minutes so far."""
        passed = time.monotonic() - self._last
        usual = passed if self._usual is None else self._usual
        counted = min(passed, PAUSE * usual)
        self._usual = 0.9 * usual + 0.1 * counted
        self.minutes += counted / 60
        self._last = time.monotonic()
        return self.minutes

    def skip(self) -> None:
        """Do not count the time since the last tick."""
        self._last = time.monotonic()


class _Writer:
    """Validates and writes checkpoints and the log."""

    def __init__(
        self,
        config: TrainingConfig,
        corpus: Corpus,
        out: Path,
        slices: tuple[FixedSlice, ...],
        device: torch.device,
    ) -> None:
        self.config, self.out, self.slices, self.device = config, out, slices, device
        self.data = corpus.record()
        contrasts = sorted({scan.contrast for scan in corpus.train} | ({"synthetic"} if corpus.label_maps else set()))
        self.preprocess = preprocess_record(config.denoiser, config.patches.noise_levels, contrasts)
        self.network = SliceDenoiser(config.denoiser).to(device, memory_format=torch.channels_last).eval()

    def save(self, learner: Learner, loss: float) -> dict[float, float]:
        """Write `latest`, and `best` where the validation PSNR is; append to the log. Returns PSNR in dB by sigma."""
        psnr = self._validate(learner)
        score = sum(psnr.values()) / max(1, len(psnr))
        is_best = score > learner.best_psnr
        learner.best_psnr = max(score, learner.best_psnr)
        record: Json = {
            "step": learner.step,
            "worked_minutes": round(learner.worked_minutes, 2),
            "loss": loss,
            "validation_psnr_db": {str(sigma): round(value, 3) for sigma, value in psnr.items()},
        }
        weights = learner.averaged()
        config = {**_config_record(self.config), "reached": record}
        card = model_card(config, self.preprocess, self.data)
        state = _train_state(learner)
        save_checkpoint(self.out / LATEST, weights, config, self.preprocess, self.data, card, state)
        if is_best:
            save_checkpoint(self.out / BEST, weights, config, self.preprocess, self.data, card)
        with (self.out / LOG).open("a") as log:
            log.write(json.dumps({**record, "time": time.strftime("%Y-%m-%dT%H:%M:%S"), "best": is_best}) + "\n")
        return psnr

    def _validate(self, learner: Learner) -> dict[float, float]:
        if not self.slices:
            return {}
        self.network.load_state_dict(learner.averaged())
        prior = Prior(self.network)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            return mean_psnr_by_sigma(
                lambda x, sigma, plane: prior.denoise(x.to(self.device), sigma, plane).cpu(), self.slices
            )


def _learner(config: TrainingConfig, corpus: Corpus, out: Path, start_from: Path | None) -> Learner:
    """A new one, from scratch or from the weights of `start_from`, or the one that `out` holds."""
    torch.manual_seed(config.seed)  # diffusers draws initial weights from the global generator
    network = SliceDenoiser(config.denoiser)
    recover(out / LATEST)
    resuming = (out / LATEST).exists()
    if start_from is not None and not resuming:
        network.load_state_dict(load_checkpoint(start_from).prior.network.state_dict())
    network = network.to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate, betas=(0.9, 0.99))
    learner = Learner(network, optimiser, EMAModel(network.parameters(), decay=config.ema_decay))
    if resuming:
        _restore(learner, config, corpus, out / LATEST)
    return learner


def _train_state(learner: Learner) -> tuple[dict[str, Tensor], Json]:
    names = [name for name, _ in learner.network.named_parameters()]
    tensors = {f"network/{name}": tensor for name, tensor in learner.network.named_parameters()}
    tensors |= {f"ema/{name}": tensor for name, tensor in learner.averaged().items()}
    for index, moments in learner.optimiser.state_dict()["state"].items():
        tensors |= {f"{key}/{names[index]}": moments[key] for key in ("exp_avg", "exp_avg_sq")}
    numbers = {
        "step": learner.step,
        "worked_minutes": learner.worked_minutes,
        "best_psnr": learner.best_psnr,
        "ema_step": learner.ema.optimization_step,
    }
    return tensors, numbers


def _restore(learner: Learner, config: TrainingConfig, corpus: Corpus, folder: Path) -> None:
    checkpoint = load_checkpoint(folder)
    _require_same(folder, checkpoint.config, _config_record(config), "configuration")
    _require_same(folder, checkpoint.data, corpus.record(), "data")
    tensors, numbers = load_train_state(folder)
    parameters = dict(learner.network.named_parameters())
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"network/{name}"])
        for name, average in learner.averaged().items():
            average.copy_(tensors[f"ema/{name}"])
    moments = {
        index: {
            "step": torch.tensor(float(numbers["step"])),
            **{key: tensors[f"{key}/{name}"] for key in ("exp_avg", "exp_avg_sq")},
        }
        for index, name in enumerate(parameters)
        if f"exp_avg/{name}" in tensors
    }
    learner.optimiser.load_state_dict({**learner.optimiser.state_dict(), "state": moments})
    learner.ema.optimization_step = numbers["ema_step"]
    learner.step, learner.worked_minutes = numbers["step"], numbers["worked_minutes"]
    learner.best_psnr = numbers["best_psnr"]


def _config_record(config: TrainingConfig) -> Json:
    fields = config_fields(config)
    return {"denoiser": fields.pop("denoiser"), "training": fields}


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


def _batches(
    patches: Patches, config: TrainingConfig, schedule: Schedule, step: int, accelerator: Accelerator
) -> Iterator[Batch]:
    indices = BatchIndices(config.batch_size, step, accelerator.process_index, accelerator.num_processes)
    loader = DataLoader(patches, batch_sampler=indices, num_workers=schedule.workers, collate_fn=collate)  # type: ignore[arg-type]
    for batch in loader:
        yield batch.to(accelerator.device)


def _due(schedule: Schedule, step: int, minutes: float) -> bool:
    out_of_time = schedule.time_limit_minutes is not None and minutes >= schedule.time_limit_minutes
    return out_of_time or (schedule.last_step is not None and step >= schedule.last_step)


def _minutes_left(schedule: Schedule, step: int, first_step: int, minutes: float) -> float | None:
    """Until the limit that comes first, at the pace of this call."""
    limits = [] if schedule.time_limit_minutes is None else [schedule.time_limit_minutes - minutes]
    if schedule.last_step is not None:
        limits.append((schedule.last_step - step) * minutes / max(1, step - first_step))
    return max(0.0, min(limits)) if limits else None


def _require_finite(loss: Float[Tensor, ""], step: int, batch: Batch, patches: Patches) -> None:
    if torch.isfinite(loss):
        return
    sources = sorted({patches.name_of(int(source)) for source in batch.sources})
    sigmas = ", ".join(f"{float(sigma):.3g}" for sigma in batch.sigma)
    raise FloatingPointError(f"loss is {float(loss)} at step {step}; patches of {', '.join(sources)}; sigma {sigmas}")
