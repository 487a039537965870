"""How long jobs tell a person how far they are."""

from typing import Protocol


class Progress(Protocol):
    """Called with the name of the stage, the steps done and the steps in all."""

    def __call__(self, stage: str, done: int, total: int) -> None: ...


def silent(stage: str, done: int, total: int) -> None:
    """Tell nobody."""
