"""ESPRESO: the slice profile estimated from the scan alone by an adversary (Han et al., arXiv 2104.00100).

A generator proposes a profile; in-plane lines blurred by it and sampled like slices shall look like through-plane lines
to a discriminator of lines. Written from the published description.

Notes:
    Departures: the discriminator sees lines of all patches at once, as its 1-D convolutions do anyway; in-plane lines
    are resampled at the true positions of slices, so that the ratio need not be rounded; the warm-up stops half way to
    a delta; and the kernel found, which maps in-plane voxels to slices, is widened to the profile of a slice as
    docs/conventions.md defines it. Not yet shown to work (docs/experiments-profile.md).
"""

import time
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from eclare.profile_estimation import ProfileTrace
from forward_models import Acquisition, InputRefused, Sampled, SliceGrid, Volume, acquisition_of
from forward_models.progress import Progress, silent
from forward_models.stack import scaled_slices, working_order

TAPS = 21  # in-plane voxels
LONGEST, SHORTEST = 16, 12  # slices in a patch
AIR = 0.1  # of the scale of intensities
DOUBTFUL_RATIO = 1.25  # between seeds
DOUBTFUL_VOXELS = 1.6  # FWHM; the warm-up ends below this


@dataclass(frozen=True)
class EspresoConfig:
    """Sizes and schedule, as published but for the learning rate of the generator.

    Attributes:
        warm_up: steps towards a profile that changes nothing.
        steps: adversarial, after that.
        batch: patches per step.
        seeds: independent runs, whose median is the answer and whose range the repeatability.
        rate, proposer_rate: learning rates of discriminator and generator (Adam).
        decay: of the generator's weights, added to the gradient: it lets the profile leave the narrow start.
        boundary, peak: weights of mass in the outer taps and of rises beyond, falls before the middle.
        kept: per step, of the running average of profiles.
    """

    warm_up: int = 80
    steps: int = 2000
    batch: int = 128
    seeds: int = 1
    rate: float = 1e-3
    proposer_rate: float = 1e-4
    decay: float = 5e-3
    boundary: float = 10.0
    peak: float = 1.0
    kept: float = 0.99


class Generator(nn.Module):
    """Symmetric, positive weights that sum to one, from a learned embedding."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn((1, 256, TAPS + 4), generator=generator))
        self.layers = nn.Sequential(nn.Conv1d(256, 256, 3), nn.ReLU(), nn.Conv1d(256, 1, 3))
        draw_weights(self, generator)

    def forward(self) -> Float[Tensor, " taps"]:
        logits = self.layers(self.embedding)[0, 0]
        return torch.softmax((logits + logits.flip(0)) / 2, dim=0)


class Discriminator(nn.Module):
    """Lines -> how real every stretch of 11 samples looks (logits)."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        channels = (1, 64, 64, 64, 64, 1)
        convolutions = [nn.Conv1d(i, o, 3) for i, o in pairwise(channels)]
        draw_weights(nn.ModuleList(convolutions), generator)
        layers: list[nn.Module] = []
        with torch.random.fork_rng(devices=[]):  # the power iteration starts from a random vector
            torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
            for convolution in convolutions:
                layers += [spectral_norm(convolution), nn.LeakyReLU(0.1)]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, lines: Float[Tensor, "n length"]) -> Float[Tensor, "n 1 stretch"]:
        logits: Tensor = self.layers(lines[:, None])
        return logits


