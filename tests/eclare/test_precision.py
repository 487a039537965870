"""Which devices compute in reduced precision."""

import pytest
import torch

from eclare.precision import computes_bfloat16

CPU = torch.device("cpu")
QUESTIONS = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")


@pytest.mark.parametrize("able", QUESTIONS)
def test_either_instruction_set_suffices(monkeypatch, able):
    for question in QUESTIONS:
        monkeypatch.setattr(torch.cpu, question, lambda says=question == able: says, raising=False)
    assert computes_bfloat16(CPU)


def test_an_older_torch_that_cannot_tell_computes_in_full_precision(monkeypatch):
    for question in QUESTIONS:
        monkeypatch.delattr(torch.cpu, question, raising=False)
    assert not computes_bfloat16(CPU)
