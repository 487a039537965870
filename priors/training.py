"""Training a slice prior: fetch, noise, loss, backward, step, average, log, save."""

import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader

from priors.card import model_card
from priors.checkpoint import preprocess_record, save_checkpoint
from priors.corpus import Corpus
from priors.denoiser import Prior, new_denoiser
from priors.folders import Json, recover, require_replaceable
from priors.learner import Learner, TrainingConfig, config_record, new_learner, train_state
from priors.loss import denoising_loss
from priors.pace import Schedule, WorkClock, leave_signals_to_parent, stop_on_signal
from priors.patches import Batch, BatchIndices, Patches, collate
from priors.validation import averaged, fixed_slices, mean_psnr_by_sigma

LATEST, BEST, LOG = "latest", "best", "log.jsonl"
SMOOTHED_STEPS = 200  # reported losses are means over this many


@dataclass(frozen=True)
class Progress:
    """What one step tells the caller.

    Attributes:
        step: how many were made, by earlier calls too.
        patches: how many were seen in them.
        loss: weighted squared error, mean over recent steps; 1 for the best linear denoiser of unrelated pixels.
        worked_minutes: pauses and checkpoints not counted.
        minutes_left: until the limit that comes first; None without limits.
        psnr: sigma to validation PSNR in dB; set when a checkpoint was written.
    """

    step: int
    patches: int
    loss: float
    worked_minutes: float
    minutes_left: float | None
    psnr: dict[float, float] | None = None


def train(
    config: TrainingConfig,
    schedule: Schedule,
    corpus: Corpus,
    out: Path,
    start_from: Path | None = None,
    report: Callable[[Progress], None] = lambda _: None,
) -> Path:
    """Train until the schedule, SIGTERM or SIGINT ends it, from where `out` was left; returns the latest checkpoint.

    `report` is called after every step, by one process; how long it takes after a checkpoint does not count as work.

    Raises:
        InputRefused: `out` was made with another configuration or other data, or holds something else.
        FloatingPointError: the loss is not finite.
    """
    accelerator = Accelerator(mixed_precision=config.precision)
    learner = new_learner(config, corpus, out / LATEST, start_from)
    patches = Patches(corpus.train, corpus.label_maps, config.patches, config.seed)
    network, *optimisers = accelerator.prepare(learner.network, *learner.optimisers)
    rates = [optimiser.param_groups[0]["lr"] for optimiser in optimisers]
    learner.ema.to(accelerator.device)
    writer = _Writer(config, corpus, out, accelerator.device)
    told = report if accelerator.is_main_process else _silent
    clock, first_step, losses = WorkClock(learner.worked_minutes), learner.step, deque[float](maxlen=SMOOTHED_STEPS)
    began_minutes = saved_minutes = clock.minutes
    with stop_on_signal() as stopping:
        for batch in _batches(patches, config, schedule, first_step, accelerator):
            _warm_up(optimisers, rates, (learner.step + 1) / config.warmup_steps)
            loss = denoising_loss(network, config.denoiser.preconditioning, batch)
            _require_finite(loss, learner.step, batch, patches)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(network.parameters(), config.clip)
            for optimiser in optimisers:
                optimiser.step()
                optimiser.zero_grad()
            learner.ema.step(learner.network.parameters())
            losses.append(float(loss.detach()))
            learner.step += 1
            learner.worked_minutes = clock.tick()
            minutes = clock.minutes - began_minutes
            ending = _anyone(stopping() or schedule.is_over(learner.step, minutes), accelerator)
            saving = ending or clock.minutes - saved_minutes >= schedule.checkpoint_minutes
            psnr = writer.save(learner, mean(losses)) if saving and accelerator.is_main_process else None
            seen = learner.step * config.batch_size * accelerator.num_processes
            left = schedule.minutes_left(learner.step, first_step, minutes)
            told(Progress(learner.step, seen, mean(losses), clock.minutes, left, psnr))
            if saving:
                clock.skip()
                saved_minutes = clock.minutes
            if ending:
                break
    accelerator.end_training()
    return out / LATEST


def _warm_up(optimisers: list[torch.optim.Optimizer], rates: list[float], share: float) -> None:
    """Learning rates rise to `rates`."""
    for optimiser, rate in zip(optimisers, rates, strict=True):
        optimiser.param_groups[0]["lr"] = rate * min(1.0, share)


def _silent(_progress: Progress) -> None:
    """Of several processes only the main one speaks."""


def _anyone(says: bool, accelerator: Accelerator) -> bool:
    """Whether any process says so: all must leave the loop at the same step."""
    if accelerator.num_processes == 1:
        return says
    return bool(accelerator.reduce(torch.tensor(float(says), device=accelerator.device)) > 0)


class _Writer:
    """Validates and writes checkpoints and the log."""

    def __init__(self, config: TrainingConfig, corpus: Corpus, out: Path, device: torch.device) -> None:
        for name in (LATEST, BEST):
            require_replaceable(out / name)
        self.config, self.out, self.device = config, out, device
        self.slices = averaged(fixed_slices(corpus.validation), config.patches.pixel_mm)
        self.data = corpus.record(config.spacing_mm)
        contrasts = sorted({scan.contrast for scan in corpus.train} | ({"synthetic"} if corpus.label_maps else set()))
        self.preprocess = preprocess_record(config.denoiser, config.patches.noise_levels, contrasts, config.spacing_mm)
        self.network = new_denoiser(config.denoiser).to(device).eval().requires_grad_(False)

    def save(self, learner: Learner, loss: float) -> dict[float, float]:
        """Write `best` where the validation PSNR is, and `latest`; append to the log. Returns PSNR in dB by sigma."""
        recover(self.out / BEST)
        psnr = self._validate(learner)
        score = sum(psnr.values()) / max(1, len(psnr))
        is_best = not psnr or score > learner.best_psnr  # nobody to judge by: the latest is the best
        learner.best_psnr = max(score, learner.best_psnr)
        record: Json = {
            "step": learner.step,
            "worked_minutes": round(learner.worked_minutes, 2),
            "loss": loss,
            "validation_psnr_db": {str(sigma): round(value, 3) for sigma, value in psnr.items()},
        }
        weights = learner.averaged()
        config = {**config_record(self.config), "before": list(learner.before), "reached": record}
        card = model_card(config, self.preprocess, self.data)
        if is_best:  # first, because `latest` remembers how good it was: killed in between, no better weights are lost
            save_checkpoint(self.out / BEST, weights, config, self.preprocess, self.data, card)
        save_checkpoint(self.out / LATEST, weights, config, self.preprocess, self.data, card, train_state(learner))
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


def _batches(
    patches: Patches, config: TrainingConfig, schedule: Schedule, step: int, accelerator: Accelerator
) -> Iterator[Batch]:
    indices = BatchIndices(config.batch_size, step, accelerator.process_index, accelerator.num_processes)
    loader = DataLoader(
        patches,
        batch_sampler=indices,
        num_workers=schedule.workers,
        collate_fn=collate,
        worker_init_fn=leave_signals_to_parent,
    )
    for batch in loader:
        yield batch.to(accelerator.device)


def _require_finite(loss: Float[Tensor, ""], step: int, batch: Batch, patches: Patches) -> None:
    if torch.isfinite(loss):
        return
    sources = sorted({patches.name_of(int(source)) for source in batch.sources})
    sigmas = ", ".join(f"{float(sigma):.3g}" for sigma in batch.sigma)
    value = float(loss.detach())
    raise FloatingPointError(f"loss is {value} at step {step}; patches of {', '.join(sources)}; sigma {sigmas}")
