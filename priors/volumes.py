"""Published 3-D priors behind the interface of our own: MONAI's diffusion U-Net as denoise(x, sigma) -> x0.

MONAI is imported when a network is built, and only then.
"""

import math
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor, nn

from forward_models import InputRefused, file_sha256
from priors.checkpoint import config_fields
from priors.data import SPACING_MM
from priors.denoiser import pad_to_multiple
from priors.folders import (
    CONFIG,
    WEIGHTS,
    check_hashes,
    read_json,
    read_tensors,
    refuse_pickles,
    replace_folder,
    write_json,
)
from priors.schedules import PREDICTIONS, Prediction

FORMAT = "throughplane prior, volumes, 1"
PAIRS = ("RL", "AP", "SI")
SAFE, TORCH = (".safetensors",), (".pt", ".pth")
WRAPPERS = ("model", "state_dict")  # keys under which training scripts keep the state dict
FEATURE_MAPS = 17  # of the first level, at once; 16.2 in float32 and 16.7 in bfloat16 were measured at 96 x 96 x 96
ATTENTION_MAPS = 2
ORIENTATION = "LPS"  # of published networks
MAXIMUM = 1.1  # median over our training scans of the 99.9th percentile, where the 99th of non-zero voxels is 1


@dataclass(frozen=True)
class VolumeConfig:
    """Architecture of MONAI's `DiffusionModelUNet`, as published for heads at 1 mm, 192 x 224 x 192.

    Attributes:
        channels: per resolution level; attention at the lowest only.
        blocks_per_level: residual blocks on the way down; one more on the way up.
        norm_groups: of every group normalisation.
        head_channels: per attention head.
    """

    channels: tuple[int, ...] = (16, 32, 64, 128, 256)
    blocks_per_level: int = 2
    norm_groups: int = 8
    head_channels: int = 8

    @property
    def multiple(self) -> int:
        """Volumes are padded to a multiple of this many voxels."""
        return 2 ** (len(self.channels) - 1)

    def bytes_for(self, shape: tuple[int, int, int], dtype: torch.dtype) -> float:
        """Peak memory of denoising a volume of `shape`: feature maps of the first level, and the attention matrices."""
        voxels = math.prod(-(-n // self.multiple) * self.multiple for n in shape)
        attention = (self.channels[-1] // self.head_channels) * (voxels / self.multiple**3) ** 2
        return dtype.itemsize * (FEATURE_MAPS * self.channels[0] * voxels + ATTENTION_MAPS * attention)


@dataclass(frozen=True, eq=False)
class VolumePrior:
    """A 3-D prior. Intensities outside are those of our own priors: RAS, air 0, robust maximum near 1.

    Attributes:
        network: sees volumes in `orientation` in which air is -1 and `maximum` is 1.
        config: of the network.
        prediction: what it was trained to say.
        maximum: the intensity, in units of x, of the 99.9th percentile of the volume.
        sha256: of the weights; identifies the prior in records of runs.
        spacing_mm: of its voxels.
        orientation: where its axes point to, such as "LPS".
    """

    network: nn.Module
    config: VolumeConfig
    prediction: Prediction
    maximum: float = MAXIMUM
    sha256: str | None = None
    spacing_mm: float = SPACING_MM
    orientation: str = ORIENTATION

    def __post_init__(self) -> None:
        places = [next((i for i, pair in enumerate(PAIRS) if letter in pair), None) for letter in self.orientation]
        if sorted(str(place) for place in places) != ["0", "1", "2"]:
            raise InputRefused(
                f"orientation {self.orientation!r}; expected one letter each of RL, AP and SI, as in LPS"
            )

    def for_maximum(self, maximum: float) -> "VolumePrior":
        """The same prior for a scan whose 99.9th percentile is `maximum`."""
        return replace(self, maximum=maximum)

    def denoise(self, x: Float[Tensor, "batch r a s"], sigma: float) -> Float[Tensor, "batch r a s"]:
        """The posterior mean of x0 given x = x0 + sigma * n, in the dtype of `x`, for volumes of any size.

        Nothing is clipped. Differentiable in x; beyond the noise levels of the schedule the nearest step is told.
        """
        if not sigma > 0:
            raise ValueError(f"sigma is {sigma}; expected a positive noise level, in intensity units")
        gain = 2 / self.maximum
        at = self.prediction.path(gain * sigma)
        z = at.signal * (gain * self._turned(x) - 1)
        padded, box = pad_to_multiple(z, self.config.multiple)
        dtype = next(self.network.parameters()).dtype
        steps = torch.full((len(x),), at.step, device=x.device)
        said = self.network(padded.to(dtype)[:, None], steps)[:, 0][box].to(x.dtype)
        return self._turned_back((self.prediction.x0(z, said, at) + 1) / gain)

    @property
    def _axes(self) -> tuple[list[int], list[int]]:
        """Which axes of (batch, r, a, s) those of the network are, and which of the network's are flipped."""
        places = [next(i for i, pair in enumerate(PAIRS) if letter in pair) for letter in self.orientation]
        flipped = [1 + i for i, letter in enumerate(self.orientation) if letter not in "RAS"]
        return [0, *(1 + place for place in places)], flipped

    def _turned(self, x: Float[Tensor, "batch r a s"]) -> Float[Tensor, "batch i j k"]:
        axes, flipped = self._axes
        return x.permute(axes).flip(flipped)

    def _turned_back(self, x: Float[Tensor, "batch i j k"]) -> Float[Tensor, "batch r a s"]:
        axes, flipped = self._axes
        return x.flip(flipped).permute([axes.index(axis) for axis in range(4)])


def new_volume_network(config: VolumeConfig) -> nn.Module:
    """Untrained.

    Raises:
        InputRefused: MONAI is not installed, or knows no such network.
    """
    try:
        from monai.networks.nets import DiffusionModelUNet
    except ImportError:
        raise InputRefused("3-D priors need monai; run: pip install 'throughplane[volumes]'") from None
    levels = len(config.channels)
    try:
        network = DiffusionModelUNet(
            spatial_dims=3,
            in_channels=1,
            out_channels=1,
            channels=config.channels,
            attention_levels=(False,) * (levels - 1) + (True,),
            num_res_blocks=config.blocks_per_level,
            norm_num_groups=config.norm_groups,
            num_head_channels=config.head_channels,
        )
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise InputRefused(f"monai cannot build the network {config} ({error}); check its config") from None
    return cast(nn.Module, network)


def save_volume_prior(folder: Path, prior: VolumePrior) -> None:
    """Write `folder` as a whole: config.json and weights.safetensors."""

    def fill(new: Path) -> None:
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in prior.network.state_dict().items()}
        save_file(weights, new / WEIGHTS)
        config = {
            "format": FORMAT,
            "network": config_fields(prior.config),
            "prediction": prior.prediction.name,
            "maximum": prior.maximum,
            "spacing_mm": prior.spacing_mm,
            "orientation": prior.orientation,
            "sha256": {WEIGHTS: file_sha256(new / WEIGHTS)},
        }
        write_json(new / CONFIG, config)

    replace_folder(folder, fill)


def load_volume_prior(
    path: Path,
    prediction: Prediction | None = None,
    config: VolumeConfig | None = None,
    dtype: torch.dtype = torch.float32,
) -> VolumePrior:
    """A 3-D prior from a folder that `save_volume_prior` wrote, or from a file with published weights.

    Args:
        path: the folder; or a .safetensors file, or a .pt file that holds tensors and nothing else.
        prediction: what the network of a file predicts; a folder says so itself.
        config: the network of a file, if it is not the published one.
        dtype: of the network's arithmetic.

    Raises:
        InputRefused: nothing usable there, something that could run code, or weights of another network.
    """
    if path.is_dir():
        if prediction is not None or config is not None:
            raise InputRefused(f"{path} is a folder and says itself what its network is and predicts; leave them out")
        return _from_folder(path, dtype)
    if prediction is None:
        raise InputRefused(f"{path} does not say what its network predicts; give one of {', '.join(PREDICTIONS)}")
    config = config or VolumeConfig()
    network = _filled(config, _state_of(path), path).to(dtype)
    return VolumePrior(network, config, prediction, sha256=file_sha256(path))


def _from_folder(folder: Path, dtype: torch.dtype) -> VolumePrior:
    refuse_pickles(folder)
    record = read_json(folder, CONFIG)
    if record.get("format") != FORMAT:
        raise InputRefused(f"{folder / CONFIG} has format {record.get('format')!r}; expected {FORMAT!r}")
    check_hashes(folder, record, [WEIGHTS])
    if record.get("prediction") not in PREDICTIONS:
        raise InputRefused(
            f"{folder / CONFIG} says prediction {record.get('prediction')!r}; expected one of {', '.join(PREDICTIONS)}"
        )
    try:
        config = VolumeConfig(**{**record["network"], "channels": tuple(record["network"]["channels"])})
        maximum, spacing_mm = float(record["maximum"]), float(record["spacing_mm"])
        orientation = str(record["orientation"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputRefused(f"{folder / CONFIG} lacks or garbles {error}; save the prior again") from None
    network = _filled(config, read_tensors(folder / WEIGHTS)[0], folder / WEIGHTS).to(dtype)
    prediction = PREDICTIONS[record["prediction"]]
    return VolumePrior(network, config, prediction, maximum, record["sha256"][WEIGHTS], spacing_mm, orientation)


def _state_of(path: Path) -> dict[str, Tensor]:
    if not path.exists():
        raise InputRefused(f"{path} does not exist; expected a folder or a file of weights")
    if path.suffix in SAFE:
        return read_tensors(path)[0]
    if path.suffix not in TORCH:
        raise InputRefused(f"{path} is no file of weights; expected {' or '.join(SAFE + TORCH)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch also warns of what it refuses
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError):
        raise InputRefused(
            f"{path} holds more than tensors, which could run code when read, or is damaged; convert it to .safetensors"
        ) from None
    return _unwrapped(content, path)


def _unwrapped(content: Any, path: Path) -> dict[str, Tensor]:
    """The state dict, also where a training script keeps it among other things."""
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputRefused(
            f"{path} holds no state dict; expected tensors by name, or those under {' or '.join(WRAPPERS)}"
        )
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def _filled(config: VolumeConfig, weights: Mapping[str, Tensor], path: Path) -> nn.Module:
    network = new_volume_network(config)
    try:
        network.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    except RuntimeError:
        raise InputRefused(
            f"{path} does not hold the network {config}: {_first_difference(network, weights)}"
        ) from None
    return network.eval().requires_grad_(False)


def _first_difference(network: nn.Module, weights: Mapping[str, Tensor]) -> str:
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    name = next(name for name in [*expected, *found] if expected.get(name) != found.get(name))
    return f"{name} has shape {found.get(name)}, expected {expected.get(name)}"
