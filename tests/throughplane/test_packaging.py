"""What is installed."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
tomllib = pytest.importorskip("tomllib")  # Python 3.11


@pytest.mark.parametrize("package", ["eclare", "priors"])
def test_weights_and_their_cards_are_installed(package):
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    installed = {path for pattern in data[package] for path in (ROOT / package).glob(pattern)}
    weights = {path for path in (ROOT / package / "weights").rglob("*") if path.is_file()}
    assert any(path.suffix == ".safetensors" for path in weights)
    assert weights <= installed


def test_every_package_is_installed():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = {".".join(path.parent.relative_to(ROOT).parts) for path in ROOT.glob("[a-z]*/**/__init__.py")}
    assert {name for name in there if name.split(".")[0] not in ("tests", "build", "demo")} == set(packages)


def test_sampling_needs_nothing_that_only_training_needs():
    without = "import sys; sys.modules['accelerate'] = None; import throughplane.loaded_priors"
    subprocess.run([sys.executable, "-c", without], cwd=ROOT, check=True)
