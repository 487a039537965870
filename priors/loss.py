"""What training and adaptation make smaller."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from priors.noise import Preconditioning
from priors.patches import Batch


def denoising_loss(
    denoise: Callable[[Tensor, Tensor, Tensor], Tensor], edm: Preconditioning, batch: Batch
) -> Float[Tensor, ""]:
    """E[ weight(sigma) |D(x0 + sigma n) - x0|^2 ], equation 2 of Karras et al. 2022 with their weight."""
    estimate = denoise(batch.clean + batch.sigma[:, None, None] * batch.noise, batch.sigma, batch.plane)
    return (edm.loss_weight(batch.sigma) * ((estimate - batch.clean) ** 2).mean(dim=(1, 2))).mean()
