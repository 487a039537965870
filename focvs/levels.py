"""Noise levels that a sampler comes down through."""


def noise_levels(steps: int, most: float, least: float, rho: float = 7.0) -> tuple[float, ...]:
    """`steps` levels from `most` to `least`, then 0: Karras et al. 2022, equation 5.

    Their density is even in sigma^(1 / rho): the larger `rho`, the more of them are small.
    """
    if steps < 1 or not 0 < least <= most or not rho > 0:
        raise ValueError(f"expected steps >= 1, 0 < least <= most, rho > 0; got {steps}, {least}, {most}, {rho}")
    if steps == 1:
        return (most, 0.0)
    high, low = most ** (1 / rho), least ** (1 / rho)
    levels = [(high + i / (steps - 1) * (low - high)) ** rho for i in range(steps)]
    return (most, *levels[1:-1], least, 0.0)
