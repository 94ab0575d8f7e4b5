"""The settings of one option as rows of a table: key, type, default, meaning."""

from __future__ import annotations

import ast
import inspect
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import MISSING, fields
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from node_runner.registry import Registry
from node_runner.settings import DeviceConfig, Range, ToleranceConfig, TrainerConfig, in_words, ranges
from node_runner.signatures import REQUIRED, Parameter, Signature


CLASSES: dict[str, type] = {"tolerance": ToleranceConfig, "trainer": TrainerConfig, "device": DeviceConfig}
"""Groups whose settings belong to no component."""

NAMES = {
    str: "text",
    bool: "true or false",
    list[str]: "list of texts",
    list[float]: "list of numbers",
    list[list[float]]: "list of lists of numbers",
}
"""Types that have no range, in words."""


def settings_of(group: str, file: Path, registry: Registry[Any] | None) -> Iterator[tuple[str, str, str, str]]:
    """(key, type and range, default, meaning) of each setting.

    Args:
        group: of the option.
        file: the option's YAML, whose values come before those of the code.
        registry: of the group, where it has one.
    """
    text = file.read_text(encoding="utf-8")
    content = yaml.safe_load(text) or {}
    values = {key: value for key, value in content.items() if key != "defaults"}
    if registry is not None:
        component = _component(group, file.stem, content.get("defaults", []))
        signature = registry.signature(str(values.pop("name", component)))
        package = re.match(rf"# @package ({group}\..+)", text)  # of a group of which several options may be chosen
        yield from _rows(package[1] if package else group, list(signature.parameters), values, _of_component(signature))
    elif group in CLASSES:
        yield from _rows(group, _parameters(CLASSES[group]), values, _meanings(inspect.getdoc(CLASSES[group]) or ""))
    else:
        yield from _overrides(content)


def _component(group: str, name: str, defaults: list[Any]) -> str:
    """The component whose schema a YAML begins with."""
    prefix = f"/schema/{group}/"
    found = [item for item in defaults if isinstance(item, str) and item.startswith(prefix)]
    return found[0].removeprefix(prefix).split("@")[0] if found else name


def _rows(
    group: str, parameters: list[Parameter], values: dict[str, Any], meanings: dict[str, str]
) -> Iterator[tuple[str, str, str, str]]:
    for parameter in parameters:
        default = _text(values.get(parameter.name, parameter.default))
        yield f"{group}.{parameter.name}", type_text(parameter.annotation), default, meanings.get(parameter.name, "")


def _parameters(cls: type) -> list[Parameter]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return [Parameter(f.name, hints[f.name], REQUIRED if f.default is MISSING else f.default) for f in fields(cls)]


def _overrides(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """What an overlay sets: groups that it chooses and values."""
    for item in content.get("defaults", []) if not prefix else []:
        if isinstance(item, dict):
            yield from ((str(key).removeprefix("override /"), "group", _text(value), "") for key, value in item.items())
    for key, value in content.items():
        if key == "defaults" and not prefix:
            continue
        if isinstance(value, dict):
            yield from _overrides(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", type(value).__name__, _text(value), ""


def _text(value: Any) -> str:
    if value is REQUIRED:
        return "(must be given)"
    if isinstance(value, Enum):
        return value.name
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def type_text(annotation: Any) -> str:
    """An annotation as a person reads it: `a number above 0 or null`, `one of tanh, relu`."""
    found = ranges(annotation)
    parts = list(typing.get_args(annotation)) if _is_union(annotation) else [annotation]
    words = [_type(part, found) for part in parts if part is not type(None)]
    return " or ".join(words + ["null"] * (type(None) in parts))


def _is_union(annotation: Any) -> bool:
    return isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union


def _type(part: Any, found: list[Range]) -> str:
    if typing.get_origin(part) is typing.Annotated:
        part = typing.get_args(part)[0]
    if isinstance(part, type) and issubclass(part, Enum):
        return f"one of {', '.join(member.name for member in part)}"
    if part in (int, float):
        kind = "whole number" if part is int else "number"
        return in_words(found).replace("a number", kind) if found else kind
    return NAMES.get(part) or str(part).replace("typing.", "")


def _of_component(signature: Signature) -> dict[str, str]:
    """What the docstring of a component, or of a class that it extends, says of each setting, also where it refers to
    `module.name` beside it.
    """
    found: dict[str, str] = {}
    for doc in reversed(signature.docs):
        found |= _meanings(doc)
    for key, text in found.items():
        reference = re.match(r"see `(\w+)\.(\w+)`", text)
        file = signature.file.with_name(f"{reference[1]}.py") if reference else None
        if reference and file is not None and file.is_file():
            found[key] = _meanings(_documented(file).get(reference[2], "")).get(key, text)
    return found


def _documented(file: Path) -> dict[str, str]:
    """The docstrings of the classes and functions of a file, by name."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {
        node.name: ast.get_docstring(node) or ""
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    }


def _meanings(docstring: str) -> dict[str, str]:
    """What a docstring's Args (or Attributes) say of each name; `rtol, atol: ...` says it of both."""
    match = re.search(r"^(?:Args|Attributes):\n((?:[ \t]+.*\n?|\n)*)", docstring, re.MULTILINE)
    found: dict[str, str] = {}
    entries = re.split(r"^ {4}(?=\w[\w, ]*:)", match[1], flags=re.MULTILINE) if match else []
    for entry in entries:
        names, colon, about = entry.partition(":")
        if colon:
            found |= dict.fromkeys((name.strip() for name in names.split(",")), " ".join(about.split()))
    return found