def draw_weights(module: nn.Module, generator: torch.Generator) -> None:
    """As torch draws them by default, from the generator."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv1d):
            bound = 1 / float(np.sqrt(layer.weight[0].numel()))
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -bound, bound, generator=generator)


def espreso(
    volume: Volume,
    acquisition: Acquisition | None = None,
    config: EspresoConfig | None = None,
    *,
    generator: torch.Generator | None = None,
    progress: Progress = silent,
) -> tuple[Sampled, ProfileTrace]:
    """The slice profile that an adversary cannot tell from the scan's own.

    Args:
        volume: the scan.
        acquisition: which axis is the slice axis; worked out from the volume by default.
        config: see `EspresoConfig`.
        generator: of weights and patches; seeded with 0 by default.
        progress: called with stage, steps done and steps in all.

    Raises:
        InputRefused: fewer than 12 slices, or slices that are all air.
    """
    started = time.monotonic()
    config = config or EspresoConfig()
    acquisition = acquisition or acquisition_of(volume)
    generator = generator or torch.Generator().manual_seed(0)
    source = PatchSource.of(volume, acquisition)
    runs = []
    for seed in range(config.seeds):
        runs.append(_adversarial(source, config, generator))
        progress("profile", seed + 1, config.seeds)
    histories = [[slice_profile(taps, source.voxel_mm).fwhm_mm for taps in run] for run in runs]
    profile = slice_profile(torch.stack([run[-1] for run in runs]).median(dim=0).values, source.voxel_mm)
    ends = [history[-1] for history in histories]
    band = (min(ends), max(ends))
    doubts: tuple[str, ...] = ()
    if band[0] < DOUBTFUL_VOXELS * source.voxel_mm:
        doubts = (f"ESPRESO stayed where it starts, {band[0]:.3g} mm: it did not learn; do not trust this number",)
    elif band[1] > DOUBTFUL_RATIO * band[0]:
        doubts = (f"runs of ESPRESO disagree on the slice profile, {band[0]:.3g} to {band[1]:.3g} mm: do not trust it",)
    trace = ProfileTrace(
        fwhm_mm=profile.fwhm_mm,
        sd_mm=float(np.sqrt(profile.variance_mm2)),
        repeatability_mm=band,
        plausible_mm=band,
        doubts=doubts,
        histories_mm=tuple(tuple(history) for history in histories),
        seconds=time.monotonic() - started,
    )
    return profile, trace


@dataclass(frozen=True, eq=False)
class PatchSource:
    """Where patches are cut out: an in-plane line of each slice of a window, for both in-plane axes.

    Attributes:
        views: slices with the axis to be blurred first, the slice axis last, divided by the scale of intensities.
        inside: for each view, voxels that are not air.
        sample: cubic resampling of blurred lines to the positions of slices.
        voxel_mm: along blurred lines.
    """

    views: tuple[Float[Tensor, "_ _ z"], ...]
    inside: tuple[Int[Tensor, "_ 3"], ...]
    sample: Float[Tensor, "slice voxel"]
    voxel_mm: float

    @classmethod
    def of(cls, volume: Volume, acquisition: Acquisition) -> "PatchSource":
        count = min(LONGEST, acquisition.slices.count)
        if count < SHORTEST:
            raise InputRefused(
                f"{count} slices; ESPRESO needs at least {SHORTEST}; pass --thickness or --gap, or estimate otherwise"
            )
        order = working_order(volume, acquisition.axis)
        slices = scaled_slices(volume, order)[0]
        voxel_mm = float(np.mean(acquisition.in_plane_mm))
        window = SliceGrid(count, acquisition.spacing_mm)
        voxels = SliceGrid(int(np.ceil(window.field_of_view_mm / voxel_mm)) + 8, voxel_mm)  # beyond both ends
        views = (slices, slices.transpose(0, 1))
        inside = tuple(torch.nonzero(view > AIR) for view in views)
        if len(inside[0]) == 0:
            raise InputRefused(
                "the slices hold no structure to estimate a slice profile from; pass --thickness or --gap"
            )
        return cls(views, inside, cubic_weights(voxels, window), voxel_mm)

    def draw(self, batch: int, generator: torch.Generator) -> Float[Tensor, "batch voxel slice"]:
        """Patches around voxels that are not air, within the field of view; air where that is too narrow."""
        long, count = self.sample.shape[1] + TAPS - 1, self.sample.shape[0]
        found = torch.zeros(batch, long, count)
        for patch in found:
            which = int(torch.randint(len(self.views), (), generator=generator))
            view, inside = self.views[which], self.inside[which]
            a, b, z = inside[int(torch.randint(len(inside), (), generator=generator))].tolist()
            first = min(max(0, a - long // 2), max(0, view.shape[0] - long))
            start = min(max(0, z - count // 2), view.shape[2] - count)
            line = view[first : first + long, b, start : start + count]
            margin = (long - len(line)) // 2
            patch[margin : margin + len(line)] = line
        return found

    def lines(
        self, patches: Float[Tensor, "batch voxel slice"], taps: Float[Tensor, " taps"]
    ) -> tuple[Float[Tensor, "line slice"], Float[Tensor, "line slice"]]:
        """Fake lines, blurred by the profile and sampled like slices, and real ones across them."""
        blurred = F.conv1d(patches.transpose(1, 2).flatten(0, 1)[:, None], taps[None, None])[:, 0]
        fake = blurred @ self.sample.T
        real = fake.unflatten(0, (len(patches), -1)).transpose(1, 2).flatten(0, 1)
        return fake, real


def cubic_weights(voxels: SliceGrid, slices: SliceGrid) -> Float[Tensor, "slice voxel"]:
    """Keys' cubic convolution at the positions of slices; no filter against aliasing, as slices have none."""
    distance = np.abs(slices.centres_mm[:, None] - voxels.centres_mm) / voxels.spacing_mm
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    return torch.from_numpy(np.where(distance < 1, near, np.where(distance < 2, far, 0))).float()


