"""Cross-planar adaptation: a prior learns contrast, noise and scanner of one scan from the scan's own slices.

Thick slices are sharp in plane. A few minutes of training on them, and on nothing else, tell the prior what this
scan's tissue looks like; the thin slices it is needed for lie in the other planes. But a thick slice is an average over
its thickness: per pixel of 1 mm it holds less detail than a thin one, and a prior that learns this denoises thin slices
worse. On larger pixels the loss is smaller, so that is how the slices are shown.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from forward_models import InputRefused, Volume, intensity_scale, resample
from forward_models.timing import seconds_of
from priors.augment import draw_placement, extract
from priors.data import SAME_SPACING_MM, SPACING_MM, canonical_slices
from priors.denoiser import Prior
from priors.loss import denoising_loss
from priors.noise import NoiseLevels
from priors.patches import Batch
from priors.planes import Plane
from priors.random import chance

LEAST_SIGNAL = 0.05
PIXEL_PER_THICKNESS = 0.4
LEAST_SHARE = 0.1  # slices with less head than this share of the fullest teach little
SMALLEST_PATCH = 16  # pixels; and patches are multiples of it
TIMED_STEPS = 4
JUDGED_BATCHES = 8


@dataclass(frozen=True)
class AdaptConfig:
    """How long and how hard a prior is adapted. The learning rate falls to 0 on the way, as a cosine.

    Attributes:
        steps: of training; see `steps_within`.
        batch_size: patches per step.
        patch_size: pixels along either side; a multiple of 16. Smaller slices make smaller patches.
        learning_rate: of Adam, at the start.
        other_labels: probability that a patch wears the label of another plane than its own, so that what is learned
            of the scan is not learned for its own plane only.
        clip: largest norm of the gradient.
        half: bfloat16 arithmetic; weights stay in float32.
        noise_levels: at which sigmas.
    """

    steps: int = 300
    batch_size: int = 4
    patch_size: int = 96
    learning_rate: float = 1e-4
    other_labels: float = 0.5
    clip: float = 1.0
    half: bool = False
    noise_levels: NoiseLevels = field(default_factory=NoiseLevels)


def pixel_mm_for(thickness_mm: float) -> float:
    """The pixel size at which slices of this thickness are shown to the prior."""
    return max(SPACING_MM, PIXEL_PER_THICKNESS * thickness_mm)


def in_plane_slices(
    volume: Volume, axis: int, pixel_mm: float = SPACING_MM
) -> tuple[Float[Tensor, "slice rows columns"], Plane]:
    """The slices of a thick-slice scan as a prior sees slices: RAS order, air 0, robust maximum near 1.

    Args:
        volume: the scan.
        axis: array axis of the slices.
        pixel_mm: what is resampled to, without aliasing; see `pixel_mm_for`.

    Raises:
        InputRefused: no slice holds signal.
    """
    slices, sizes_mm, plane = canonical_slices(volume, axis)
    return as_shown(slices, sizes_mm, pixel_mm), plane


def as_shown(
    slices: Float[Tensor, "slice rows columns"], sizes_mm: tuple[float, float], pixel_mm: float
) -> Float[Tensor, "kept shown_rows shown_columns"]:
    """Slices in RAS order with pixels of `pixel_mm`, air 0, robust maximum near 1, those with hardly any head left out.

    Raises:
        InputRefused: no slice holds signal.
    """
    for i, size_mm in enumerate(sizes_mm):
        if abs(size_mm - pixel_mm) > SAME_SPACING_MM:
            slices = resample(slices, size_mm, pixel_mm, 1 + i)
    slices = (slices / intensity_scale(slices)).clamp(min=0)
    signal = (slices > LEAST_SIGNAL).sum(dim=(1, 2))
    if signal.max() == 0:
        raise InputRefused("no slice holds signal; expected the magnitude image of a head")
    return slices[signal > LEAST_SHARE * signal.max()]


def adapt(
    prior: Prior,
    slices: Float[Tensor, "slice rows columns"],
    plane: Plane,
    config: AdaptConfig | None = None,
    *,
    generator: torch.Generator,
    report: Callable[[int, int], None] = lambda _done, _total: None,
) -> Prior:
    """A copy of `prior` that has seen `slices`; `prior` itself stays as it is.

    Args:
        prior: to start from.
        slices: of one scan, see `in_plane_slices`.
        plane: theirs.
        config: how.
        generator: of patches, labels and noise.
        report: told steps done and expected.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    config = config or AdaptConfig()
    network = copy.deepcopy(prior.network).float().train().requires_grad_(True)
    device = next(network.parameters()).device
    optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate, betas=(0.9, 0.99))
    for step in range(config.steps):
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * (1 + math.cos(math.pi * step / config.steps)) / 2
        batch = _batch(slices, plane, config, generator=generator).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.half):
            loss = denoising_loss(network, network.config.preconditioning, batch)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"loss is {float(loss.detach())} at step {step} of the adaptation")
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip)
        optimiser.step()
        report(step + 1, config.steps)
    return Prior(network.eval().requires_grad_(False))


def steps_within(
    minutes: float, prior: Prior, slices: Float[Tensor, "slice rows columns"], plane: Plane, config: AdaptConfig
) -> int:
    """How many steps take `minutes` on this machine, by the pace of a few on a copy that is thrown away; at least one.

    The steps are counted, not the time, so that the same number of them can be made again.
    """

    def make(steps: int) -> None:
        adapt(prior, slices, plane, replace(config, steps=steps), generator=torch.Generator().manual_seed(0))

    make(1)
    device = next(prior.network.parameters()).device
    return max(1, round(60 * minutes * TIMED_STEPS / seconds_of(lambda: make(TIMED_STEPS), device)))


@torch.no_grad()
def loss_on(prior: Prior, slices: Float[Tensor, "slice rows columns"], plane: Plane, config: AdaptConfig) -> float:
    """Mean training loss over patches of `slices` that are the same whoever asks; 1 for a prior that says nothing."""
    device, generator = next(prior.network.parameters()).device, torch.Generator().manual_seed(0)
    edm, losses = prior.network.config.preconditioning, []
    for _ in range(JUDGED_BATCHES):
        batch = _batch(slices, plane, config, generator=generator).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.half):
            losses.append(float(denoising_loss(prior.network, edm, batch)))
    return sum(losses) / len(losses)


def _batch(
    slices: Float[Tensor, "slice rows columns"], plane: Plane, config: AdaptConfig, *, generator: torch.Generator
) -> Batch:
    """Patches at random places, mirrored, turned and scaled like those of the training; intensities stay."""
    picked = torch.randint(len(slices), (config.batch_size,), generator=generator)
    size = min(config.patch_size, -(-max(slices.shape[1:]) // SMALLEST_PATCH) * SMALLEST_PATCH)
    clean = []
    for index in picked.tolist():
        placement = draw_placement(slices.shape[1:], size, plane, generator=generator)
        clean.append(extract(slices[index], placement, size, plane.mirror_axis))
    sigmas = [config.noise_levels.draw(generator=generator) for _ in clean]
    labels = [_label(plane, config.other_labels, generator=generator) for _ in clean]
    noise = torch.randn((len(clean), size, size), generator=generator)
    return Batch(torch.stack(clean), noise, torch.tensor(sigmas), torch.tensor(labels), picked)


def _label(plane: Plane, other_labels: float, *, generator: torch.Generator) -> int:
    if not chance(other_labels, generator=generator):
        return plane.value
    others = [other.value for other in Plane if other is not plane]
    return others[int(torch.randint(len(others), (), generator=generator))]
