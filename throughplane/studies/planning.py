"""From what was asked for to a `Study`, everything checked that can be checked before the first job."""

import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from forward_models import FlagConflict, InputRefused, Volume, file_sha256, require_usable
from forward_models.acquisition import MIN_SLICES
from forward_models.files import IMAGE_SUFFIXES, stem
from forward_models.simulate import thick_grid_within
from priors.split import LICENCES, TRAIN_SUBJECTS, UNKNOWN_LICENCE, contrast_of, find_scans, subject_of
from throughplane.reading import read_single
from throughplane.studies.cases import FAMILIES, read_mask, superior_axis
from throughplane.studies.external import external, external_contender
from throughplane.studies.methods import Contender, contender
from throughplane.studies.records import STUDY, Degradation, Study, read_study
from throughplane.studies.running import Planned, Source
from throughplane.version import version

PRIMARY = "psnr_db/head/p0.1-99.9"
MAY_DIFFER = ("command", "created")  # between the call that made a study and one that goes on with it


@dataclass(frozen=True)
class Asked:
    """What the command line says.

    Attributes:
        thin: files, or folders of them.
        grid, profiles, noise, methods: lists separated by commas; cells of the grid are thickness|gap in mm.
        masks, lesions: folders.
        externals: NAME=CMD each.
    """

    out: Path
    thin: Sequence[Path]
    grid: str
    profiles: str
    noise: str
    methods: str
    masks: Path | None
    lesions: Path | None
    externals: Sequence[str]
    seed: int
    time_limit_minutes: float
    created: date


def planned(asked: Asked) -> Planned:
    """Read and check everything; nothing is written.

    Raises:
        InputRefused: something is missing, unknown, twice there, or cannot be simulated.
        FlagConflict: a folder of masks that would be ignored.
    """
    contenders = _contenders(asked.methods, asked.externals)
    degradations = _degradations(asked)
    paths = find_scans(asked.thin)
    require_distinct("thin volume", [stem(path) for path in paths])
    sources = {
        stem(path): Source(path, _mask_file(asked.masks, path, paths), _mask_file(asked.lesions, path, paths))
        for path in paths
    }
    for flag, folder, found in (
        ("--masks", asked.masks, [source.brain for source in sources.values()]),
        ("--lesions", asked.lesions, [source.lesions for source in sources.values()]),
    ):
        if folder is not None and not any(found):
            raise FlagConflict(f"{flag} {folder} would be ignored: it holds no file named after one of the volumes")
    if not 0 < asked.time_limit_minutes < float("inf"):
        raise InputRefused(f"--time-limit {asked.time_limit_minutes:g}; expected minutes")
    study = Study(
        volumes={name: _facts(source, degradations) for name, source in sources.items()},
        degradations=degradations,
        methods=tuple(contenders),
        seed=asked.seed,
        commands=dict(external(text) for text in asked.externals),
        primary=PRIMARY,
        time_limit_minutes=asked.time_limit_minutes,
        command=_command(asked, paths),
        created=asked.created.isoformat(),
        version=version(),
    )
    return Planned(study, sources, contenders)


def _command(asked: Asked, paths: Sequence[Path]) -> str:
    """The call, with names instead of paths, so that it says nothing of the machine."""
    words = ["throughplane", "compare", asked.out.resolve().name, "--thin", *(path.name for path in paths)]
    words += ["--grid", asked.grid, "--profiles", asked.profiles, "--methods", asked.methods]
    for flag, folder in (("--masks", asked.masks), ("--lesions", asked.lesions)):
        words += [] if folder is None else [flag, folder.resolve().name]
    words += ["--noise", asked.noise]
    for text in asked.externals:
        words += ["--external", text]
    return shlex.join([*words, "--seed", str(asked.seed), "--time-limit", f"{asked.time_limit_minutes:g}"])


def require_same(out: Path, study: Study) -> None:
    """The study in `out` must be the one that was asked for.

    Raises:
        InputRefused: it is another; the message says in what.
    """
    was, asked = (json.loads(json.dumps(asdict(s))) for s in (read_study(out), study))
    differences = [
        f"{name} {_shown(was[name], asked[name])}"
        for name in was
        if name not in MAY_DIFFER and was[name] != asked[name]
    ]
    if differences:
        raise InputRefused(
            f"{out / STUDY} is of another study: {'; '.join(differences)}; repeat its command or take another folder"
        )


def _shown(was: Any, asked: Any) -> str:
    """Both, or of mappings and lists only what differs."""
    if isinstance(was, dict) and isinstance(asked, dict):
        keys = [key for key in (*was, *(k for k in asked if k not in was)) if was.get(key) != asked.get(key)]
        return ", ".join(f"{key}: {_shown(was.get(key, 'none'), asked.get(key, 'none'))}" for key in keys)
    if isinstance(was, list) and isinstance(asked, list):
        gone, new = ([x for x in a if x not in b] for a, b in ((was, asked), (asked, was)))
        return ", ".join([*(f"without {_brief(x)}" for x in gone), *(f"with {_brief(x)}" for x in new)]) or "reordered"
    return f"was {_brief(was)}, now {_brief(asked)}"