def _adversarial(
    source: PatchSource, config: EspresoConfig, generator: torch.Generator
) -> list[Float[Tensor, " taps"]]:
    """The running average of profiles after every step."""
    with torch.random.fork_rng(devices=[]):  # torch draws its own initial weights from the global generator
        proposer, judge = Generator(generator), Discriminator(generator)
    _warm_up(proposer, config)
    of_proposer = torch.optim.Adam(proposer.parameters(), config.proposer_rate, (0.5, 0.999), weight_decay=config.decay)
    of_judge = torch.optim.Adam(judge.parameters(), config.rate, (0.5, 0.999))
    average, found = proposer().detach(), []
    for _ in range(config.steps):
        taps = proposer()
        fake, _ = source.lines(source.draw(config.batch, generator), taps)
        loss = F.softplus(-judge(fake)).mean() + config.boundary * at_ends(taps) + config.peak * off_peak(taps)
        of_proposer.zero_grad()
        loss.backward()
        of_proposer.step()
        with torch.no_grad():
            taps = proposer()
            fake, _ = source.lines(source.draw(config.batch, generator), taps)
            _, real = source.lines(source.draw(config.batch, generator), taps)
        loss = F.softplus(judge(fake)).mean() + F.softplus(-judge(real)).mean()
        of_judge.zero_grad()
        loss.backward()
        of_judge.step()
        average = config.kept * average + (1 - config.kept) * taps
        found.append(average)
    return found


def _warm_up(proposer: Generator, config: EspresoConfig) -> None:
    """Towards all weight in the middle tap, until half of it is there: beyond, the softmax would not come back."""
    optimiser = torch.optim.Adam(proposer.parameters(), config.proposer_rate, (0.5, 0.999))
    for _ in range(config.warm_up):
        middle = proposer()[TAPS // 2]
        if middle > 0.5:
            return
        loss = -torch.log(middle)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def at_ends(taps: Float[Tensor, " taps"]) -> Float[Tensor, ""]:
    """Mass of the outer two taps at both ends, so that the profile fits its support."""
    return taps[:2].sum() + taps[-2:].sum()


def off_peak(taps: Float[Tensor, " taps"]) -> Float[Tensor, ""]:
    """How much the profile falls before its middle and rises after it."""
    step = taps.diff()
    return torch.relu(-step[: TAPS // 2]).sum() + torch.relu(step[TAPS // 2 :]).sum()


def slice_profile(taps: Float[Tensor, " taps"], voxel_mm: float) -> Sampled:
    """The profile p of a slice, from the kernel q that maps thin slices of `voxel_mm` to it.

    var(p) = v + (h / T)^2 var(p), with v = var(q) + h^2 / 6 the variance of the taps (docs/conventions.md), and p as
    the interpolated taps made wider.
    """
    offsets = (np.arange(TAPS) - TAPS // 2) * voxel_mm
    weights = np.array(taps.tolist())
    symmetric = (weights + weights[::-1]) / 2
    kernel = Sampled(offsets, symmetric / symmetric.sum(), name="ESPRESO")
    of_taps = float(kernel.weights @ offsets**2)
    return kernel.scaled(float(np.sqrt(of_taps / kernel.variance_mm2 + (voxel_mm / kernel.fwhm_mm) ** 2)))
