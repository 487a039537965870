"""What a person who watches a training run sees: lines, sheets of samples, curves in TensorBoard."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from priors.training import LATEST, Progress
from throughplane.outputs import write_all
from throughplane.prior_samples import Drawing, draw, sheet_writer

Told = Callable[[Progress], None]

PRINT_EVERY = 20  # steps
SHEET = Drawing(slices=4, size=160, steps=18, seed=0)


@contextmanager
def watchers(out: Path, sample_sheets: bool, tensorboard: bool, patch_mm: int) -> Iterator[Told]:
    """One function that tells all who were asked for of a step; they see it in turn. Sheets show at least a patch."""
    with ExitStack() as stack:
        told: list[Told] = [print_line]
        if sample_sheets:
            told.append(draws_sheets(out, replace(SHEET, size=max(SHEET.size, patch_mm))))
        if tensorboard:
            told.append(stack.enter_context(plots_curves(out)))

        def tell(progress: Progress) -> None:
            for watcher in told:
                watcher(progress)

        yield tell


def print_line(progress: Progress) -> None:
    """Every so many steps, and at every checkpoint."""
    left = "until stopped" if progress.minutes_left is None else f"{progress.minutes_left:.0f} min left"
    told = (
        f"step {progress.step}: {progress.patches} patches, {progress.worked_minutes:.1f} min worked, {left}; "
        f"loss {progress.loss:.4f}"
    )
    if progress.psnr is not None:
        scores = ", ".join(f"{sigma:g}: {db:.2f}" for sigma, db in progress.psnr.items())
        print(f"{told}; saved; validation dB at sigma {scores or 'not measured'}", flush=True)
    elif progress.step % PRINT_EVERY == 0:
        print(told, flush=True)


def draws_sheets(out: Path, drawing: Drawing = SHEET) -> Told:
    """Samples of each checkpoint from the same noise, in OUT/samples: how they change is what training did."""

    def told(progress: Progress) -> None:
        if progress.psnr is None:
            return
        folder = out / "samples"
        folder.mkdir(exist_ok=True)
        drawn, _ = draw(str(out / LATEST), drawing, ())
        write_all({folder / f"step_{progress.step:08d}.png": sheet_writer(drawn)})

    return told


@contextmanager
def plots_curves(out: Path) -> Iterator[Told]:
    """Loss every so many steps, and validation PSNR at every checkpoint, for TensorBoard in OUT/tensorboard."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(out / "tensorboard")) as writer:

        def told(progress: Progress) -> None:
            if progress.step % PRINT_EVERY == 0 or progress.psnr is not None:
                writer.add_scalar("loss", progress.loss, progress.step)
            for sigma, db in (progress.psnr or {}).items():
                writer.add_scalar(f"validation PSNR in dB/sigma {sigma:g}", db, progress.step)

        yield told
