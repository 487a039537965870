"""Arithmetic of the network."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def reduced_precision(device: torch.device) -> AbstractContextManager[Any]:
    """bfloat16 where the device computes it natively, float32 elsewhere."""
    return torch.autocast(device.type, torch.bfloat16) if computes_bfloat16(device) else nullcontext()


def computes_bfloat16(device: torch.device) -> bool:
    """Natively, not by emulation."""
    native = {
        "cpu": any(_cpu_says(question) for question in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")),
        "cuda": torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False),
    }
    return native.get(device.type, False)


def _cpu_says(question: str) -> bool:
    """No, in a torch without this private function: 2.4 has neither."""
    return bool(getattr(torch.cpu, question, lambda: False)())
