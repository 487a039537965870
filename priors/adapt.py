"""Cross-planar adaptation: a prior learns contrast, noise and scanner of one scan from the scan's own slices.

Thick slices are sharp in plane. A few minutes of training on them, and on nothing else, tell the prior what this
scan's tissue looks like; the thin slices it is needed for lie in the other planes. But a thick slice is an average over
its thickness: per pixel of 1 mm it holds less detail than a thin one, and a prior that learns this denoises thin slices
worse. On larger pixels the loss is smaller, so that is how the slices are shown.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from forward_models import InputRefused, Volume, intensity_scale, resample
from priors.augment import draw_placement, extract
from priors.data import SAME_SPACING_MM, SPACING_MM, canonical_slices
from priors.denoiser import Prior
from priors.noise import NoiseLevels
from priors.patches import Batch
from priors.planes import Plane
from priors.random import chance
from priors.training import denoising_loss

LEAST_SIGNAL = 0.05
PIXEL_PER_THICKNESS = 0.4
LEAST_SHARE = 0.1  # slices with less head than this share of the fullest teach little


@dataclass(frozen=True)
class AdaptConfig:
    """How long and how hard a prior is adapted. The learning rate falls to 0 on the way, as a cosine.

    Attributes:
        steps: of training, if `minutes` does not end it first.
        minutes: at most; None for no limit. With it the result depends on the speed of the machine.
        batch_size: patches per step.
        patch_size: pixels along either side, 1 mm each; a multiple of 16.
        learning_rate: of Adam, at the start.
        other_labels: probability that a patch wears the label of another plane than its own, so that what is learned
            of the scan is not learned for its own plane only.
        clip: largest norm of the gradient.
        half: bfloat16 arithmetic; weights stay in float32.
        noise_levels: at which sigmas.
    """

    steps: int = 300
    minutes: float | None = None
    batch_size: int = 4
    patch_size: int = 96
    learning_rate: float = 1e-4
    other_labels: float = 0.5
    clip: float = 1.0
    half: bool = False
    noise_levels: NoiseLevels = field(default_factory=NoiseLevels)

    def __post_init__(self) -> None:
        if self.minutes is not None and not self.minutes > 0:
            raise InputRefused(f"adaptation of {self.minutes:g} minutes; expected more than 0")


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
    for i, size_mm in enumerate(sizes_mm):
        if abs(size_mm - pixel_mm) > SAME_SPACING_MM:
            slices = resample(slices, size_mm, pixel_mm, 1 + i)
    slices = (slices / intensity_scale(slices)).clamp(min=0)
    signal = (slices > LEAST_SIGNAL).sum(dim=(1, 2))
    if signal.max() == 0:
        raise InputRefused("no slice holds signal; expected the magnitude image of a head")
    return slices[signal > LEAST_SHARE * signal.max()], plane


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
    began = time.monotonic()
    for step in range(config.steps):
        minutes = (time.monotonic() - began) / 60
        done = max(step / config.steps, 0.0 if config.minutes is None else minutes / config.minutes)
        if done >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * (1 + float(torch.cos(torch.tensor(torch.pi * done)))) / 2
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


def _batch(
    slices: Float[Tensor, "slice rows columns"], plane: Plane, config: AdaptConfig, *, generator: torch.Generator
) -> Batch:
    """Patches at random places, mirrored, turned and scaled like those of the training; intensities stay."""
    picked = torch.randint(len(slices), (config.batch_size,), generator=generator)
    size = config.patch_size
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
