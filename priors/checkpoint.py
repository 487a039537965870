"""A prior on disk: a folder of JSON and safetensors whose files vouch for each other. Nothing in it can run."""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from forward_models import InputRefused, file_sha256
from priors.augment import GAINS
from priors.data import RANGE_PERCENTILE, SPACING_MM
from priors.denoiser import DenoiserConfig, Prior, new_denoiser
from priors.noise import NoiseLevels
from priors.planes import Plane

FORMAT = "throughplane prior, slices, 1"
CONFIG, WEIGHTS, PREPROCESS, DATA, CARD = (
    "config.json",
    "weights.safetensors",
    "preprocess.json",
    "data.json",
    "README.md",
)
HASHED = (WEIGHTS, PREPROCESS, DATA)
TRAIN_STATE = "train_state.safetensors"
PICKLES = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin")
Json = dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """A prior with its papers.

    Attributes:
        prior: the denoiser, in float32 unless asked otherwise.
        config, preprocess, data: the JSON files of those names.
        sha256: of the weights; identifies the prior in records of runs.
    """

    prior: Prior
    config: Json
    preprocess: Json
    data: Json
    sha256: str


def preprocess_record(denoiser: DenoiserConfig, noise_levels: NoiseLevels, contrasts: list[str]) -> Json:
    """How slices must look before they meet the network: what `preprocess.json` holds."""
    return {
        "orientation": "RAS",
        "spacing_mm": SPACING_MM,
        "planes": {plane.name.lower(): plane.value for plane in Plane},
        "slice_axes": "the label is the axis of the normal; a slice keeps the other two axes of the RAS array in order",
        "intensity": {
            "map": "x = intensity / s, nothing clipped; s = robust maximum rounded to a power of two",
            "robust_maximum_percentile_of_nonzero": RANGE_PERCENTILE,
            "robust_maximum_range": list(GAINS),
            "air": 0.0,
            "mean": denoiser.mean,
            "sigma_data": denoiser.sigma_data,
        },
        "sigma": {"least": noise_levels.least, "most": noise_levels.most},
        "contrasts": contrasts,
    }


