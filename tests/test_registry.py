"""Registries: found from source, imported when built, and clear about what is wrong."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

from node_runner.errors import ConfigError
from node_runner.registry import MISSING, ComponentConfig, Registry, plugin_packages


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An importable package `shop` with a registry and one component, forgotten after the test."""
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from node_runner.registry import Registry\nTHINGS = Registry('thing', 'shop', 'THINGS')\n"
    )
    (folder / "chair.py").write_text(
        "from shop import THINGS\n\n"
        "@THINGS.register('chair', 'to sit on')\n"
        "class Chair:\n"
        "    def __init__(self, room, /, *, legs: int = 4, name_of_wood: str, sizes: list[float] = [1.0]):\n"
        "        self.room, self.legs, self.wood, self.sizes = room, legs, name_of_wood, sizes\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name == "shop" or name.startswith(("shop.", "annex"))]:
        del sys.modules[name]


def things() -> Registry[object]:
    from shop import THINGS

    return THINGS


def test_components_are_listed_without_importing_them(package: Path):
    (package / "broken.py").write_text(
        "from shop import THINGS\nraise RuntimeError('ran')\n\n@THINGS.register('broken')\ndef broken(): 'Broken.'\n"
    )
    assert things().names() == ["broken", "chair"]
    assert things().signature("chair").about == "to sit on"
    assert things().signature("broken").about == "Broken."
    assert "shop.chair" not in sys.modules


def test_a_schema_has_the_settings_and_not_what_the_runner_supplies(package: Path):
    schema = things().schema("chair")
    assert issubclass(schema, ComponentConfig)
    assert [(f.name, f.type) for f in dataclasses.fields(schema)] == [
        ("name", str), ("legs", int), ("name_of_wood", str), ("sizes", list[float]),
    ]  # fmt: skip
    made = schema()
    assert (made.name, made.legs, made.name_of_wood) == ("chair", 4, MISSING)
    assert things().schema("chair") is schema


def test_default_lists_are_not_shared(package: Path):
    schema = things().schema("chair")
    schema().sizes.append(2.0)
    assert schema().sizes == [1.0]


def test_settings_compare_by_value_and_show_themselves(package: Path):
    schema = things().schema("chair")
    assert schema(legs=3) == schema(legs=3) != schema(legs=4)
    assert repr(schema(legs=3, name_of_wood="oak")) == (
        "thing_chair(name='chair', legs=3, name_of_wood='oak', sizes=[1.0])"
    )


def test_a_component_is_built_from_its_settings_and_what_is_supplied(package: Path):
    chair = things().build(things().schema("chair")(legs=3, name_of_wood="oak"), "kitchen")
    assert (chair.room, chair.legs, chair.wood, chair.sizes) == ("kitchen", 3, "oak", [1.0])


def test_one_function_may_serve_several_names_with_keywords_bound(package: Path):
    (package / "table.py").write_text(
        "from shop import THINGS\n\n"
        "@THINGS.register('desk', 'for one', seats=1)\n@THINGS.register('table', 'for six', seats=6)\n"
        "def table(*, seats: int, colour: str = 'brown'):\n    return seats, colour\n"
    )
    assert [parameter.name for parameter in things().signature("desk").parameters] == ["colour"]
    assert things().build(things().schema("desk")()) == (1, "brown")
    assert things().build(things().schema("table")(colour="red")) == (6, "red")


def test_an_unknown_name_is_refused_with_the_nearest_one(package: Path):
    with pytest.raises(ConfigError, match=r"thing=chiar: no such thing; did you mean 'chair'\? \(choose from chair\)"):
        things().get("chiar")
    with pytest.raises(ConfigError, match="no such thing"):
        things().schema("lamp")


def test_a_name_that_is_registered_twice_is_refused_with_both_places(package: Path):
    (package / "zchair.py").write_text("from shop import THINGS\n\n@THINGS.register('chair')\ndef other(): 'Other.'\n")
    with pytest.raises(ConfigError, match=r"thing 'chair' is registered twice: .*chair\.py:4 and .*zchair\.py:4"):
        things().names()


def test_a_second_registration_at_run_time_is_refused(package: Path):
    registry: Registry[object] = Registry("thing", "shop", "THINGS")

    def first() -> None: ...

    registry.register("same")(first)
    with pytest.raises(ConfigError, match="thing 'same' is registered twice"):
        registry.register("same", size=1)(first)


def test_a_component_whose_package_is_missing_says_so(package: Path):
    (package / "sofa.py").write_text(
        "from shop import THINGS\nimport not_installed_anywhere\n\n@THINGS.register('sofa')\ndef sofa(): 'Sofa.'\n"
    )
    with pytest.raises(
        ConfigError, match=r"thing=sofa needs a package that is not installed: .*not_installed_anywhere"
    ):
        things().get("sofa")


def test_a_plugin_adds_components(package: Path, monkeypatch: pytest.MonkeyPatch):
    annex = package.parent / "annex.py"
    annex.write_text("from shop import THINGS\n\n@THINGS.register('stool')\ndef stool(*, legs: int = 3): 'Stool.'\n")
    monkeypatch.setenv("NODE_RUNNER_PLUGINS", " annex ,")
    plugin_packages.cache_clear()
    try:
        assert things().names() == ["chair", "stool"]
        assert things().schema("stool")().legs == 3
        assert things().build(things().schema("stool")()) is None
    finally:
        monkeypatch.undo()
        plugin_packages.cache_clear()


def test_a_plugin_that_is_not_there_is_named(package: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NODE_RUNNER_PLUGINS", "no_such_annex")
    plugin_packages.cache_clear()
    try:
        with pytest.raises(ConfigError, match="cannot find the Python module 'no_such_annex'"):
            things().names()
    finally:
        monkeypatch.undo()
        plugin_packages.cache_clear()
