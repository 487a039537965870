"""From a denoiser of slices to a denoiser of volumes."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from focvs.views import View

SliceDenoiser = Callable[[Tensor, float], Tensor]
"""denoise(x, sigma) -> x0 for slices (batch, rows, columns), x = x0 + sigma * n."""

VolumeDenoiser = Callable[[Tensor, float], Tensor]
"""denoise(x, sigma) -> x0 for a volume (a, b, z): all that the samplers see of a prior."""

PIXELS_AT_ONCE = 8 * 192 * 192  # more is no faster on a CPU, and takes memory


def by_slices(denoise: SliceDenoiser, view: View, pixels_at_once: int = PIXELS_AT_ONCE) -> VolumeDenoiser:
    """Every slice of a plane through `denoise`, as many at once as make up `pixels_at_once`.

    The result has the dtype of x. Where x asks for gradients, batches are computed again on the way back, so that the
    activations of one batch are all that is ever held.
    """

    def denoise_volume(x: Float[Tensor, "a b z"], sigma: float) -> Float[Tensor, "a b z"]:
        slices = view.slices(x)
        at_once = max(1, pixels_at_once // (slices.shape[1] * slices.shape[2]))
        parts = [_Recomputed.apply(part.contiguous(), sigma, denoise) for part in slices.split(at_once)]
        return view.volume(torch.cat(parts)).to(x.dtype)

    return denoise_volume


class _Recomputed(torch.autograd.Function):
    """denoise(x, sigma), whose activations are computed again when its gradient is asked for."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sigma: float, denoise: SliceDenoiser) -> Tensor:
        ctx.save_for_backward(x)
        ctx.sigma, ctx.denoise = sigma, denoise
        return denoise(x, sigma)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        x = x.detach().requires_grad_(True)
        with torch.enable_grad():
            x0 = ctx.denoise(x, ctx.sigma)
        (through,) = torch.autograd.grad(x0, x, slope)
        return through, None, None
