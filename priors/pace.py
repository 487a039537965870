"""When training stops: limits, signals, and a clock that does not count pauses."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any

PAUSE = 10.0  # a step this many times longer than usual is a pause (a stopped process), not work


@dataclass(frozen=True)
class Schedule:
    """When to stop and to save; changes nothing about the weights.

    Attributes:
        time_limit_minutes: of work in this call, pauses not counted; None for no limit.
        last_step: stop after this many steps in all; None for no limit.
        checkpoint_minutes: between checkpoints.
        workers: processes that make patches beside the training one.
    """

    time_limit_minutes: float | None = None
    last_step: int | None = None
    checkpoint_minutes: float = 10.0
    workers: int = 0

    def is_over(self, step: int, minutes: float) -> bool:
        """Whether a limit is reached after `minutes` of this call."""
        out_of_time = self.time_limit_minutes is not None and minutes >= self.time_limit_minutes
        return out_of_time or (self.last_step is not None and step >= self.last_step)

    def minutes_left(self, step: int, first_step: int, minutes: float) -> float | None:
        """Until the limit that comes first, at the pace of this call; None without limits."""
        limits = [] if self.time_limit_minutes is None else [self.time_limit_minutes - minutes]
        if self.last_step is not None:
            limits.append((self.last_step - step) * minutes / max(1, step - first_step))
        return max(0.0, min(limits)) if limits else None


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether SIGTERM or SIGINT came; a second signal acts as usual."""
    came: list[int] = []
    previous: dict[int, Any] = {}

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        signal.signal(number, previous[number])

    with suppress(ValueError):  # signals belong to the main thread; elsewhere there is nothing to do
        for number in (signal.SIGTERM, signal.SIGINT):
            previous[number] = signal.getsignal(number)
            signal.signal(number, note)
    try:
        yield lambda: bool(came)
    finally:
        with suppress(ValueError):
            for caught, handler in previous.items():
                signal.signal(caught, handler)


def leave_signals_to_parent(_worker: int) -> None:
    """A signal often goes to a whole group of processes; workers must live until the last checkpoint is written."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


class WorkClock:
    """Minutes of work: what a stopped process missed does not count."""

    def __init__(self, minutes: float) -> None:
        self.minutes = minutes
        self._last = time.monotonic()
        self._usual: float | None = None

    def tick(self) -> float:
        """Count the time since the last tick, and return the minutes so far."""
        passed = time.monotonic() - self._last
        usual = passed if self._usual is None else self._usual
        counted = min(passed, PAUSE * usual)
        self._usual = 0.9 * usual + 0.1 * counted
        self.minutes += counted / 60
        self._last = time.monotonic()
        return self.minutes

    def skip(self) -> None:
        """Do not count the time since the last tick."""
        self._last = time.monotonic()
