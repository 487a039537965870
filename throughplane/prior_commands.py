"""`throughplane train-prior` and `throughplane prior`: arguments in, calls to `priors`, what came of it out."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter, validators

from throughplane.commands import Flag, Seed, require_installed
from throughplane.names import EXIT_OK

if TYPE_CHECKING:  # at run time each command imports what it needs, so that --help comes at once
    from priors.learner import TrainingConfig

Count = Parameter(validator=validators.Number(gte=1))
Positive = Parameter(validator=validators.Number(gt=0))
NotNegative = Parameter(validator=validators.Number(gte=0))
Share = Parameter(validator=validators.Number(gte=0, lte=1))
FoldedPixels = Parameter(validator=validators.Number(gte=16, modulo=16))


@Parameter(name="*")
@dataclass(frozen=True)
class TrainingFlags:
    """What shapes the weights; a run is continued only with the same."""

    recipe: Literal["head-2d", "head-2d-layout"] | None = None
    """As this prior of the package was trained (priors/configs): in place of all other flags of this group."""

    batch_size: Annotated[int, Count] = 16
    """Patches per process and step."""

    learning_rate: Annotated[float, Positive] = 4e-4
    """Of Adam, constant after a short rise."""

    kernel_learning_rate: Annotated[float, Positive] | None = None
    """Of Muon, which then moves the kernels in Adam's place; about half of Adam's. Default: Adam alone."""

    patch_size: Annotated[int, FoldedPixels] = 96
    """Pixels of 1 mm along either side; a multiple of 16."""

    synthetic_ratio: Annotated[float, Share] = 0.2
    """Share of patches that come from label maps."""

    precision: Literal["no", "bf16"] = "no"
    """Reduced precision of the network's arithmetic; weights stay in float32."""

    seed: Annotated[int, Seed] = 1
    """Of patches, noise and initial weights."""


@Parameter(name="*")
@dataclass(frozen=True)
class ScheduleFlags:
    """When to stop and to save; changes nothing about the weights."""

    time_limit: Annotated[float | None, Positive] = None
    """Minutes of work in this call, pauses not counted. Default: none."""

    last_step: Annotated[int | None, Count] = None
    """Stop after this many steps in all. Default: none."""

    checkpoint_minutes: Annotated[float, Positive] = 10.0
    """Minutes between checkpoints."""

    workers: Annotated[int, NotNegative] = 0
    """Processes that make patches beside the one that trains."""


def train_prior(
    *paths: Path,
    label_maps: Path | None = None,
    start_from: Path | None = None,
    training: TrainingFlags | None = None,
    schedule: ScheduleFlags | None = None,
    sample_sheets: bool = True,
    tensorboard: Annotated[bool, Flag] = False,
    dry_run: Annotated[bool, Flag] = False,
    debug: Annotated[bool, Flag] = False,
) -> int:
    """Train a prior of head MRI slices, from where OUT was left.

    Parameters
    ----------
    paths
        SCANS ... OUT: thin scans named <subject>_..._<contrast>.nii.gz, or folders of them, then the folder of the run.
    label_maps
        Folder of SynthSeg training label maps, 1 mm, to make synthetic heads from.
    start_from
        Checkpoint whose weights a new run starts with.
    sample_sheets
        With every checkpoint, draw a few slices of each plane into OUT/samples; always from the same noise.
    tensorboard
        Log to OUT/tensorboard, for TensorBoard.
    dry_run
        Print configuration and data, train nothing.
    debug
        Show tracebacks.
    """
    del debug  # `main` looks for it
    from forward_models import FlagConflict

    if len(paths) < 2:
        raise FlagConflict("train-prior needs SCANS, at least one, and then OUT, the folder of the run")
    require_installed("training", "train", "accelerate", "diffusers")
    if sample_sheets:
        require_installed("training with sample sheets (leave them out with --no-sample-sheets)", "train", "matplotlib")
    if tensorboard:
        require_installed("--tensorboard", "train,tensorboard", "tensorboard")
    from priors.corpus import read_corpus
    from priors.learner import config_record
    from priors.pace import Schedule
    from priors.training import train
    from throughplane.training_watch import watchers

    limits = schedule or ScheduleFlags()
    config = training_config(training or TrainingFlags())
    corpus = read_corpus(paths[:-1], label_maps)
    if dry_run:
        print(json.dumps({**config_record(config), "data": corpus.record(config.spacing_mm)}, indent=2))
        return EXIT_OK
    pace = Schedule(limits.time_limit, limits.last_step, limits.checkpoint_minutes, limits.workers)
    patch_mm = config.patches.size * config.patches.pixel_mm
    with watchers(paths[-1], sample_sheets, tensorboard, patch_mm) as told:
        train(config, pace, corpus, paths[-1], start_from, told)
    return EXIT_OK


def training_config(flags: TrainingFlags) -> "TrainingConfig":
    """The configuration that the flags ask for."""
    from forward_models import FlagConflict
    from priors.configs import RECIPES
    from priors.learner import TrainingConfig
    from priors.patches import PatchConfig

    if flags.recipe is not None:
        plain = vars(TrainingFlags(recipe=flags.recipe))
        if others := [name.replace("_", "-") for name, value in vars(flags).items() if value != plain[name]]:
            raise FlagConflict(f"--recipe decides what --{others[0]} would; leave one of them out")
        return RECIPES[flags.recipe]
    return TrainingConfig(
        flags.batch_size,
        flags.learning_rate,
        flags.kernel_learning_rate,
        precision=flags.precision,
        seed=flags.seed,
        patches=PatchConfig(size=flags.patch_size, synthetic_ratio=flags.synthetic_ratio),
    )