def _brief(value: Any) -> str:
    if isinstance(value, dict) and "thickness_mm" in value:
        return _cell_named(Degradation(**value))
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."


def _cell_named(degradation: Degradation) -> str:
    noise = f" noise {degradation.noise_sd:g}" if degradation.noise_sd else ""
    return f"{degradation.cell} {degradation.profile}{noise}"


def _contenders(methods: str, externals: Sequence[str]) -> dict[str, Contender]:
    names, commands = _listed(methods), [external(text) for text in externals]
    require_distinct("external method", [name for name, _ in commands])
    by_command = {name: external_contender(name, command) for name, command in commands}
    require_distinct("method", names)
    found = {name: by_command[name] if name in by_command else contender(name) for name in names}
    found |= {name: entry for name, entry in by_command.items() if name not in found}
    if not found:
        raise InputRefused("no method to compare; name some with --methods")
    return found


def _degradations(asked: Asked) -> tuple[Degradation, ...]:
    cells, profiles = [_cell(text) for text in _listed(asked.grid)], _listed(asked.profiles)
    noises = [_number("--noise", text) for text in _listed(asked.noise)]
    if unknown := [name for name in profiles if name not in FAMILIES]:
        raise InputRefused(f"--profiles {unknown[0]} is unknown; expected {', '.join(FAMILIES)}")
    if negative := [noise for noise in noises if noise < 0]:
        raise InputRefused(f"--noise {negative[0]:g}; expected a share of the data range, 0 or more")
    found = tuple(
        Degradation(thickness, gap, profile, noise)
        for thickness, gap in cells
        for profile in profiles
        for noise in noises
    )
    require_distinct("degradation", [_cell_named(d) for d in found])
    if not found:
        raise InputRefused("no scan to simulate: --grid, --profiles and --noise need one entry each at least")
    return found


def _cell(text: str) -> tuple[float, float]:
    thickness, bar, gap = text.partition("|")
    if not bar:
        raise InputRefused(f"--grid {text!r}; expected thickness|gap in mm, such as '5|1', in quotes")
    return _number("--grid", thickness), _number("--grid", gap)


def _number(flag: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not abs(number) < float("inf"):
        raise InputRefused(f"{flag} {text!r} is no number")
    return number


def _listed(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def require_distinct(what: str, names: Sequence[str]) -> None:
    """Refuse a name that is there twice."""
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputRefused(f"{what} {twice[0]} is there {names.count(twice[0])} times; name it once")


def _facts(source: Source, degradations: Iterable[Degradation]) -> dict[str, Any]:
    """What `Study.volumes` holds of a volume that every degradation can be simulated from."""
    thin = read_single(source.thin)
    require_usable(thin, str(source.thin))
    for degradation in degradations:
        _require_simulable(thin, source.thin, degradation)
    subject = subject_of(source.thin)
    return {
        "file": source.thin.name,
        "sha256": thin.sha256,
        "subject": subject,
        "contrast": contrast_of(source.thin),
        "trained_on": subject in TRAIN_SUBJECTS,
        "licence": LICENCES.get(subject, UNKNOWN_LICENCE),
        "shape": list(thin.data.shape),
        "voxel_mm": [round(size, 6) for size in thin.voxel_mm],
        "orientation": thin.orientation,
        "brain": _mask_facts(source.brain, thin),
        "lesions": _mask_facts(source.lesions, thin),
    }


def _mask_facts(path: Path | None, thin: Volume) -> dict[str, str] | None:
    if path is None:
        return None
    read_mask(path, thin)
    return {"file": path.name, "sha256": file_sha256(path)}


def _require_simulable(thin: Volume, path: Path, degradation: Degradation) -> None:
    try:
        grid = thin.slice_grid(superior_axis(thin))
        count = thick_grid_within(grid, degradation.thickness_mm, degradation.gap_mm).count
        if count < MIN_SLICES:
            raise InputRefused(f"{count} slices fit; at least {MIN_SLICES} are needed")
        if degradation.noise_sd and thin.data.min() < 0:
            raise InputRefused(
                f"it holds negative values (down to {float(thin.data.min()):g}), and Rician noise belongs to magnitudes"
            )
    except InputRefused as refusal:
        raise InputRefused(f"{path} cannot be made {_cell_named(degradation)}: {refusal}") from None


def _mask_file(folder: Path | None, thin: Path, thins: Sequence[Path]) -> Path | None:
    """The file in `folder` named <volume>*, or else <subject>_*, that is not one of the volumes; None if there is none.

    Raises:
        InputRefused: there is no such folder, or several such files.
    """
    if folder is None:
        return None
    if not folder.is_dir():
        raise InputRefused(f"{folder} is not a folder; expected one of masks named after their volumes")
    volumes = {path.resolve() for path in thins}
    masks = [p for p in sorted(folder.iterdir()) if p.name.endswith(IMAGE_SUFFIXES) and p.resolve() not in volumes]
    for start in (stem(thin), f"{subject_of(thin)}_"):
        found = [path for path in masks if path.name.startswith(start)]
        if len(found) > 1:
            raise InputRefused(f"{folder} holds {len(found)} files named {start}*; expected one mask of {thin.name}")
        if found:
            return found[0]
    return None
