"""The commands: each reads its arguments, calls the library, writes what came of it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter, validators

from throughplane.names import EXIT_OK, EXIT_REFUSED, EstimatorName, MethodName, Preset

if TYPE_CHECKING:  # at run time each command imports what it needs, so that --help comes at once
    from forward_models import SliceProfile, Volume
    from forward_models.acquisition import ProfileFamily
    from forward_models.in_plane import InPlane
    from throughplane.outputs import Writer
    from throughplane.pipeline import How
    from throughplane.reading import Acquired
    from throughplane.terminal import Teller

Dtype = Literal["float32", "like-input"]  # as forward_models.volume, which takes long to import

acquisition_group = Group("How the scan was acquired", sort_key=1)
method_group = Group("Method", sort_key=2)
run_group = Group("Run", sort_key=3)
Flag = Parameter(negative=(), show_default=False)
Quiet = Parameter(name=["--quiet", "-q"], negative=(), show_default=False)
Seed = Parameter(validator=validators.Number(gte=0, lt=2**63))  # what torch and numpy both take


@Parameter(name="*", group=acquisition_group)
@dataclass(frozen=True)
class AcquisitionFlags:
    """How the scan was acquired, where the file and its sidecar do not say."""

    thickness: float | None = None
    """Slice thickness in mm. By default the sidecar's SliceThickness, else the slice spacing (no gap)."""

    gap: float | None = None
    """Gap between slices in mm: spacing minus thickness, negative where slices overlap."""

    profile: str | None = None
    """Slice profile: gaussian (the default), box, slr, a .json or .npy file that holds one, or estimate or espreso:
    estimated, with the thickness, from the scan."""

    axis: int | None = None
    """Array axis of the slices: 0, 1 or 2. By default the one with the largest voxels."""

    volume: int | None = None
    """Which volume of a 4-D file, from 0."""

    undo_alternation: Annotated[bool, Flag] = False
    """Undo brightness that alternates from slice to slice, if it clearly does (cross-talk of interleaved slices)."""


