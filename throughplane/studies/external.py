"""Methods of others, run by their own commands on files."""

import os
import re
import resource
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType

from forward_models import InputRefused, read_volume
from throughplane.outputs import image_writer, json_writer, write_all
from throughplane.studies.methods import ROWS, Bench, Contender, Given, Made

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
PLACEHOLDER = re.compile(r"\{(\w*)\}")
PLACEHOLDERS: Mapping[str, str] = MappingProxyType(
    {
        "in": "the scan, .nii.gz, with a JSON sidecar beside it",
        "out": "where the thin volume is looked for, .nii.gz",
        "thickness": "of the slices, mm",
        "gap": "between them, mm",
        "thin": "spacing of the thin slices to make, mm",
        "profile": "family of the slice profile",
        "seed": "of the study",
        "threads": "to use",
    }
)
REQUIRED = ("in", "out")
LAST_WORDS = 300  # characters of what a command that failed said


def external(text: str) -> tuple[str, str]:
    """NAME and CMD of NAME=CMD.

    Raises:
        InputRefused: the name cannot be one, or the command cannot be run.
    """
    name, equals, command = text.partition("=")
    if not equals or not NAME.fullmatch(name):
        raise InputRefused(
            f"--external {text!r}; expected NAME='CMD with {{in}} and {{out}}', NAME of letters, digits, . _ -"
        )
    if name in ROWS:
        raise InputRefused(f"--external {name}=... would hide the method {name} of this package; choose another name")
    words = _words(name, command)
    used = {found for word in words for found in PLACEHOLDER.findall(word)}
    if unknown := sorted(used - set(PLACEHOLDERS)):
        known = ", ".join(f"{{{word}}}" for word in PLACEHOLDERS)
        raise InputRefused(f"--external {name}: {{{unknown[0]}}} is no placeholder; expected {known}")
    if missing := [word for word in REQUIRED if word not in used]:
        raise InputRefused(f"--external {name}: the command does not say {{{missing[0]}}}: {PLACEHOLDERS[missing[0]]}")
    return name, command


def external_contender(name: str, command: str) -> Contender:
    """A command as a method."""
    return Contender(
        name,
        f"external command `{command}`",
        "what its command line names, and a sidecar with SliceThickness and SpacingBetweenSlices",
        partial(by_command, words=tuple(_words(name, command))),
    )


def by_command(given: Given, bench: Bench, words: Sequence[str]) -> Made:
    """Write the scan, run the command without a shell, read what it left.

    The command joins the process group of the job, which is killed as one when time is up.

    Raises:
        InputRefused: it cannot be started, ends with another code than 0, or leaves nothing readable.
    """
    source, target, log = (bench.folder / name for name in ("scan.nii.gz", "thin.nii.gz", "log"))
    sidecar = {
        "SliceThickness": given.thickness_mm,
        "SpacingBetweenSlices": given.thickness_mm + given.gap_mm,
        "MRAcquisitionType": "2D",
    }
    write_all({source: image_writer(given.scan.image()), source.with_name("scan.json"): json_writer(sidecar)})
    told = {
        "in": str(source),
        "out": str(target),
        "thickness": f"{given.thickness_mm:g}",
        "gap": f"{given.gap_mm:g}",
        "thin": f"{given.thin_mm:.7g}",
        "profile": given.profile_name,
        "seed": str(bench.seed),
        "threads": str(bench.threads),
    }
    command = [PLACEHOLDER.sub(lambda found: told[found[1]], word) for word in words]
    code = _run(command, bench.threads, log)
    said = _last_words(log)
    if code != 0:
        raise InputRefused(f"the command {_ended(code)}" + (f"; it said: {said}" if said else ""))
    if not target.exists():
        raise InputRefused(
            "the command ended without an error but left no {out}" + (f"; it said: {said}" if said else "")
        )
    volume = read_volume(target)
    return Made(volume, {"command": shlex.join(words), "said": said}, _peak_memory_of_children())


def _words(name: str, command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputRefused(f"--external {name}: the command cannot be split into words: {error}") from None
    if not words:
        raise InputRefused(f"--external {name}: there is no command after =")
    return words


def _run(command: Sequence[str], threads: int, log: Path) -> int:
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    with log.open("wb") as said:
        try:
            return subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                env={**os.environ, **limits},
                check=False,
            ).returncode
        except OSError as error:
            raise InputRefused(f"the command {command[0]!r} cannot be run: {error.strerror or error}") from None


def _ended(code: int) -> str:
    """In words; a negative code is a signal."""
    return f"ended with exit code {code}" if code > 0 else f"was ended by {signal_name(-code)}"


def signal_name(number: int) -> str:
    """SIGKILL for 9, with what it usually means."""
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    return f"{name}, as when memory runs out" if name == "SIGKILL" else name


def _last_words(log: Path) -> str:
    """The last line that says something."""
    with log.open("rb") as said:
        said.seek(max(0, log.stat().st_size - 4096))
        lines = [line.strip() for line in said.read().decode("utf-8", errors="replace").splitlines()]
    return next((line[-LAST_WORDS:] for line in reversed(lines) if line), "")


def _peak_memory_of_children() -> int:
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