def save_checkpoint(
    folder: Path,
    network: Mapping[str, Tensor],
    config: Json,
    preprocess: Json,
    data: Json,
    card: str,
    train_state: tuple[Mapping[str, Tensor], Json] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write `folder` as a whole, replacing what was there; until the last moment the old one stays.

    Args:
        folder: the checkpoint folder.
        network: the state of a `SliceDenoiser`, EMA weights.
        config: holds at least "denoiser", the fields of `DenoiserConfig`; hashes are added.
        preprocess: see `preprocess_record`.
        data: see `Corpus.record`.
        card: README.md.
        train_state: tensors and numbers to resume from; leave out what is shipped.
        dtype: of the weights on disk.
    """

    def fill(new: Path) -> None:
        weights = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in network.items()}
        save_file(weights, new / WEIGHTS, metadata=_weights_metadata(preprocess))
        _write_json(new / PREPROCESS, preprocess)
        _write_json(new / DATA, data)
        (new / CARD).write_text(card)
        if train_state is not None:
            tensors, numbers = train_state
            stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            save_file(stored, new / TRAIN_STATE, metadata={"numbers": json.dumps(numbers)})
        hashes = {name: file_sha256(new / name) for name in HASHED}
        _write_json(new / CONFIG, {"format": FORMAT, **config, "sha256": hashes})

    _replace_folder(folder, fill)


def load_checkpoint(folder: Path, dtype: torch.dtype = torch.float32) -> Checkpoint:
    """Read a checkpoint after checking that its files belong together.

    Raises:
        InputRefused: a file is missing, damaged or a pickle, a hash is wrong, or the files contradict each other.
    """
    _refuse_pickles(folder)
    config = _read_json(folder, CONFIG)
    if config.get("format") != FORMAT:
        raise InputRefused(f"{folder / CONFIG} has format {config.get('format')!r}; this version reads {FORMAT!r}")
    for name in HASHED:
        _check_hash(folder / name, config.get("sha256", {}).get(name))
    preprocess, data = _read_json(folder, PREPROCESS), _read_json(folder, DATA)
    weights, metadata = _read_tensors(folder / WEIGHTS)
    _check_consistency(folder, config, preprocess, data, metadata)
    denoiser = DenoiserConfig(**{**config["denoiser"], "channels": tuple(config["denoiser"]["channels"])})
    network = new_denoiser(denoiser)
    try:
        network.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    except RuntimeError:
        raise InputRefused(f"{folder / WEIGHTS} does not hold the network that {CONFIG} describes") from None
    network = network.to(dtype).eval().requires_grad_(False)
    return Checkpoint(Prior(network), config, preprocess, data, config["sha256"][WEIGHTS])


def load_train_state(folder: Path) -> tuple[dict[str, Tensor], Json]:
    """Tensors and numbers to resume from.

    Raises:
        InputRefused: there are none, because the checkpoint was shipped without.
    """
    path = folder / TRAIN_STATE
    if not path.exists():
        raise InputRefused(f"{folder} holds no {TRAIN_STATE}: it cannot be resumed; start from its weights instead")
    tensors, metadata = _read_tensors(path)
    return tensors, json.loads(metadata["numbers"])


def recover(folder: Path) -> None:
    """Put back the previous checkpoint if a crash struck between removing it and moving the new one in."""
    previous = _previous(folder)
    if not folder.exists() and previous.exists():
        previous.rename(folder)


def config_fields(config: object) -> Json:
    """A frozen dataclass as JSON holds it: tuples become lists."""
    fields: Json = json.loads(json.dumps(asdict(config)))  # type: ignore[call-overload]
    return fields


def _weights_metadata(preprocess: Json) -> dict[str, str]:
    """Kept inside the weights, so that a swapped preprocess.json shows."""
    return {
        "spacing_mm": json.dumps(preprocess["spacing_mm"]),
        "mean": json.dumps(preprocess["intensity"]["mean"]),
        "sigma_data": json.dumps(preprocess["intensity"]["sigma_data"]),
    }


def _check_consistency(folder: Path, config: Json, preprocess: Json, data: Json, metadata: Mapping[str, str]) -> None:
    spacing_mm = preprocess.get("spacing_mm")
    claims = [
        ("spacing_mm", spacing_mm, data.get("spacing_mm"), DATA),
        ("spacing_mm", spacing_mm, _number(metadata, "spacing_mm"), WEIGHTS),
    ]
    for field in ("mean", "sigma_data"):
        stated = preprocess.get("intensity", {}).get(field)
        claims += [
            (f"intensity {field}", stated, config.get("denoiser", {}).get(field), CONFIG),
            (f"intensity {field}", stated, _number(metadata, field), WEIGHTS),
        ]
    for what, stated, other, file in claims:
        if stated is None or stated != other:
            raise InputRefused(
                f"{folder / PREPROCESS} says {what} is {stated}, {file} says {other}; they are not of one checkpoint, "
                "copy the folder again"
            )
    if preprocess.get("orientation") != "RAS":
        raise InputRefused(f"{folder / PREPROCESS} says orientation {preprocess.get('orientation')}; expected RAS")


def _number(metadata: Mapping[str, str], name: str) -> float | None:
    return json.loads(metadata[name]) if name in metadata else None


def _refuse_pickles(folder: Path) -> None:
    if folder.is_file():
        raise InputRefused(f"{folder} is a file; expected a checkpoint folder with {CONFIG} and {WEIGHTS}")
    if not folder.is_dir():
        raise InputRefused(f"{folder} does not exist; expected a checkpoint folder")
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if pickles:
        raise InputRefused(
            f"{folder} holds {', '.join(pickles)}, which could run code when read; convert to {WEIGHTS} and remove it"
        )


def _check_hash(path: Path, expected: str | None) -> None:
    if not path.exists():
        raise InputRefused(f"{path} is missing; copy the checkpoint folder again")
    if file_sha256(path) != expected:
        raise InputRefused(
            f"{path} has sha256 {file_sha256(path)[:12]}..., {CONFIG} expects {str(expected)[:12]}...; "
            "it was changed or damaged, copy it again"
        )


def _read_json(folder: Path, name: str) -> Json:
    try:
        content = json.loads((folder / name).read_text())
    except FileNotFoundError:
        raise InputRefused(f"{folder / name} is missing; copy the checkpoint folder again") from None
    except ValueError as error:
        raise InputRefused(f"{folder / name} is not readable JSON ({error}); copy the folder again") from None
    if not isinstance(content, dict):
        raise InputRefused(f"{folder / name} holds a {type(content).__name__}; expected a JSON object")
    return content


def _read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise InputRefused(f"{path} is not a safetensors file ({error}); copy it again") from None


def _write_json(path: Path, content: Json) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def _replace_folder(folder: Path, fill: Callable[[Path], None]) -> None:
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
