"""Trained networks on disk: one safetensors file that says what it was trained for. Nothing in it can run."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from eclare.config import BlockKind, EclareConfig, Loss
from eclare.network import ThroughPlaneNetwork, new_network, oversampling_for
from eclare.pretraining import StartingNetwork
from forward_models import InputRefused, file_sha256
from forward_models.selection import SliceSelection

FORMAT = "throughplane eclare network, 2"
STARTING_FORMAT = "throughplane eclare network to start from, 1"
SHIPPED = Path(__file__).parent / "weights" / "head.safetensors"
SAME_MM = 0.02  # relative; slices that differ by less are the same protocol


@dataclass(frozen=True)
class TrainedFor:
    """The slice selection that a network has learned to undo; lengths in mm."""

    spacing_mm: float
    thin_mm: float
    fwhm_mm: float
    profile: str

    @classmethod
    def of(cls, selection: SliceSelection) -> "TrainedFor":
        return cls(
            selection.thick.spacing_mm, selection.thin.spacing_mm, selection.profile.fwhm_mm, selection.profile.name
        )


@dataclass(frozen=True, eq=False)
class SavedNetwork:
    """A network that can be applied again.

    Attributes:
        network: in float32.
        config: how it was built and trained.
        trained_for: what slices it knows.
        sha256: of its file; empty for one that was not read from a file.
    """

    network: ThroughPlaneNetwork
    config: EclareConfig
    trained_for: TrainedFor
    sha256: str = ""

    def require_fit(self, selection: SliceSelection) -> None:
        """Refuse scans whose slices this network has not learned to undo.

        Raises:
            InputRefused: slice spacing, thin spacing or profile differ.
        """
        wanted = TrainedFor.of(selection)
        for name, unit in (("spacing_mm", "slice spacing"), ("thin_mm", "thin spacing"), ("fwhm_mm", "thickness")):
            known, asked = getattr(self.trained_for, name), getattr(wanted, name)
            if abs(known / asked - 1) > SAME_MM:
                raise InputRefused(
                    f"the network was trained for a {unit} of {known:.4g} mm, this scan asks for {asked:.4g} mm; "
                    "train one on this scan instead"
                )
        if self.trained_for.profile != wanted.profile:
            raise InputRefused(
                f"the network was trained for a {self.trained_for.profile} profile, this scan has a {wanted.profile} "
                "one; train one on this scan instead"
            )


def save_network(saved: SavedNetwork, path: Path) -> None:
    """Write weights, config and what they were trained for into one .safetensors file."""
    about = {"format": FORMAT, "config": asdict(saved.config), "trained_for": asdict(saved.trained_for)}
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in saved.network.state_dict().items()}
    save_file(weights, path, metadata={"eclare": json.dumps(about)})


def save_starting_network(network: StartingNetwork, path: Path) -> None:
    """Write weights and sizes of a network to start from into one .safetensors file, in half precision."""
    about = {"format": STARTING_FORMAT, "config": asdict(network.config), "cosines": network.cosines}
    weights = {name: tensor.detach().cpu().half().contiguous() for name, tensor in network.state_dict().items()}
    save_file(weights, path, metadata={"eclare": json.dumps(about)})


def load_network(path: Path) -> SavedNetwork:
    """Read what `save_network` wrote.

    Raises:
        InputRefused: there is no such file, or it is not one of these.
    """
    about, weights = _read(path, FORMAT, "expected a .safetensors file that --save-network wrote")
    with _described(path):
        config = _config(about)
        trained_for = TrainedFor(**about["trained_for"])
        oversampling = oversampling_for(trained_for.spacing_mm, trained_for.thin_mm)
        network = new_network(config, oversampling, torch.Generator())  # its initial weights are replaced
        network.load_state_dict(weights)
    return SavedNetwork(network.eval(), config, trained_for, file_sha256(path))


def load_starting_network(path: Path = SHIPPED) -> StartingNetwork:
    """Read what `save_starting_network` wrote; by default the network that comes with this package.

    Raises:
        InputRefused: there is no such file, or it is not one of these.
    """
    about, weights = _read(path, STARTING_FORMAT, "expected a .safetensors file of scripts/pretrain_eclare.py")
    with _described(path):
        network = StartingNetwork(_config(about), about["cosines"], torch.Generator(), file_sha256(path))
        network.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    return network.eval().requires_grad_(False)


def _read(path: Path, expected: str, hint: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What the file says of itself, and its tensors."""
    if not path.is_file():
        raise InputRefused(f"network {path} does not exist; {hint}")
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("eclare", "{}"))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise InputRefused(f"network {path} is not a .safetensors file ({error})") from None
    if about.get("format") != expected:
        raise InputRefused(f"network {path} has format {about.get('format')!r}, not {expected!r}; {hint}")
    return about, weights


def _config(about: dict[str, Any]) -> EclareConfig:
    config = about["config"]
    return EclareConfig(**{**config, "block": BlockKind(config["block"]), "loss": Loss(config["loss"])})


@contextmanager
def _described(path: Path) -> Iterator[None]:
    """Refuse a file whose tensors are not those of the network that it describes."""
    try:
        yield
    except (KeyError, TypeError, ValueError, RuntimeError):
        raise InputRefused(f"network {path} does not hold the network that it describes; save it again") from None
