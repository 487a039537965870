"""Folders of JSON and safetensors: written as a whole, read with one clear line where something is wrong."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from forward_models import InputRefused, file_sha256

CONFIG, WEIGHTS = "config.json", "weights.safetensors"
PREPROCESS, DATA, CARD = "preprocess.json", "data.json", "README.md"
PICKLES = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin")
Json = dict[str, Any]


def refuse_pickles(folder: Path) -> None:
    if folder.is_file():
        raise InputRefused(f"{folder} is a file; expected a checkpoint folder with {CONFIG} and {WEIGHTS}")
    if not folder.is_dir():
        raise InputRefused(f"{folder} does not exist; expected a checkpoint folder")
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if pickles:
        raise InputRefused(
            f"{folder} holds {', '.join(pickles)}, which could run code when read; convert to {WEIGHTS} and remove it"
        )


def check_hashes(folder: Path, config: Json, names: Iterable[str]) -> None:
    """Refuse files that are missing, or not those that `config` knows."""
    hashes = section(folder / CONFIG, config, "sha256")
    for path, expected in ((folder / name, hashes.get(name)) for name in names):
        if not path.exists():
            raise InputRefused(f"{path} is missing; copy the checkpoint folder again")
        if file_sha256(path) != expected:
            raise InputRefused(
                f"{path} has sha256 {file_sha256(path)[:12]}..., {CONFIG} expects {str(expected)[:12]}...; "
                "it was changed or damaged, copy it again"
            )


def read_json(folder: Path, name: str) -> Json:
    try:
        content = json.loads((folder / name).read_text())
    except FileNotFoundError:
        raise InputRefused(f"{folder / name} is missing; copy the checkpoint folder again") from None
    except ValueError as error:
        raise InputRefused(f"{folder / name} is not readable JSON ({error}); copy the folder again") from None
    if not isinstance(content, dict):
        raise InputRefused(f"{folder / name} holds a {type(content).__name__}; expected a JSON object")
    return content


def section(path: Path, content: Json, key: str) -> Json:
    """The object under `key` of what the file holds, empty where there is none."""
    found = content.get(key, {})
    if not isinstance(found, dict):
        raise InputRefused(f"{path} holds a {type(found).__name__} under {key}; expected a JSON object")
    return found


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise InputRefused(f"{path} is not a safetensors file ({error}); copy it again") from None


def write_json(path: Path, content: Json) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def require_replaceable(folder: Path) -> None:
    """Refuse to write over what is no checkpoint.

    Raises:
        InputRefused: a file, or a folder that holds something and no config.json.
    """
    if folder.is_file():
        raise InputRefused(f"{folder} is a file; a checkpoint is a folder, name another")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / CONFIG).exists():
        raise InputRefused(f"{folder} holds files and no {CONFIG}: it is no checkpoint to replace; name another folder")


def replace_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    require_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    previous = _previous(folder)
    try:
        fill(new)
        new.chmod(0o755)
        if folder.exists():
            shutil.rmtree(previous, ignore_errors=True)
            folder.rename(previous)
        new.rename(folder)
        shutil.rmtree(previous, ignore_errors=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _previous(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}-previous")


def recover(folder: Path) -> None:
    """Put back the previous checkpoint if a crash struck between removing it and moving the new one in."""
    previous = _previous(folder)
    if not folder.exists() and previous.exists():
        previous.rename(folder)
