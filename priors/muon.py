"""Muon (Jordan et al. 2024): momentum, made orthogonal before it is stepped along, for the kernels of a network.

torch has it for matrices only; a kernel (out, in, rows, columns) is taken for a matrix (out, in rows columns) here.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

MOMENTUM = 0.95
ITERATIONS = 5
QUINTIC = 3.4445, -4.7750, 2.0315  # takes singular values from (0, 1] to between 0.7 and 1.2 in so many iterations
STEP_RMS = 0.2  # of a step per learning rate: about Adam's, so that learning rates compare (Liu et al. 2025)
AT_THE_ENDS = ("embed", "conv_in", "conv_out")  # what maps from or to something else than features goes by Adam


def kernels_of(network: nn.Module) -> list[nn.Parameter]:
    """Parameters that map features to features."""
    named = network.named_parameters()
    return [weight for name, weight in named if weight.ndim >= 2 and not any(end in name for end in AT_THE_ENDS)]


def orthogonalised(matrix: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """Nearly U V^T of the singular value decomposition U S V^T, by Newton and Schulz's iteration in bfloat16."""
    a, b, c = QUINTIC
    upright = matrix.shape[0] > matrix.shape[1]
    x = (matrix.mT if upright else matrix).bfloat16()
    x = x / x.norm().clamp_min(torch.finfo(torch.float32).tiny)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if upright else x).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Steps of root mean square `STEP_RMS * lr` along the orthogonalised (Nesterov) momentum of every parameter."""

    def __init__(self, kernels: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(kernels, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        del closure
        for group in self.param_groups:
            for kernel in group["params"]:
                if kernel.grad is None:
                    continue
                state = self.state[kernel]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(kernel)
                momentum = state["momentum"].mul_(MOMENTUM).add_(kernel.grad)
                direction = orthogonalised((kernel.grad + MOMENTUM * momentum).flatten(1))
                step = group["lr"] * STEP_RMS * max(direction.shape) ** 0.5
                kernel.sub_(direction.view_as(kernel), alpha=step)
