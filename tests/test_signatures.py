"""Signatures are read from source: what counts, what is evaluated, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest

from node_runner.errors import ConfigError
from node_runner.settings import Above, Activation, AtLeast
from node_runner.signatures import REQUIRED, Signature, read_signatures, source_files


def read(tmp_path: Path, source: str, registry: str = "THINGS") -> list[Signature]:
    file = tmp_path / "file.py"
    file.write_text(source)
    return list(read_signatures("made.up", file, registry))


def test_keyword_only_parameters_are_settings_and_nothing_else_is(tmp_path: Path):
    (found,) = read(
        tmp_path,
        "@THINGS.register('a')\ndef a(x, /, y, *args, b: int = 1, c: float, **more):\n    'Does it.\\n\\n    More.'\n",
    )
    assert [(p.name, p.annotation) for p in found.parameters] == [("b", int), ("c", float)]
    assert found.parameters[0].default == 1
    assert found.parameters[1].default is REQUIRED
    assert (found.name, found.about, found.module, found.line) == ("a", "Does it.", "made.up", 2)


def test_a_class_is_read_by_its_own_init(tmp_path: Path):
    (found,) = read(
        tmp_path,
        "@THINGS.register('a', 'one line')\nclass A:\n    'Doc.'\n    def f(self, *, no: int = 1): ...\n"
        "    def __init__(self, *, yes: bool = True): ...\n",
    )
    assert [p.name for p in found.parameters] == ["yes"]
    assert found.about == "one line"


def test_a_dataclass_is_read_by_its_fields_and_those_that_it_extends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    package = tmp_path / "extended_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "base.py").write_text(
        "import not_installed_anywhere\nfrom node_runner.settings import Count\n\n"
        "@dataclass(kw_only=True)\nclass Base(Generic[T]):\n    'Attributes:\\n    n: count.'\n"
        "    kind: ClassVar[str]\n    n: Count = 3\n    seed: int = 0\n"
    )
    (package / "a.py").write_text(
        "from dataclasses import field\nfrom extended_package.base import Base\n\n@THINGS.register('a')\n"
        "@dataclass(kw_only=True)\nclass A(Base[int]):\n    'Doc.'\n    kind = 'x'\n    rate: float\n"
        "    n: int = 4\n    drops: list[int] = field(default_factory=lambda: [1, 2])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    (found,) = read_signatures("extended_package.a", package / "a.py", "THINGS")
    assert [(p.name, p.annotation) for p in found.parameters] == [
        ("rate", float), ("drops", list[int]), ("n", int), ("seed", int),
    ]  # fmt: skip
    assert [p.default for p in found.parameters] == [REQUIRED, [1, 2], 4, 0]
    assert found.docs == ("Doc.", "Attributes:\nn: count.")


def test_annotations_and_defaults_may_use_what_is_imported(tmp_path: Path):
    (found,) = read(
        tmp_path,
        "from typing import Annotated as Note\n"
        "from node_runner.settings import Above, Activation, Count\n\n"
        "@THINGS.register('a')\n"
        "def a(*, lr: Note[float, Above(0)] = 1e-3, n: Count | None = None, act: Activation = Activation.sin,\n"
        "      power: int = 2**10, drops: list[float] = [0.5, 0.25]): ...\n",
    )
    types = {p.name: p.annotation for p in found.parameters}
    defaults = {p.name: p.default for p in found.parameters}
    assert types["lr"] == Annotated[float, Above(0)]
    assert types["n"] == Annotated[int, AtLeast(1)] | None
    assert defaults == {"lr": 1e-3, "n": None, "act": Activation.sin, "power": 1024, "drops": [0.5, 0.25]}


def test_nothing_of_the_file_is_run(tmp_path: Path):
    (found,) = read(
        tmp_path,
        "import not_installed_anywhere\nfrom not_installed_either import x\nraise SystemExit\n\n"
        "@THINGS.register('a')\ndef a(*, b: int = 1): ...\n",
    )
    assert found.name == "a"


@pytest.mark.parametrize(
    "source",
    [
        "@OTHERS.register('a')\ndef a(*, b: int = 1): ...\n",
        "@THINGS.something('a')\ndef a(*, b: int = 1): ...\n",
        "THINGS.register('a')\ndef a(*, b: int = 1): ...\n",
        "# THINGS.register\n",
    ],
    ids=["another-registry", "another-method", "no-decorator", "a-comment"],
)
def test_what_is_not_registered_here_is_not_read(tmp_path: Path, source: str):
    assert read(tmp_path, source) == []


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("def a(*, b=1): ...", "parameter 'b' of a needs a type annotation"),
        ("class A: ...", "class A is registered and so needs an __init__ of its own"),
        ("@dataclass\nclass A:\n    b: int = 1", r"the settings of A are fields: use @dataclass\(kw_only=True\)"),
        ("def a(*, b: Mystery = 1): ...", r"cannot read 'Mystery' without running the file: NameError\('Mystery'\)"),
        ("def a(*, b: int = HERE): ...", "cannot read 'HERE' without running the file"),
    ],
    ids=["no-annotation", "no-init", "positional-fields", "unknown-type", "unknown-default"],
)
def test_what_cannot_be_read_is_refused_with_its_place(tmp_path: Path, source: str, why: str):
    with pytest.raises(ConfigError, match=rf"file\.py:[23]: {why}"):
        read(tmp_path, f"@THINGS.register('a')\n{source}\n")


def test_the_files_of_a_package_are_found_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    package = tmp_path / "heavy_package"
    (package / "deep").mkdir(parents=True)
    for name in ("__init__", "one", "deep/__init__", "deep/two"):
        (package / f"{name}.py").write_text("raise RuntimeError\n" if name != "__init__" else "")
    monkeypatch.syspath_prepend(tmp_path)
    assert [module for module, _ in source_files("heavy_package")] == [
        "heavy_package", "heavy_package.deep.two", "heavy_package.one",
    ]  # fmt: skip


def test_a_single_module_is_a_package_of_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "single_module.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    assert [module for module, _ in source_files("single_module")] == ["single_module"]


def test_a_package_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match="cannot find the Python module 'no_such_package'"):
        list(source_files("no_such_package"))