@Parameter(name="*", group=method_group)
@dataclass(frozen=True)
class MethodFlags:
    """How the thin volume is made."""

    method: MethodName = "eclare"
    """eclare learns from the scan itself, as does smore, its predecessor; focvs samples a trained prior, inverse
    regularises, cubic interpolates."""

    spacing: float | None = None
    """Thin slice spacing in mm. By default the coarser true in-plane voxel size."""

    in_plane_mm: Annotated[tuple[str, ...] | None, Parameter(consume_multiple=True, negative=())] = None
    """True voxel size in plane, one or two lengths in mm: what the scanner interpolated is undone before learning.
    auto (the default) finds it, file trusts the voxels."""

    preset: Preset | None = None
    """Cost of a method that learns or samples: fast, standard (the default) or best. instant, for eclare and focvs,
    takes the network that comes with throughplane without training it."""

    seed: Annotated[int | None, Seed] = None
    """Of a method that draws random numbers. Default 0."""

    save_network: Path | None = None
    """Keep the trained network of eclare in this .safetensors file."""

    network: Path | None = None
    """Apply the network in this .safetensors file, trained on another scan of the session; nothing is learned."""

    init: str | None = None
    """Where the network of eclare starts: a .safetensors file, or none to learn from this scan alone. By default the
    network that comes with throughplane, taught on other heads."""

    consistent: bool | None = None
    """Make the result of eclare explain the scan exactly, as a last step. On unless --no-consistent."""

    prior: Path | None = None
    """Checkpoint folder of the prior that focvs samples, of slices or volumes. By default the one that comes with the
    package."""

    samples: int | None = None
    """How many samples focvs draws; OUT is their mean. Default 1."""

    noise_aware: Annotated[bool, Flag] = False
    """focvs explains the scan to its noise instead of exactly: for noisy scans."""

    adapt: float | None = None
    """Minutes that the prior of focvs learns from this scan's own slices, before it is sampled."""

    align: Annotated[bool, Flag] = False
    """Refine where the scans of --with lie, by a rigid motion. By default their headers say it."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""

    threads: int | None = None
    """CPU threads. By default as many as there are cores."""


@Parameter(name="*", group=run_group)
@dataclass(frozen=True)
class RunFlags:
    """What every command that writes understands."""

    dtype: Dtype = "float32"
    """float32, or like-input: rounded to what the input is stored as."""

    force: Annotated[bool, Flag] = False
    """Replace existing output."""

    json_record: Path | None = None
    """Where the JSON record goes. By default beside OUT."""

    quiet: Annotated[bool, Quiet] = False
    """Tell errors only."""

    verbose: Annotated[bool, Parameter(name=["--verbose", "-v"], negative=(), show_default=False)] = False
    """Tell more."""

    debug: Annotated[bool, Flag] = False
    """Show tracebacks."""


def inspect(
    scan: Path,
    /,
    *,
    as_json: Annotated[bool, Parameter(name="--json", negative=(), show_default=False)] = False,
    acquisition: AcquisitionFlags | None = None,
    debug: Annotated[bool, Flag] = False,
) -> int:
    """Say how a scan was acquired and whether super-resolution makes sense.

    Parameters
    ----------
    scan
        A .nii, .nii.gz or .mgz file. The JSON sidecar beside it is read too.
    as_json
        Print JSON instead of a table.
    debug
        Show tracebacks.
    """
    del debug  # `main` looks for it
    from forward_models import read_sidecar, read_volume, sidecar_path
    from throughplane.inspection import as_record
    from throughplane.inspection import inspect as inspect_volume
    from throughplane.outputs import json_text
    from throughplane.terminal import show_inspection, stdout

    acquired = replace(_acquired(acquisition or AcquisitionFlags()), in_plane_mm="auto")
    volume, sidecar = read_volume(scan, acquired.volume), read_sidecar(sidecar_path(scan))
    found = inspect_volume(volume, sidecar, str(scan), acquired)
    if as_json:
        print(json_text(as_record(found)))
    else:
        show_inspection(found, stdout())
    return EXIT_OK if found.suitable else EXIT_REFUSED


def simulate(
    thin: Path,
    out: Path,
    /,
    *,
    thickness: float | None = None,
    gap: float = 0.0,
    profile: str = "gaussian",
    axis: int = 2,
    noise: float = 0.0,
    seed: Annotated[int | None, Seed] = None,
    volume: int | None = None,
    run: RunFlags | None = None,
) -> int:
    """Make the thick-slice scan that a scanner would give of a thin volume.

    Parameters
    ----------
    thin
        The thin volume: .nii, .nii.gz or .mgz.
    out
        The scan to write. Its JSON record is also its sidecar: SliceThickness, SpacingBetweenSlices and the rest.
    thickness
        Slice thickness in mm, the full width at half maximum of the slice profile. Required, unless --profile is a
        file.
    gap
        Gap between slices in mm, negative where they overlap.
    profile
        Slice profile: gaussian, box, slr, or a .json or .npy file that holds one and says its own thickness.
    axis
        Array axis to stack slices along: 0, 1 or 2.
    noise
        Standard deviation of Rician noise, in the units of the image.
    seed
        Of the noise. Default 0.
    volume
        Which volume of a 4-D file, from 0.
    """
    from forward_models import read_volume
    from throughplane.simulation import Simulation, simulate_volume
    from throughplane.terminal import Teller

    run = run or RunFlags()
    teller = Teller(run.quiet, run.verbose)
    settings = Simulation(_profile_of(profile, thickness), gap, axis, noise, seed)
    _check_outputs([out], [thin, *_files_named(profile)], run)
    source = read_volume(thin, volume)
    _check_storable(out, source, run)
    scan, record = simulate_volume(source, str(thin), settings)
    arguments = {"thin": thin, "out": out, "thickness": thickness, "gap": gap, "profile": profile, "axis": axis}
    record["arguments"] = {**arguments, "noise": noise, "seed": seed, "volume": volume, **asdict(run)}
    _write(out, scan, record, run, teller)
    return EXIT_OK


def upsample(
    scan: Path,
    out: Path,
    /,
    *,
    acquisition: AcquisitionFlags | None = None,
    method: MethodFlags | None = None,
    others: Annotated[list[Path] | None, Parameter(name="--with", negative=(), show_default=False)] = None,
    also: Annotated[list[tuple[Path, Path]] | None, Parameter(negative=(), show_default=False)] = None,
    maps: Annotated[bool, Flag] = False,
    dry_run: Annotated[bool, Flag] = False,
    run: RunFlags | None = None,
) -> int:
    """Turn a stack of thick slices into a thin-slice volume.

    Parameters
    ----------
    scan
        The scan: .nii, .nii.gz or .mgz. The JSON sidecar beside it is read too.
    out
        The thin-slice volume to write, and OUT.json beside it.
    others
        Another scan of the same head in the same contrast, which OUT shall explain too; for eclare, focvs and inverse.
        Repeatable. Its own sidecar says how it was acquired; all flags about that but --undo-alternation describe
        SCAN.
    also
        A mask, label map or other image on the grid of the scan, and where to write it on the thin grid. Repeatable.
    maps
        Write OUT_residual (W x - y; with --with also OUT_residual_2 and so on), OUT_measured (share of variance that
        the scan fixes) and, with --samples, OUT_std (expected error, from the spread of the samples) beside OUT.
    dry_run
        Say what would be done, write nothing.
    """
    from eclare import save_network
    from throughplane.companions import carry_file
    from throughplane.outputs import image_writer
    from throughplane.pipeline import carry_out, plan
    from throughplane.reading import read_scans
    from throughplane.terminal import Teller

    acquired, how, run = acquisition or AcquisitionFlags(), method or MethodFlags(), run or RunFlags()
    teller = Teller(run.quiet, run.verbose)
    companions = also or []
    _refuse_ignored(run, dry_run)
    _refuse_unsaved(how, dry_run, others)
    further = others or []
    inputs = [scan, *further, *(source for source, _ in companions)]
    inputs += _files_named(how.network, how.init, how.prior, acquired.profile)
    networks = [how.save_network] if how.save_network else []
    map_paths = {name: _beside(out, name) for name in _map_names(how, len(further))} if maps else {}
    _check_outputs([out, *(target for _, target in companions), *map_paths.values()], inputs, run, networks)
    told = replace(_acquired(acquired), in_plane_mm=_in_plane_flag(how))
    read, *others_read = read_scans([scan, *further], told, how.threads)
    _check_storable(out, read.volume, run)
    planned = plan(read, _how_of(how, run), others_read)
    carried = [carry_file(source, target, read, planned.thin) for source, target in companions]
    teller.notes([*planned.notes, *(companion.note for companion in carried)])
    if dry_run or run.verbose:
        teller.plan(planned)
    teller.cost(planned)
    if dry_run:
        return EXIT_OK
    with teller.progress() as progress:
        result = carry_out(planned, progress)
    arguments = {"scan": scan, "out": out, **asdict(acquired), **asdict(how), "also": companions, "maps": maps or None}
    arguments |= {"with": others, "align": how.align or None, **asdict(run)}
    also_record = {"also": [companion.record for companion in carried]} if carried else {}
    record = {**result.record, **also_record, "arguments": arguments}
    writers = {each.target: image_writer(each.volume.image("like-input")) for each in carried}
    writers |= {map_paths[name]: image_writer(found) for name, found in result.maps.items() if name in map_paths}
    if how.save_network is not None and result.network is not None:
        writers[how.save_network] = partial(save_network, result.network)
    _write(out, result.volume, record, run, teller, writers)
    return EXIT_OK


def project(
    sr: Path,
    scan: Path,
    out: Path,
    /,
    *,
    acquisition: AcquisitionFlags | None = None,
    run: RunFlags | None = None,
) -> int:
    """Make any tool's thin-slice volume explain the scan: x + S (y - W x).

    Parameters
    ----------
    sr
        The thin-slice volume, on the scan's own in-plane grid, stored in any order.
    scan
        The thick-slice scan it was made from.
    out
        The volume to write, on the grid of SR, and OUT.json beside it.
    """
    from throughplane.projection import project as project_volume
    from throughplane.reading import read_scan, read_single
    from throughplane.terminal import Teller

    acquired, run = acquisition or AcquisitionFlags(), run or RunFlags()
    teller = Teller(run.quiet, run.verbose)
    _check_outputs([out], [sr, scan, *_files_named(acquired.profile)], run)
    read = read_scan(scan, _acquired(acquired))
    source = read_single(sr)
    _check_storable(out, source, run)
    teller.notes(read.notes)
    result = project_volume(source, str(sr), read, run.dtype)
    arguments = {"sr": sr, "scan": scan, "out": out, **asdict(acquired), **asdict(run)}
    _write(out, result.volume, {**result.record, "arguments": arguments}, run, teller)
    return EXIT_OK


def profile(
    scan: Path,
    out: Path | None = None,
    /,
    *,
    plot: Path | None = None,
    estimator: EstimatorName = "variograms",
    axis: int | None = None,
    volume: int | None = None,
    seed: Annotated[int, Seed] = 0,
    force: Annotated[bool, Flag] = False,
    quiet: Annotated[bool, Quiet] = False,
    debug: Annotated[bool, Flag] = False,
) -> int:
    """Estimate the slice profile from the scan itself.

    Parameters
    ----------
    scan
        The scan: .nii, .nii.gz or .mgz.
    out
        The profile to write, .json, as --profile of the other commands reads it.
    plot
        A picture of the profile and of what it was fitted to: .png.
    estimator
        variograms, in seconds, or espreso, after the published adversarial one, in half a minute.
    axis
        Array axis of the slices: 0, 1 or 2. By default the one with the largest voxels.
    volume
        Which volume of a 4-D file, from 0.
    seed
        Of every draw.
    force
        Replace existing output.
    quiet
        Tell errors only.
    debug
        Show tracebacks.
    """
    del debug  # `main` looks for it
    from throughplane.outputs import check_targets, json_writer, write_all
    from throughplane.profile import as_record, estimate, plot_writer
    from throughplane.terminal import Teller, show_profile, stdout

    targets = _profile_targets(out, plot)
    check_targets(targets, [scan], force)
    found = estimate(scan, estimator=estimator, axis=axis, volume=volume, seed=seed)
    writers = {} if out is None else {out: json_writer(as_record(found))}
    if plot is not None:
        writers[plot] = plot_writer(found)
    write_all(writers)
    teller = Teller(quiet, verbose=False)
    if not quiet:
        show_profile(found, stdout())
    if targets:
        teller.written(targets, {})
    return EXIT_OK


def _profile_targets(out: Path | None, plot: Path | None) -> list[Path]:
    """What `profile` writes; names must say the format."""
    from forward_models import InputRefused

    for path, suffix in ((out, ".json"), (plot, ".png")):
        if path is not None and path.suffix != suffix:
            raise InputRefused(f"output {path} must end in {suffix}")
    if plot is not None:
        require_installed("--plot", "report", "matplotlib")
    return [path for path in (out, plot) if path is not None]


def demo(
    folder: Path = Path("demo"),
    /,
    *,
    thickness: float = 5.0,
    gap: float = 0.0,
    preset: Preset = "fast",
    force: Annotated[bool, Flag] = False,
    debug: Annotated[bool, Flag] = False,
) -> int:
    """Degrade a packaged head to thick slices and back, with a table and a picture.

    The head is the ICBM 152 T1w template at 1 mm that nilearn ships.

    Parameters
    ----------
    folder
        Where the scan, the thin volumes and comparison.png go.
    thickness
        Slice thickness in mm.
    gap
        Gap between slices in mm.
    preset
        Cost of eclare. instant trains nothing.
    force
        Replace what an earlier demo wrote.
    debug
        Show tracebacks.
    """
    del debug  # `main` looks for it
    require_installed("the demo", "demo", "nilearn", "skimage", "matplotlib")
    from throughplane.demo import run_demo
    from throughplane.terminal import Teller

    run_demo(folder, thickness, gap, preset, force, Teller(quiet=False, verbose=False))
    return EXIT_OK


def require_installed(what: str, extra: str, *packages: str) -> None:
    """Refuse `what` where packages are missing that only `extra` brings."""
    from forward_models import InputRefused

    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise InputRefused(f"{what} needs {' and '.join(missing)}; run: pip install 'throughplane[{extra}]'")


def _acquired(flags: AcquisitionFlags) -> "Acquired":
    """What the flags say; `--profile estimate` and `espreso` leave the profile to the scan."""
    from throughplane.profile import ESTIMATORS
    from throughplane.reading import Acquired

    estimator = {"estimate": ESTIMATORS["variograms"], "espreso": ESTIMATORS["espreso"]}.get(flags.profile or "")
    profile = None if flags.profile is None or estimator else _profile_flag(flags.profile)
    return Acquired(
        flags.thickness,
        flags.gap,
        profile,
        flags.axis,
        flags.volume,
        estimator=estimator,
        undo_alternation=flags.undo_alternation,
    )


def _how_of(flags: MethodFlags, run: RunFlags) -> "How":
    """What the flags say of the method."""
    from eclare import load_network
    from throughplane.pipeline import How

    return How(
        method=flags.method,
        spacing_mm=flags.spacing,
        preset=flags.preset,
        seed=flags.seed,
        network=None if flags.network is None else load_network(flags.network),
        init=flags.init,
        consistent=flags.consistent,
        prior=flags.prior,
        samples=flags.samples,
        noise_aware=flags.noise_aware,
        adapt_minutes=flags.adapt,
        align=flags.align,
        device=flags.device,
        threads=flags.threads,
        dtype=run.dtype,
    )


def _profile_flag(text: str) -> "ProfileFamily | SliceProfile":
    """A profile family by name, or the profile in a file."""
    from forward_models import Box, Gaussian, load_profile, slr

    families: dict[str, ProfileFamily] = {"gaussian": Gaussian, "box": Box, "slr": slr}
    return families[text] if text in families else load_profile(Path(text))


def _in_plane_flag(how: MethodFlags) -> "InPlane":
    """What --in-plane-mm says."""
    from forward_models import FlagConflict

    words = how.in_plane_mm
    if words is None:
        return "auto"
    said = f"--in-plane-mm {' '.join(words)}"
    if how.method in ("cubic", "inverse") and how.spacing is not None:
        raise FlagConflict(f"{said} would be ignored: --method {how.method} learns nothing and --spacing is given")
    if words in (("auto",), ("file",)):
        return "auto" if words == ("auto",) else None
    try:
        sizes = [float(word) for word in words]
    except ValueError:
        sizes = []
    if len(sizes) not in (1, 2):
        raise FlagConflict(f"{said}; expected auto, file, or one or two lengths in mm")
    return sizes[0], sizes[-1]


def _profile_of(text: str, thickness: float | None) -> "SliceProfile":
    """A profile of `thickness`, or the one in a file, which must then come without."""
    from forward_models import FlagConflict, SliceProfile

    profile = _profile_flag(text)
    if isinstance(profile, SliceProfile):
        if thickness is not None:
            raise FlagConflict(
                f"--thickness {thickness:g} would be ignored: --profile {text} says its own thickness "
                f"({profile.fwhm_mm:.4g} mm); leave one out"
            )
        return profile
    if thickness is None:
        raise FlagConflict(f"--profile {text} needs --thickness in mm")
    return profile(thickness)


def _refuse_ignored(run: RunFlags, dry_run: bool) -> None:
    """Flags that mean nothing in a dry run. --force and --dtype do: what can be written is checked."""
    from forward_models import FlagConflict

    if not dry_run:
        return
    if run.json_record is not None:
        raise FlagConflict(f"--json-record {run.json_record} would be ignored with --dry-run; leave one out")
    if run.quiet:
        raise FlagConflict("--quiet would leave --dry-run nothing to say; leave one out")
    if run.verbose:
        raise FlagConflict("--verbose would be ignored with --dry-run, which tells all it knows; leave one out")


def _map_names(how: MethodFlags, others: int) -> tuple[str, ...]:
    """What --maps writes; refused where that would be a spread that nobody calibrated."""
    from forward_models import FlagConflict

    residuals = (f"residual_{number}" for number in range(2, others + 2))
    several = how.samples is not None and how.samples > 1
    if several and others:
        raise FlagConflict(
            f"--maps with --samples {how.samples} would write OUT_std, which is calibrated for one scan only; with "
            "--with leave out --maps or --samples"
        )
    return ("residual", "measured", *residuals, *(("std",) if several else ()))


def _beside(out: Path, name: str) -> Path:
    """thin_std.nii.gz for thin.nii.gz."""
    from forward_models.files import stem

    return out.parent / f"{stem(out)}_{name}{out.name.removeprefix(stem(out))}"


def _refuse_unsaved(how: MethodFlags, dry_run: bool, others: Sequence[Path] | None) -> None:
    """--save-network where no network is trained, or under a name that does not say what it is."""
    from forward_models import FlagConflict, InputRefused

    if how.save_network is None:
        return
    if how.save_network.suffix != ".safetensors":
        raise InputRefused(f"--save-network {how.save_network} must end in .safetensors")
    for ignored, why in (
        (how.method != "eclare", f"--method {how.method} has no network"),
        (how.network is not None, "--network trains none"),
        (dry_run, "--dry-run trains none"),
        (bool(others), "--with trains one for every scan"),
    ):
        if ignored:
            raise FlagConflict(f"--save-network {how.save_network} would be ignored: {why}; leave one out")


def _check_outputs(images: list[Path], inputs: list[Path], run: RunFlags, others: Sequence[Path] = ()) -> None:
    from throughplane.outputs import check_images, check_targets, record_path

    check_images(images)
    check_targets([*images, *others, record_path(images[0], run.json_record)], inputs, run.force)


def _files_named(*values: str | Path | None) -> list[Path]:
    """Files that flags name, of folders what they hold. Where a value names none, as `gaussian`, nothing is lost."""
    paths = [Path(value) for value in values if value is not None]
    return [file for path in paths for file in (path.iterdir() if path.is_dir() else (path,))]


def _check_storable(out: Path, source: "Volume", run: RunFlags) -> None:
    """The format of `out` must hold the dtype and scaling of `source`, where --dtype like-input asks for them."""
    from forward_models import require_storable

    if run.dtype == "like-input":
        require_storable(source.header, out)


def _write(
    out: Path,
    volume: "Volume",
    record: dict[str, Any],
    run: RunFlags,
    teller: "Teller",
    others: "Mapping[Path, Writer] | None" = None,
) -> None:
    """Image, record and other files, all or nothing."""
    from throughplane.outputs import image_writer, json_writer, record_path, write_all

    record["arguments"] = {key: _plain(value) for key, value in record["arguments"].items() if value is not None}
    clipped = volume.voxels_outside_stored_dtype() if run.dtype == "like-input" else 0
    if clipped:
        teller.notes([f"{clipped} voxels do not fit {volume.header.get_data_dtype()} and were set to its limits"])
        record["voxels_set_to_dtype_limits"] = clipped
    record_file = record_path(out, run.json_record)
    writers = {out: image_writer(volume.image(run.dtype)), **(others or {})}
    writers[record_file] = json_writer(record)  # last, so that a record never describes an image that is not there
    write_all(writers)
    teller.written([*writers], record)


def _plain(value: Any) -> Any:
    """For JSON: paths as text."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
