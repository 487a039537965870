"""Where results go: checked before the work starts, written all or nothing when it is done."""

import errno
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib

from forward_models import FlagConflict, InputRefused, atomic_files, sidecar_path, write_image
from forward_models.files import IMAGE_SUFFIXES

Writer = Callable[[Path], None]


def record_path(image: Path, given: Path | None) -> Path:
    """OUT.json beside OUT.nii.gz, unless told otherwise."""
    return sidecar_path(image) if given is None else given


def check_images(images: Sequence[Path]) -> None:
    """Refuse output names that do not say their format."""
    for image in images:
        if not image.name.endswith(IMAGE_SUFFIXES):
            raise InputRefused(f"output {image} must end in .nii.gz, .nii or .mgz")


def check_targets(targets: Sequence[Path], inputs: Sequence[Path], force: bool) -> None:
    """Refuse outputs that cannot or must not be written, before any work is done.

    Raises:
        InputRefused: a folder is missing or not writable, a file exists, or would overwrite an input or its sidecar.
        FlagConflict: two outputs have the same name.
    """
    sidecars = [sidecar_path(file) for file in inputs if file.name.endswith(IMAGE_SUFFIXES)]
    protected = {file.resolve() for file in (*inputs, *sidecars)}
    seen: set[Path] = set()
    for target in targets:
        folder, resolved = target.parent, target.resolve()
        if resolved in seen:
            raise FlagConflict(f"two outputs would both be written to {target}; give each its own name")
        seen.add(resolved)
        if resolved in protected:
            raise InputRefused(f"output {target} would overwrite an input; choose another name")
        if not folder.is_dir():
            raise InputRefused(f"output folder {folder} does not exist; create it first")
        if target.is_dir():
            raise InputRefused(f"output {target} is a folder; give a file name")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise InputRefused(f"output folder {folder} is not writable")
        if target.exists() and not force:
            raise InputRefused(f"output {target} exists; pass --force to replace it")


def write_all(writers: Mapping[Path, Writer]) -> None:
    """Write every file, or none.

    Raises:
        InputRefused: the disk is full or a file cannot be written.
    """
    try:
        with atomic_files(*writers) as staged:
            for target, write in writers.items():
                write(staged[target])
    except OSError as error:
        names = ", ".join(str(target) for target in writers)
        why = "no space left on the device" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or error
        raise InputRefused(f"could not write {names}: {why}; nothing was written") from None


def image_writer(image: nib.Nifti1Image) -> Writer:
    """Writes an image in the format of the name."""
    return lambda path: write_image(image, path)


def json_writer(record: Mapping[str, Any]) -> Writer:
    """Writes a record for people and programs."""
    return text_writer(json_text(record) + "\n")


def json_text(record: Mapping[str, Any]) -> str:
    """As the standard has it: NaN and infinity, which JSON does not know, become null."""
    return json.dumps(_finite(record), indent=2, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def text_writer(text: str) -> Writer:
    """Writes a text as it is."""
    return lambda path: _write_text(path, text)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
