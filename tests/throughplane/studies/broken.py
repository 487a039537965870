"""Methods that go wrong, in a module of their own that is imported quickly by the processes that run them."""

import os
import signal
import time
from pathlib import Path

import numpy as np

from forward_models import InputRefused
from throughplane.studies.methods import Bench, Given, Made, contender


def refusing(_given: Given, _bench: Bench) -> Made:
    raise InputRefused("the scan is\nnot to my taste")


def buggy(_given: Given, _bench: Bench) -> Made:
    raise KeyError("x" * 10_000)


def greedy(_given: Given, _bench: Bench) -> Made:
    raise MemoryError("out of memory; try a smaller head")


def undefined(given: Given, bench: Bench) -> Made:
    made = contender("cubic").make(given, bench)
    made.volume.data[:] = np.nan
    return made


def returning_its_input(given: Given, _bench: Bench) -> Made:
    return Made(given.scan, {}, 0)


def dying(_given: Given, _bench: Bench) -> Made:
    os.kill(os.getpid(), signal.SIGSEGV)
    raise AssertionError


def hanging_with_a_child(_given: Given, _bench: Bench) -> Made:
    """The child outlives its parent, if it is let."""
    child = os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "600")
    (Path(os.environ["THROUGHPLANE_TEST_FOLDER"]) / "child").write_text(str(child))
    time.sleep(600)
    raise AssertionError