def prior_list(folder: Path | None = None, /, *, debug: Annotated[bool, Flag] = False) -> int:
    """List priors: one line each.

    Parameters
    ----------
    folder
        Where checkpoint folders lie. By default those that came with this installation.
    debug
        Show tracebacks.
    """
    del debug
    _require_networks()
    from forward_models import InputRefused
    from priors.description import describe
    from priors.shipped import installed_priors, priors_in

    if folder is not None and not folder.is_dir():
        raise InputRefused(f"{folder} is not a folder; expected one that holds checkpoint folders")
    found = installed_priors() if folder is None else priors_in(folder)
    for name, path in found.items():
        try:
            prior = describe(path)
        except InputRefused as refusal:
            print(f"{name}: refused: {refusal}")
            continue
        print(f"{name}: {prior.sha256[:12]}, {prior.told}, {path}")
    if not found:
        print("no priors")
    return EXIT_OK


def prior_show(
    prior: str,
    /,
    *,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
    debug: Annotated[bool, Flag] = False,
) -> int:
    """Show what a prior is, how it was trained and how far it got.

    Parameters
    ----------
    prior
        Name of an installed prior, or a checkpoint folder.
    as_json
        Print all records as JSON instead of the model card; volumes have no card.
    debug
        Show tracebacks.
    """
    del debug
    _require_networks()
    from priors.description import describe
    from priors.folders import CARD
    from priors.shipped import find_prior

    folder = find_prior(prior)
    found = describe(folder)
    if as_json:
        print(json.dumps({"sha256": found.sha256, **found.records}, indent=2))
        return EXIT_OK
    size_mb = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    print(f"{folder}: {found.told}; {found.parameters / 1e6:.1f} million parameters, {size_mb:.1f} MB")
    print(f"sha256 {found.sha256}\n")
    print((folder / CARD).read_text(encoding="utf-8") if (folder / CARD).exists() else "no model card")
    return EXIT_OK


def prior_verify(prior: str, /, *, debug: Annotated[bool, Flag] = False) -> int:
    """Check that the files of a prior belong together and that it denoises.

    Parameters
    ----------
    prior
        Name of an installed prior, or a checkpoint folder: of slices or, if monai is installed, of volumes.
    debug
        Show tracebacks.
    """
    del debug
    _require_networks()
    from priors.shipped import find_prior
    from priors.verification import verify

    folder = find_prior(prior)
    print(f"{folder}: ok, sha256 {verify(folder)}")
    return EXIT_OK


def prior_sample(
    prior: str,
    out: Path,
    /,
    *,
    layout: str | None = None,
    scans: Annotated[tuple[Path, ...], Parameter(negative=())] = (),
    slices: int = 16,
    size: int = 192,
    steps: int = 18,
    seed: Annotated[int, Seed] = 0,
    force: Annotated[bool, Flag] = False,
    debug: Annotated[bool, Flag] = False,
) -> int:
    """Draw slices from a prior alone: a sheet of them, and how close they come to training slices.

    Parameters
    ----------
    prior
        Name of an installed prior, or a checkpoint folder.
    out
        The sheet to write, .png; a record lies beside it.
    layout
        Prior of larger pixels, by name or folder, that draws the slices this one puts detail into: head-2d-layout.
    scans
        What the prior was trained and validated on; its nearest slices are looked for there.
    slices
        How many per plane.
    size
        Millimetres along either side.
    steps
        Noise levels on the way.
    seed
        Of the noise.
    force
        Replace existing output.
    debug
        Show tracebacks.
    """
    del debug
    _require_networks()
    require_installed("a sample sheet", "report", "matplotlib")
    from throughplane.outputs import check_targets, json_writer, write_all
    from throughplane.prior_samples import Drawing, draw, sheet_writer

    _require_sensible(out, slices, size, steps)
    record_file = out.with_suffix(".json")
    check_targets([out, record_file], list(scans), force)
    drawn, record = draw(prior, Drawing(slices, size, steps, seed), scans, layout)
    write_all({out: sheet_writer(drawn), record_file: json_writer(record)})
    print(_told_of(record))
    return EXIT_OK


def _require_sensible(out: Path, slices: int, size: int, steps: int) -> None:
    from forward_models import InputRefused

    if out.suffix != ".png":
        raise InputRefused(f"output {out} must end in .png")
    for flag, value, least in (("--slices", slices, 1), ("--size", size, 32), ("--steps", steps, 2)):
        if value < least:
            raise InputRefused(f"{flag} {value}; expected at least {least}")


def _told_of(record: dict[str, Any]) -> str:
    if "nearest" not in record:
        return f"{record['seconds']:.0f} s; nearest training slices not looked for: no --scans"
    lines = [
        f"{plane}: nearest training slice of a sample: median correlation {found['samples_median']:.3f}, highest "
        f"{found['samples_highest']:.3f}; of a validation slice: {found['validation_median']:.3f}, "
        f"{found['validation_highest']:.3f}"
        for plane, found in record["nearest"].items()
    ]
    return "\n".join(lines)


def _require_networks() -> None:
    require_installed("priors", "train", "diffusers")
