"""FOCVS with a prior from a checkpoint folder: where weights come from, and the method they make."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

import eclare
import focvs
from eclare.precision import computes_bfloat16
from forward_models import InputRefused, noise_sd
from forward_models.progress import Progress
from forward_models.stack import Stack
from forward_models.timing import seconds_of
from throughplane.device import memory_bytes
from throughplane.methods import METHODS, Method, Outcome, learned
from throughplane.names import Preset

if TYPE_CHECKING:
    from throughplane.loaded_priors import LoadedPrior

DEFAULT_PRIOR = Path(__file__).parents[1] / "priors" / "weights" / "head-2d"
STARTS: Mapping[Preset, Preset] = {"instant": "instant", "fast": "fast", "standard": "fast", "best": "standard"}
"""Preset of `eclare` that makes what a preset of `focvs` starts from."""
START_SEED = 0  # as `eclare` by itself
LEAST_TIMED_ROWS = 16
NETWORK_SHARE = 0.5  # of the memory there is, for one call of a network of volumes
ADAPTATION_BYTES = 3e8  # of training; 1.8e8 were measured in bfloat16


class WeightsMissing(InputRefused):
    """There are no weights where they were looked for. Exit code 5."""


@dataclass(frozen=True, eq=False)
class Sampler:
    """A prior and what is done with it.

    Attributes:
        prior: from a checkpoint folder.
        taught: what `eclare` starts from, which makes the estimate that sampling starts from.
        samples: how many to draw.
        noise_aware: whether they explain the scan to its noise instead of exactly.
        adapt_minutes: how long the prior learns from the scan before it is sampled; None for not at all.
    """

    prior: "LoadedPrior"
    taught: eclare.StartingNetwork
    samples: int
    noise_aware: bool
    adapt_minutes: float | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know before trusting the spread of its samples."""
        if self.samples < 2 or not self.unlike_the_fit:
            return ()
        return (f"the spread (_std) was fitted to other samples: {self.unlike_the_fit}; take its size for a guess",)

    @property
    def unlike_the_fit(self) -> str:
        """In what its samples differ from those that `focvs.HEAD_2D` was fitted to; empty where in nothing."""
        told = {
            "the prior is another one": self.prior.sha256 != focvs.HEAD_2D.prior_sha256,
            "the prior learns from the scan first": self.adapt_minutes is not None,
            "they explain the scan to its noise": self.noise_aware,
        }
        return " and ".join(what for what, holds in told.items() if holds)

    def method(self) -> Method:
        """As a row of the methods table."""

        def run(stack: Stack, preset: Preset, generator: torch.Generator, progress: Progress) -> Outcome:
            noise = noise_sd(stack.slices) if self.noise_aware else 0.0
            step = focvs.alone(focvs.noise_matched if noise else focvs.smooth)
            estimate = partial(eclare_start, self.taught, preset)
            drawn, details = self.drawn(stack, preset, generator, progress, step, estimate, noise)
            if drawn.sd is None:
                return Outcome(drawn.mean, details)
            sd = focvs.HEAD_2D.sd(drawn.sd, stack)
            return Outcome(drawn.mean, {**details, "std": self._spread_record(drawn.sd, sd, stack)}, sd=sd)

        fixed, per_voxel, per_measured = METHODS["focvs"].memory
        learning = 0.0 if self.adapt_minutes is None else ADAPTATION_BYTES
        return Method(run, learns=True, memory=(fixed + learning, per_voxel, per_measured), seconds=self.seconds)

    def drawn(
        self,
        stack: Stack,
        preset: Preset,
        generator: torch.Generator,
        progress: Progress,
        consistency: focvs.StepOn,
        estimate: focvs.Estimate,
        noise: float = 0.0,
    ) -> tuple[focvs.Posterior, dict[str, Any]]:
        """Samples, and what the record says of them.

        Args:
            stack: the scan.
            preset: schedule.
            generator: of every draw.
            progress: told of learning and sampling.
            consistency: what makes a volume explain all that it shall explain.
            estimate: what sampling starts from.
            noise: standard deviation of that in the scan, for steps that regard it.
        """
        config = focvs.PRESETS[preset]
        prior, adaptation = self.prior, None
        if self.adapt_minutes is not None:
            prior, adaptation = prior.adapted(stack, self.adapt_minutes, generator.initial_seed(), progress)
        drawn = focvs.super_resolve(
            stack,
            prior.on(stack),
            config,
            generator=generator,
            samples=self.samples,
            consistency=consistency,
            noise_sd=noise,
            estimate=estimate,
            progress=progress,
        )
        return drawn, {
            "explains_the_scan": "to its noise" if noise else "exactly",
            "samples": drawn.samples,
            "sweeps": drawn.sweeps,
            "starts_from": f"eclare@{STARTS[preset]}" if config.from_estimate else "noise",
            "noise_levels": [round(level, 6) for level in config.levels],
            "prior_voxel_mm": drawn.spacing_mm,
            "prior": prior.record(),
            "adaptation": adaptation,
        }

    def seconds(self, stack: Stack, preset: Preset) -> float:
        """How long it will take, from two sweeps over a few rows."""
        config = focvs.PRESETS[preset]
        piece = stack.rows(max(LEAST_TIMED_ROWS, stack.slices.shape[0] // 16))
        two = replace(config, steps=2, repeats=1, from_estimate=False)
        prior = self.prior.on(stack)
        timed = seconds_of(
            lambda: focvs.super_resolve(piece, prior, two, generator=torch.Generator()), stack.slices.device
        )
        sweeps = self.samples * config.steps * config.repeats
        starting = start_seconds(self.taught, preset, self.prior.spacing_mm, stack) if config.from_estimate else 0.0
        learning = 60 * (self.adapt_minutes or 0.0)
        pieces = stack.slices.shape[0] / piece.slices.shape[0]
        overlaps = self.prior.times_seen(stack) / self.prior.times_seen(piece)
        return learning + starting + timed / 2 * sweeps * pieces * overlaps

    def _spread_record(
        self, raw: Float[Tensor, "a b thin"], sd: Float[Tensor, "a b thin"], stack: Stack
    ) -> Mapping[str, Any]:
        """What was made of the spread of the samples, in the units of the scan."""
        fit, unlike = focvs.HEAD_2D, self.unlike_the_fit
        return {
            "meaning": f"a guess: {unlike}" if unlike else "90 % of true voxels are expected within 1.645 of it",
            "gain": fit.gain,
            "growth": fit.growth,
            "fitted_to_prior": fit.prior_sha256,
            "factor": round(fit.factor(stack.selection.thick.spacing_mm), 4),
            "mean": float(sd.mean()) * stack.scale,
            "mean_of_samples": float(raw.mean()) * stack.scale,
        }


def eclare_start(
    taught: eclare.StartingNetwork, preset: Preset, stack: Stack, progress: Progress
) -> Float[Tensor, "a b thin"]:
    """What `eclare` makes of the scan: nearer to the truth than low total variation. The same for every seed."""
    generator = torch.Generator().manual_seed(START_SEED)
    return learned(taught, consistent=True).run(stack, STARTS[preset], generator, progress).thin


def start_seconds(taught: eclare.StartingNetwork, preset: Preset, spacing_mm: float, stack: Stack) -> float:
    """How long `eclare_start` takes on the grid of a prior of `spacing_mm`."""
    method = learned(taught, consistent=True)
    return method.seconds(focvs.prior_grid(stack, spacing_mm).stack, STARTS[preset])


def load_sampler(
    folder: Path | None,
    samples: int | None,
    device: torch.device,
    noise_aware: bool = False,
    adapt_minutes: float | None = None,
) -> Sampler:
    """The prior in `folder`, by default the one that comes with the package.

    Raises:
        WeightsMissing: there is no such folder.
        InputRefused: it is damaged, `samples` or `adapt_minutes` is no number of them, the prior cannot learn from
            slices, or diffusers is not installed.
    """
    if samples is not None and samples < 1:
        raise InputRefused(f"--samples {samples}; expected at least 1")
    if adapt_minutes is not None and not (adapt_minutes > 0 and math.isfinite(adapt_minutes)):
        raise InputRefused(f"--adapt {adapt_minutes:g}; expected minutes, more than 0")
    if find_spec("diffusers") is None:
        raise InputRefused("--method focvs needs diffusers; run: pip install 'throughplane[focvs]'")
    where = DEFAULT_PRIOR if folder is None else folder
    if not where.is_dir():
        raise WeightsMissing(
            f"no prior weights in {where}; pass --prior with a checkpoint folder, such as priors/weights/head-2d of "
            "the repository or one that train_prior.py made, or use --method eclare, which needs none"
        )
    from throughplane.loaded_priors import CANNOT_LEARN, load_prior  # diffusers takes seconds to import

    dtype = torch.bfloat16 if computes_bfloat16(device) else torch.float32
    prior = load_prior(where, dtype, NETWORK_SHARE * memory_bytes(device))
    if adapt_minutes is not None and not prior.adaptable:
        raise InputRefused(CANNOT_LEARN)
    return Sampler(prior, eclare.load_starting_network(), samples or 1, noise_aware, adapt_minutes)
