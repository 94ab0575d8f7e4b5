"""The rule of the layers: a module imports only from layers below its own, and configuring a run imports no torch."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import node_runner


PACKAGE = Path(node_runner.__file__).parent

LAYERS = [
    {"errors"}, {"settings"}, {"signatures"}, {"registry"}, {"types", "views", "batches"}, {"learning"},
    {"tracing", "tableaux"}, {"forms"},
    {"runtime"}, {"memory"}, {"schemas"},
    {"datasets", "fields", "regularisers", "solvers", "engines"},
    {"adjoints"}, {"solving"}, {"models", "stiffness"}, {"tasks"}, {"reporting"}, {"training"}, {"config"},
    {"assemble"}, {"runs"}, {"library", "drop_in"}, {"cli"}, {"__main__"},
]  # fmt: skip
"""Lowest first. Modules of one layer know nothing of each other."""

RANK = {module: rank for rank, layer in enumerate(LAYERS) for module in layer}
FILES = sorted(PACKAGE.rglob("*.py"))


def home(file: Path) -> str:
    """The module or subpackage of node_runner that a file belongs to."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(file: Path) -> Iterator[str]:
    """The parts of node_runner that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno} imports relatively"
            names = [f"{node.module}.{alias.name}" if node.module == "node_runner" else str(node.module)
                     for alias in node.names]  # fmt: skip
        for name in names:
            parts = name.split(".")
            if parts[0] == "node_runner" and len(parts) > 1 and parts[1] != "__version__":
                yield parts[1]


def test_every_module_has_a_layer():
    assert {home(file) for file in FILES} - {"__init__"} == set(RANK)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_point_down(file: Path):
    here = home(file)
    if here == "__init__":
        assert list(imported(file)) == []
        return
    for there in imported(file):
        assert here == there or RANK[there] < RANK[here], f"{here} imports node_runner.{there}"


def modules_after(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after running some code."""
    script = f"{code}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=PACKAGE.parent, timeout=120
    )
    return set(done.stdout.split())


HEAVY = {"torch", "torchvision", "torchdiffeq", "scipy", "sklearn", "matplotlib", "tensorboard"}


@pytest.mark.parametrize(
    "code",
    [
        "import node_runner",
        "import node_runner.config",
        "from node_runner.config import REGISTRIES\nfor r in REGISTRIES:\n    [r.schema(name) for name in r.names()]",
        "from node_runner.config import compose_run, config_hash\nconfig_hash(compose_run(['model=cnf']))",
    ],
    ids=["the-package", "config", "every-schema", "a-whole-configuration"],
)
def test_nothing_heavy_is_imported_to_configure_a_run(code: str):
    assert modules_after(code) & HEAVY == set()


def test_the_package_has_the_names_of_the_drop_in_and_no_others():
    import torchdiffeq

    for name in ("odeint", "odeint_adjoint", "odeint_event"):
        theirs, ours = (inspect.signature(getattr(module, name)).parameters for module in (torchdiffeq, node_runner))
        assert [(p.name, p.kind) for p in ours.values()] == [(p.name, p.kind) for p in theirs.values()]
    with pytest.raises(AttributeError, match="has no attribute 'odeintt'"):
        _ = node_runner.odeintt
