"""What a draw costs, and how it is made."""

from dataclasses import dataclass

from focvs.levels import noise_levels


@dataclass(frozen=True)
class FocvsConfig:
    """Schedule of the sampler.

    Attributes:
        steps: sweeps of the denoiser over the volume, per sample.
        most, least: noise levels of the first and the last sweep, where the robust maximum of the scan is near 1.
        eta: share of fresh noise in each step, 0 to 1.
        repeats: times each step is made (time travel); multiplies the cost.
        own_plane_every: every so many sweeps the scan's own plane has a turn; 0 leaves it out.
        from_estimate: start from an estimate and noise of level `most`, or from noise alone.
    """

    steps: int = 16
    most: float = 0.3
    least: float = 0.02
    eta: float = 0.5
    repeats: int = 1
    own_plane_every: int = 0
    from_estimate: bool = True

    @property
    def levels(self) -> tuple[float, ...]:
        return noise_levels(self.steps, self.most, self.least)


PRESETS = {
    "instant": FocvsConfig(steps=8),
    "fast": FocvsConfig(steps=8),
    "standard": FocvsConfig(),
    "best": FocvsConfig(steps=50),
}
