"""ESPRESO: the slice profile estimated from the scan alone by an adversary (Han et al., arXiv 2104.00100).

A generator proposes a profile; in-plane lines blurred by it and sampled like slices shall look like through-plane lines
to a discriminator of lines. Written from the published description.

Notes:
    Departures, and why (docs/experiments-profile.md). The discriminator hardly amplifies, so detail as faint as that of
    a head tells it nothing: it gets `equalised` slices, whose detail is of the order of one. Profiles are log-concave
    by construction, which makes the penalty on peaks needless. The warm-up stops before the softmax saturates, and the
    learning rate of the generator falls. Of a patch few lines are used, because all 16 are much alike. In-plane lines
    are resampled at the true positions of slices, the first on a voxel: half-way between voxels cubic interpolation
    blurs. Only the standard deviation of the kernel found is believed, not its shape: the profile is gaussian, SLR and
    box in equal shares.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from eclare.precision import reduced_precision
from eclare.profile_estimation import FAMILIES, NO_STRUCTURE, ProfileConfig, ProfileTrace, equalised, mixture
from forward_models import Acquisition, InputRefused, Sampled, SliceGrid, Volume, acquisition_of
from forward_models.progress import Progress, silent
from forward_models.stack import scaled_slices, working_order

TAPS = 21  # in-plane voxels
LONGEST, SHORTEST = 16, 12  # slices in a patch
AIR = 0.1  # of the scale of intensities
NARROW = 0.7  # weight of the middle tap where the warm-up ends
DOUBTFUL_RATIO = 1.25  # between seeds
LEAST_GROWTH = 1.15  # from the width at the start


@dataclass(frozen=True)
class EspresoConfig:
    """Sizes and schedule; in brackets what was published, where it differs.

    Attributes:
        warm_up: most steps towards a profile that changes nothing.
        steps: adversarial, after that (2000).
        batch: lines per step, real ones and fake ones (16 of each of 128 patches).
        lines: of each patch with real ones; of a patch with fake ones, one.
        seeds: independent runs, whose median is the answer and whose range the repeatability.
        rate: of the discriminator's learning (Adam).
        proposer_rate, last_ratio: of the generator's learning, which falls to `last_ratio` of it (1e-3 throughout).
        decay: of the generator's weights, added to the gradient.
        smoothing: real lines are labelled one less this, fake ones this.
        boundary: weight of mass in the outer taps.
        kept: per step, of the running average of profiles.
    """

    warm_up: int = 80
    steps: int = 300
    batch: int = 256
    lines: int = 4
    seeds: int = 1
    rate: float = 1e-3
    proposer_rate: float = 5e-4
    last_ratio: float = 0.05
    decay: float = 5e-3
    smoothing: float = 0.1
    boundary: float = 10.0
    kept: float = 0.99


class Generator(nn.Module):
    """Symmetric, log-concave, positive weights that sum to one, from a learned embedding."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn((1, 256, TAPS + 4), generator=generator))
        self.layers = nn.Sequential(nn.Conv1d(256, 256, 3), nn.ReLU(), nn.Conv1d(256, 1, 3))
        draw_weights(self, generator)

    def forward(self) -> Float[Tensor, " taps"]:
        free = self.layers(self.embedding)[0, 0]
        bends = F.softplus((free + free.flip(0))[TAPS // 2 + 1 :] / 2)
        falls = bends.cumsum(0).cumsum(0)
        return torch.softmax(torch.cat([-falls.flip(0), falls.new_zeros(1), -falls]), dim=0)


class Discriminator(nn.Module):
    """Lines -> how real every stretch of 11 samples looks (logits)."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        channels = (1, 64, 64, 64, 64, 1)
        convolutions = [nn.Conv1d(i, o, 3) for i, o in pairwise(channels)]
        draw_weights(nn.ModuleList(convolutions), generator)
        layers: list[nn.Module] = []
        with torch.random.fork_rng(devices=[]):  # the power iteration starts from a random vector
            torch.default_generator.manual_seed(int(torch.randint(2**31, (), generator=generator)))
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
    histories = [[width_mm(taps, source.voxel_mm) for taps in run] for run in runs]
    ends = [history[-1] for history in histories]
    profile = slice_profile(runs[int(np.argsort(ends)[len(ends) // 2])][-1], source.voxel_mm)
    band = (min(ends), max(ends))
    shapes = [np.sqrt(_unit().variance_mm2 / family(1.0).variance_mm2) for family in FAMILIES.values()]
    doubts: tuple[str, ...] = ()
    if any(history[-1] < LEAST_GROWTH * history[0] for history in histories):
        doubts = (f"ESPRESO stayed where it starts, {band[0]:.3g} mm: it did not learn; do not trust this number",)
    elif band[1] > DOUBTFUL_RATIO * band[0]:
        doubts = (f"runs of ESPRESO disagree on the slice profile, {band[0]:.3g} to {band[1]:.3g} mm: do not trust it",)
    trace = ProfileTrace(
        fwhm_mm=profile.fwhm_mm,
        sd_mm=float(np.sqrt(profile.variance_mm2)),
        repeatability_mm=band,
        plausible_mm=(band[0] * float(min(shapes)), band[1] * float(max(shapes))),
        doubts=doubts,
        histories_mm=tuple(tuple(history) for history in histories),
        seconds=time.monotonic() - started,
    )
    return profile, trace


@dataclass(frozen=True, eq=False)
class PatchSource:
    """Where patches are cut out: an in-plane line of each slice of a window, for both in-plane axes.

    Attributes:
        views: slices of even contrast, with the axis to be blurred first, the slice axis last; air beyond both ends.
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
        if not (slices > AIR).any():
            raise InputRefused(NO_STRUCTURE)
        in_plane_mm = (volume.voxel_mm[order.axes[0]], volume.voxel_mm[order.axes[1]])
        even = torch.from_numpy(
            equalised(slices.numpy(), in_plane_mm, acquisition.spacing_mm, ProfileConfig().equalise_mm)
        ).float()
        voxel_mm = float(np.mean(in_plane_mm))
        window = SliceGrid(count, acquisition.spacing_mm)
        needed = int(np.ceil(window.field_of_view_mm / voxel_mm)) + 8  # beyond both ends
        voxels = SliceGrid(needed, voxel_mm, window.first_mm - voxel_mm * (4 - (needed - 1) / 2))
        views, inside = [], []
        for view, bright in ((even, slices), (even.transpose(0, 1), slices.transpose(0, 1))):
            lacking = max(0, needed + TAPS - 1 - view.shape[0])
            views.append(F.pad(view, (0, 0, 0, 0, lacking // 2, lacking - lacking // 2)))
            inside.append(torch.nonzero(bright > AIR) + torch.tensor([lacking // 2, 0, 0]))
        return cls(tuple(views), tuple(inside), cubic_weights(voxels, window), voxel_mm)

    def fake(
        self, count: int, taps: Float[Tensor, " taps"], generator: torch.Generator
    ) -> Float[Tensor, "count sample"]:
        """In-plane lines, one of each patch, blurred by the profile and sampled like slices."""
        found = []
        for view, along, b, across in self._patches(count, generator):
            slices = across.gather(1, torch.randint(across.shape[1], (len(b), 1), generator=generator))
            found.append(view[along, b[:, None], slices])
        return torch.cat(found) @ self.blurring(taps).T

    def real(
        self, count: int, lines: int, taps: Float[Tensor, " taps"], generator: torch.Generator
    ) -> Float[Tensor, "_ slice"]:
        """Through-plane lines across the same, `lines` of each patch and `count` in all."""
        blurring, found = self.blurring(taps), []
        for view, along, b, across in self._patches(count // lines, generator):
            patches = view[along[:, :, None], b[:, None, None], across[:, None]]
            which = torch.rand((len(b), len(blurring)), generator=generator).argsort(dim=1)[:, :lines]
            found.append((blurring[which] @ patches).flatten(0, 1))
        return torch.cat(found)

    def blurring(self, taps: Float[Tensor, " taps"]) -> Float[Tensor, "sample voxel"]:
        """Blur by the (symmetric) profile, then resampling."""
        return F.conv1d(self.sample[:, None], taps[None, None], padding=TAPS - 1)[:, 0]

    def _patches(
        self, count: int, generator: torch.Generator
    ) -> Iterator[tuple[Float[Tensor, "_ _ z"], Int[Tensor, "n voxel"], Int[Tensor, " n"], Int[Tensor, "n slice"]]]:
        """View, and indices of patches around voxels that are not air: half of the patches along either axis."""
        long, slices = self.sample.shape[1] + TAPS - 1, self.sample.shape[0]
        for view, inside, share in zip(self.views, self.inside, (count // 2, count - count // 2), strict=True):
            a, b, z = inside[torch.randint(len(inside), (share,), generator=generator)].unbind(1)
            first = (a - long // 2).clamp(0, view.shape[0] - long)
            start = (z - slices // 2).clamp(0, view.shape[2] - slices)
            yield view, first[:, None] + torch.arange(long), b, start[:, None] + torch.arange(slices)


def cubic_weights(voxels: SliceGrid, slices: SliceGrid) -> Float[Tensor, "slice voxel"]:
    """Keys' cubic convolution at the positions of slices; no filter against aliasing, as slices have none."""
    distance = np.abs(slices.centres_mm[:, None] - voxels.centres_mm) / voxels.spacing_mm
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    return torch.from_numpy(np.where(distance < 1, near, np.where(distance < 2, far, 0))).float()


def _adversarial(
    source: PatchSource, config: EspresoConfig, generator: torch.Generator
) -> list[Float[Tensor, " taps"]]:
    """The running average of profiles, at the start and after every step."""
    with torch.random.fork_rng(devices=[]):  # torch draws its own initial weights from the global generator
        proposer, judge = Generator(generator), Discriminator(generator)
    _warm_up(proposer, config)
    of_proposer = torch.optim.Adam(proposer.parameters(), config.proposer_rate, (0.5, 0.999), weight_decay=config.decay)
    of_judge = torch.optim.Adam(judge.parameters(), config.rate, (0.5, 0.999))
    falling = torch.optim.lr_scheduler.ExponentialLR(of_proposer, config.last_ratio ** (1 / config.steps))
    average = proposer().detach()
    found = [average]

    for _ in range(config.steps):
        taps = proposer()
        logits = judged(judge, source.fake(config.batch, taps, generator))
        loss = labelled(logits, 1 - config.smoothing) + config.boundary * at_ends(taps)
        of_proposer.zero_grad()
        loss.backward()
        of_proposer.step()
        falling.step()
        with torch.no_grad():
            taps = proposer()
            fake = source.fake(config.batch, taps, generator)
            real = source.real(config.batch, config.lines, taps, generator)
        of_fake, of_real = judged(judge, torch.cat([fake, real])).chunk(2)
        loss = labelled(of_fake, config.smoothing) + labelled(of_real, 1 - config.smoothing)
        of_judge.zero_grad()
        loss.backward()
        of_judge.step()
        average = config.kept * average + (1 - config.kept) * taps
        found.append(average)
    return found


def judged(judge: Discriminator, lines: Float[Tensor, "n length"]) -> Float[Tensor, "n 1 stretch"]:
    with reduced_precision(lines.device):
        return judge(lines).float()


def labelled(logits: Float[Tensor, "n 1 stretch"], label: float) -> Float[Tensor, ""]:
    """Cross entropy between what is said and a label that is told to all alike."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


def _warm_up(proposer: Generator, config: EspresoConfig) -> None:
    """Towards all weight in the middle tap, until most of it is there: beyond, the softmax would not come back."""
    optimiser = torch.optim.Adam(proposer.parameters(), config.proposer_rate, (0.5, 0.999))
    for _ in range(config.warm_up):
        middle = proposer()[TAPS // 2]
        if middle > NARROW:
            return
        loss = -torch.log(middle)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def at_ends(taps: Float[Tensor, " taps"]) -> Float[Tensor, ""]:
    """Mass of the outer two taps at both ends, so that the profile fits its support."""
    return taps[:2].sum() + taps[-2:].sum()


def slice_profile(taps: Float[Tensor, " taps"], voxel_mm: float) -> Sampled:
    """The profile p of a slice, from the kernel q that maps thin slices of `voxel_mm` to it; its shape is not told.

    var(p) = v + (h / T)^2 var(p), with v = var(q) + h^2 / 6 the variance of the taps (docs/conventions.md).
    """
    return _unit().scaled(width_mm(taps, voxel_mm))


def width_mm(taps: Float[Tensor, " taps"], voxel_mm: float) -> float:
    """Full width at half maximum of `slice_profile`."""
    variance = float(taps @ (torch.arange(TAPS) - TAPS // 2).square().to(taps) / taps.sum())
    return voxel_mm * float(np.sqrt(variance / _unit().variance_mm2 + 1))


@lru_cache(maxsize=1)
def _unit() -> Sampled:
    """Gaussian, SLR and box in equal shares, 1 mm wide."""
    return mixture(1.0, np.full(len(FAMILIES), 1 / len(FAMILIES)))
