"""A prior on disk: a folder of JSON and safetensors whose files vouch for each other. Nothing in it can run."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from forward_models import InputRefused, file_sha256
from priors.augment import GAINS
from priors.data import RANGE_PERCENTILE, SPACING_MM
from priors.denoiser import DenoiserConfig, Prior, SliceDenoiser, new_denoiser
from priors.folders import (
    CARD,
    CONFIG,
    DATA,
    PREPROCESS,
    WEIGHTS,
    Json,
    check_hashes,
    read_json,
    read_tensors,
    refuse_pickles,
    replace_folder,
    section,
    write_json,
)
from priors.noise import NoiseLevels
from priors.planes import Plane

FORMAT = "throughplane prior, slices, 1"
HASHED = (WEIGHTS, PREPROCESS, DATA)
TRAIN_STATE = "train_state.safetensors"


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


def preprocess_record(
    denoiser: DenoiserConfig, noise_levels: NoiseLevels, contrasts: list[str], spacing_mm: float = SPACING_MM
) -> Json:
    """How slices must look before they meet the network: what `preprocess.json` holds."""
    return {
        "orientation": "RAS",
        "spacing_mm": spacing_mm,
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
        write_json(new / PREPROCESS, preprocess)
        write_json(new / DATA, data)
        (new / CARD).write_text(card)
        if train_state is not None:
            tensors, numbers = train_state
            stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            save_file(stored, new / TRAIN_STATE, metadata={"numbers": json.dumps(numbers)})
        hashes = {name: file_sha256(new / name) for name in HASHED}
        write_json(new / CONFIG, {"format": FORMAT, **config, "sha256": hashes})

    replace_folder(folder, fill)


def load_checkpoint(folder: Path, dtype: torch.dtype = torch.float32) -> Checkpoint:
    """Read a checkpoint after checking that its files belong together.

    Raises:
        InputRefused: a file is missing, damaged or a pickle, a hash is wrong, or the files contradict each other.
    """
    refuse_pickles(folder)
    config = read_json(folder, CONFIG)
    if config.get("format") != FORMAT:
        raise InputRefused(f"{folder / CONFIG} has format {config.get('format')!r}; this version reads {FORMAT!r}")
    check_hashes(folder, config, HASHED)
    preprocess, data = read_json(folder, PREPROCESS), read_json(folder, DATA)
    weights, metadata = read_tensors(folder / WEIGHTS)
    _check_consistency(folder, config, preprocess, data, metadata)
    network = _described(folder, config["denoiser"])
    try:
        network.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    except RuntimeError:
        raise InputRefused(f"{folder / WEIGHTS} does not hold the network that {CONFIG} describes") from None
    network = network.to(dtype).eval().requires_grad_(False)
    return Checkpoint(Prior(network), config, preprocess, data, config["sha256"][WEIGHTS])


def _described(folder: Path, denoiser: Json) -> SliceDenoiser:
    try:
        return new_denoiser(DenoiserConfig(**{**denoiser, "channels": tuple(denoiser["channels"])}))
    except (KeyError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise InputRefused(
            f"{folder / CONFIG} describes a network that this version cannot build "
            f"({type(error).__name__}: {error}); copy the folder again, or use the version that trained it"
        ) from None


def load_train_state(folder: Path) -> tuple[dict[str, Tensor], Json]:
    """Tensors and numbers to resume from.

    Raises:
        InputRefused: there are none, because the checkpoint was shipped without.
    """
    path = folder / TRAIN_STATE
    if not path.exists():
        raise InputRefused(f"{folder} holds no {TRAIN_STATE}: it cannot be resumed; start from its weights instead")
    tensors, metadata = read_tensors(path)
    return tensors, json.loads(metadata["numbers"])


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
    intensity = section(folder / PREPROCESS, preprocess, "intensity")
    denoiser = section(folder / CONFIG, config, "denoiser")
    claims = [
        ("spacing_mm", spacing_mm, data.get("spacing_mm"), DATA),
        ("spacing_mm", spacing_mm, _number(metadata, "spacing_mm"), WEIGHTS),
    ]
    for field in ("mean", "sigma_data"):
        stated = intensity.get(field)
        claims += [
            (f"intensity {field}", stated, denoiser.get(field), CONFIG),
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
    stated_range = intensity.get("robust_maximum_range")
    if stated_range != list(GAINS):
        raise InputRefused(
            f"{folder / PREPROCESS} says robust_maximum_range is {stated_range}; this version scales scans to "
            f"{list(GAINS)}, use the version that trained it"
        )


def _number(metadata: Mapping[str, str], name: str) -> float | None:
    return json.loads(metadata[name]) if name in metadata else None
