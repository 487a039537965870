"""Who may import whom, read off the source: the physics know nobody, the face knows all, nobody knows the face."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("forward_models", "eclare", "priors", "focvs", "throughplane")
MAY_IMPORT = {
    "forward_models": set(),
    "eclare": {"forward_models"},
    "priors": {"forward_models"},
    "focvs": {"forward_models"},
    "throughplane": {"forward_models", "eclare", "priors", "focvs"},
}


def imported_modules(source: str) -> Iterator[str]:
    """Every module that a source file imports, anywhere in it; lazy imports by a literal name count too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:  # relative ones stay within
            yield node.module
        elif isinstance(node, ast.Call) and _name_of(node.func) in ("import_module", "__import__"):
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield first.value


def _name_of(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def violations(folder: Path, package: str) -> list[str]:
    """Imports in the files of `package` that it is not allowed, one line each."""
    return [
        f"{path.relative_to(folder)} imports {module}"
        for path in sorted((folder / package).rglob("*.py"))
        for module in imported_modules(path.read_text(encoding="utf-8"))
        if module.split(".")[0] in set(PACKAGES) - MAY_IMPORT[package] - {package}
    ]


@pytest.mark.parametrize("package", [name for name in PACKAGES if (ROOT / name).is_dir()])
def test_imports_point_downwards(package):
    assert violations(ROOT, package) == []


def test_every_package_is_looked_at():
    """A package that this file does not know would go unchecked."""
    present = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert present <= set(PACKAGES)
    assert set(PACKAGES) <= present


@pytest.mark.parametrize(
    ("package", "statement"),
    [
        ("forward_models", "import eclare"),
        ("forward_models", "import numpy, throughplane.metrics as m"),
        ("forward_models", "from priors.noise import anything"),
        ("eclare", "from throughplane import super_resolve"),
        ("eclare", "def late():\n    from priors import anything"),
        ("priors", "import eclare.network"),
        ("priors", "try:\n    import focvs\nexcept ImportError:\n    pass"),
        ("focvs", "from priors import Prior"),
        ("focvs", "import eclare"),
        ("focvs", "from importlib import import_module\nimport_module('throughplane.pipeline')"),
    ],
)
def test_an_import_in_the_wrong_direction_is_found(tmp_path, package, statement):
    module = tmp_path / package / "deep" / "module.py"
    module.parent.mkdir(parents=True)
    module.write_text(statement)
    (found,) = violations(tmp_path, package)
    assert found.startswith(f"{package}/deep/module.py imports ")


@pytest.mark.parametrize(
    ("package", "statement"),
    [
        ("throughplane", "import eclare\nfrom forward_models import Volume\nfrom throughplane.device import threads"),
        ("eclare", "import numpy\nfrom forward_models.stack import Stack\nfrom eclare.config import EclareConfig"),
        ("eclare", "from . import network\nfrom .priors import anything"),
        ("priors", "import eclareish  # a name that only begins alike"),
    ],
)
def test_imports_that_are_allowed_are_left_alone(tmp_path, package, statement):
    (tmp_path / package).mkdir()
    (tmp_path / package / "module.py").write_text(statement)
    assert violations(tmp_path, package) == []
