"""The command line. Parsing and printing only; everything else is a library call."""

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType

from cyclopts import App, CycloptsError

from throughplane.names import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_MEMORY,
    EXIT_OK,
    EXIT_REFUSED,
    EXIT_UNHEARD,
    EXIT_USAGE,
    EXIT_WEIGHTS,
)
from throughplane.version import version

app = App(
    name="throughplane",
    help="Through-plane super-resolution of anisotropic head MRI: thick 2-D slices in, a thin-slice volume out.",
    help_epilogue="Exit codes: 0 ok, 1 failed, 2 usage, 3 input refused, 4 out of memory, "
    "5 weights missing, 130 interrupted. Not a medical device.",
    version=lambda: f"throughplane {version()}",
    suppress_keyboard_interrupt=False,
)
# loaded when called, so that a typing mistake is told at once
app.command(
    "throughplane.commands:inspect", help="Say how a scan was acquired and whether super-resolution makes sense."
)
app.command("throughplane.commands:upsample", help="Turn a stack of thick slices into a thin-slice volume.")
app.command("throughplane.commands:project", help="Make any tool's thin-slice volume explain the scan.")
app.command(
    "throughplane.commands:simulate", help="Make the thick-slice scan that a scanner would give of a thin volume."
)
app.command("throughplane.commands:profile", help="Estimate the slice profile from the scan itself (experimental).")
app.command("throughplane.commands:demo", help="Degrade a packaged head to thick slices and back, with a picture.")
app.command(
    "throughplane.study_commands:compare_report", help="Make tables, figures and a report of a comparison study."
)
app.command("throughplane.prior_commands:train_prior", help="Train a prior of head MRI slices.")
app.command("throughplane.study_commands:compare", help="Compare methods on simulated scans of thin volumes.")
prior = App(name="prior", help="Priors of head MRI: what there is, what it is, whether it is intact.")
prior.command("throughplane.prior_commands:prior_list", name="list", help="List priors: one line each.")
prior.command("throughplane.prior_commands:prior_show", name="show", help="Show the model card of a prior.")
prior.command("throughplane.prior_commands:prior_verify", name="verify", help="Check that a prior is intact.")
prior.command("throughplane.prior_commands:prior_sample", name="sample", help="Draw slices from a prior alone.")
app.command(prior)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Bad input gets one line on standard error."""
    tokens = list(sys.argv[1:] if argv is None else argv)
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
        return code if isinstance(code, int) else EXIT_OK
    except CycloptsError as error:
        return _told(error, EXIT_USAGE, tokens)
    except KeyboardInterrupt:
        return _told("interrupted; nothing was written", EXIT_INTERRUPTED, tokens)
    except (BrokenPipeError, SystemExit):  # rich, where it meets a closed pipe first, raises the latter
        return _unheard()
    except Exception as error:
        return _told(error, _exit_code(error), tokens)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _exit_code(error: Exception) -> int:
    from forward_models import FlagConflict, InputRefused
    from throughplane.sampling import WeightsMissing

    if isinstance(error, FlagConflict):
        return EXIT_USAGE
    if isinstance(error, WeightsMissing):
        return EXIT_WEIGHTS
    if isinstance(error, InputRefused):
        return EXIT_REFUSED
    return EXIT_MEMORY if isinstance(error, MemoryError) else EXIT_FAILED


def _told(error: Exception | str, code: int, tokens: list[str]) -> int:
    if "--debug" in tokens and isinstance(error, Exception):
        traceback.print_exception(error)
    message = " ".join(str(error).split())
    if code == EXIT_FAILED and isinstance(error, Exception):
        message = _failure(error, message)
    print(f"throughplane: {message}", file=sys.stderr)
    return code


def _failure(error: Exception, message: str) -> str:
    """What went wrong though the input was fine: known to happen, or a bug."""
    from eclare import TrainingDiverged

    if isinstance(error, FloatingPointError):
        return f"training diverged: {message}; the last checkpoint is intact; try a lower --learning-rate"
    if isinstance(error, TrainingDiverged):
        return f"training diverged: {message}; nothing was written; try another --seed, or --method inverse"
    return f"unexpected {type(error).__name__}: {message}; please report it with the output of --debug"


def _unheard() -> int:
    """Whoever read what is printed has closed the pipe (`| head`): nothing more is said, not even while exiting."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_UNHEARD


def _interrupt(_signum: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
