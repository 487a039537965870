"""How a network is built and trained for one scan."""

from dataclasses import dataclass, replace
from enum import Enum


class BlockKind(str, Enum):
    """Residual blocks that the network is made of."""

    PLAIN = "plain"  # 3x3, ReLU, 3x3 (EDSR)
    WIDE = "wide"  # 1x1 to four times the channels, ReLU, 1x1 to 0.8 times, 3x3 (WDSR-B)


class Loss(str, Enum):
    """What training makes small, per voxel."""

    SQUARED = "squared"
    ABSOLUTE = "absolute"


@dataclass(frozen=True)
class EclareConfig:
    """Sizes and schedule of ECLARE for one scan.

    The defaults are this package's own, designed on two CPU cores (docs/experiments.md); `as_published` has the sizes
    of the published method.

    Attributes:
        block: residual blocks of the network.
        blocks, channels: how many, and how wide.
        neighbours: slices on either side that the network sees beside the one it works on. With neighbours it learns
            from a thin volume, because the scan's own slices are too far apart; without, from the scan's slices.
        refreshes: how often, evenly spread over training, that thin volume is replaced by the network's own result.
        patch_slices, patch_width: patch at the input of the network: thick slices x in-plane voxels.
        batch: patches per step.
        steps: optimiser steps at most; 0 applies a network that was taught before as it is.
        loss: mean squared or mean absolute difference.
        learning_rate: at the peak of a one-cycle schedule (Adam).
        starting_rate: the same for a network that was taught before.
        clip: largest norm of the gradient; about twice what it is in quiet training. None leaves it alone.
        averaged_over: steps over which weights are averaged exponentially; 0 uses the last ones.
        held_out: share of the thick slices kept from training, whose patches decide when to stop and which weights win.
        check_every: steps between looks at the held-out patches.
        patience: looks without improvement, after the last refresh, that end training.
        flips: whether inference also averages over the flips of each slice.
        consistent: whether the result is made to explain the scan exactly as a last step.
    """

    block: BlockKind = BlockKind.PLAIN
    blocks: int = 6
    channels: int = 48
    neighbours: int = 2
    refreshes: int = 2
    patch_slices: int = 16
    patch_width: int = 64
    batch: int = 8
    steps: int = 1500
    loss: Loss = Loss.SQUARED
    learning_rate: float = 1e-3
    starting_rate: float = 3e-4
    clip: float | None = 0.01
    averaged_over: int = 300
    held_out: float = 0.1
    check_every: int = 100
    patience: int = 6
    flips: bool = True
    consistent: bool = True

    def __post_init__(self) -> None:
        if self.refreshes and not self.neighbours:
            raise ValueError(f"{self.refreshes} refreshes without neighbours: there is no thin volume to refresh")

    @property
    def refresh_steps(self) -> tuple[int, ...]:
        """Steps after which the thin volume is replaced."""
        return tuple(self.steps * (i + 1) // (self.refreshes + 1) for i in range(self.refreshes))

    def as_smore(self) -> "EclareConfig":
        """The predecessor SMORE (Zhao et al. 2021, version 4 of 2023) at the same cost: single slices, absolute loss.

        What else sets ECLARE apart is not here: SMORE assumes an SLR profile, and leaves the result as the network
        gives it, whether or not it explains the scan.
        """
        return replace(self, neighbours=0, refreshes=0, loss=Loss.ABSOLUTE, flips=False, consistent=False)

    @classmethod
    def as_published(cls) -> "EclareConfig":
        """ECLARE v1.0 (arXiv 2503.11787): 16 blocks, 256 channels, a million 8 x 8 patches in batches of 128."""
        return cls(
            block=BlockKind.WIDE,
            blocks=16,
            channels=256,
            neighbours=0,
            refreshes=0,
            patch_slices=8,
            patch_width=8,
            batch=128,
            steps=1_000_000 // 128,
            learning_rate=1e-4,
            clip=None,
            averaged_over=0,
            held_out=0.0,
            check_every=1_000_000 // 128,  # the last weights win
            flips=False,
            consistent=False,
        )


PRESETS = {
    "instant": EclareConfig(steps=0, refreshes=0),
    "fast": EclareConfig(steps=400, refreshes=1, averaged_over=80, check_every=50, flips=False),
    "standard": EclareConfig(),
    "best": EclareConfig(steps=6000, averaged_over=1000, check_every=250),
}
