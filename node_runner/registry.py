"""Registries: the components of each config group, by name.

A component is a class or a function under a decorator:

    @DATASETS.register("spiral")
    class Spiral: ...

Its keyword-only parameters are its settings; what stands before them is supplied by the runner. The
schema of its YAML is derived from that signature, which is read from source (see `signatures`), so
listing and checking options imports nothing heavy. The module that holds a component is imported
when the component is built.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import math
import os
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from node_runner.errors import ConfigError, did_you_mean
from node_runner.signatures import REQUIRED, Signature, read_signatures, source_files


T = TypeVar("T")
C = TypeVar("C", bound=Callable[..., Any])

MISSING = "???"
"""How OmegaConf writes a value that must be given."""


@dataclass(eq=False, repr=False)
class ComponentConfig:
    """Base of the derived schemas: every component's settings begin with its name.

    Equality and representation are written out, since a generated pair for each of the many
    derived classes would cost a third of their making.
    """

    name: str = MISSING

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]  # settings can be changed

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in vars(self).items())})"


@functools.cache
def plugin_packages() -> tuple[str, ...]:
    """Packages outside this one that bring components of their own.

    Found as entry points of the group `node_runner.plugins`, and in the environment variable
    NODE_RUNNER_PLUGINS (module names separated by commas).
    """
    installed = [point.value for point in entry_points(group="node_runner.plugins")]
    named = [name.strip() for name in os.environ.get("NODE_RUNNER_PLUGINS", "").split(",")]
    return (*installed, *filter(None, named))


class Registry(Generic[T]):
    """The components of one config group.

    Args:
        group: name of the config group, such as "dataset".
        package: where its components are, such as "node_runner.datasets".
        variable: what component files call this registry, such as "DATASETS".
    """

    def __init__(self, group: str, package: str, variable: str) -> None:
        self.group = group
        self.package = package
        self.variable = variable
        self._components: dict[str, Callable[..., T]] = {}
        self._schemas: dict[str, type[ComponentConfig]] = {}

    def register(self, name: str, about: str = "", /, **bound: Any) -> Callable[[C], C]:
        """Decorator: put a class or function into this registry.

        Args:
            name: what the user types.
            about: one line on what it is; the first line of the docstring where it is not given.
            bound: keyword-only parameters fixed for this name (so that one function can serve
                several names); they are not settings.

        Raises:
            ConfigError: the name is taken.
        """

        def add(component: C) -> C:
            if name in self._components:
                taken = self._components[name]
                where = getattr(taken, "func", taken).__module__
                raise ConfigError(f"{self.group} '{name}' is registered twice: in {where} and {component.__module__}")
            self._components[name] = functools.partial(component, **bound) if bound else component
            return component

        return add

    @functools.cached_property
    def signatures(self) -> dict[str, Signature]:
        """Every component of the group as its source declares it, by name.

        Raises:
            ConfigError: two components of one name, or one whose settings cannot be read.
        """
        found: dict[str, Signature] = {}
        for package in (self.package, *plugin_packages()):
            for module, file in source_files(package):
                for signature in read_signatures(module, file, self.variable):
                    if signature.name in found:
                        first = found[signature.name]
                        raise ConfigError(
                            f"{self.group} '{signature.name}' is registered twice: {first.file}:{first.line} "
                            f"and {signature.file}:{signature.line}"
                        )
                    found[signature.name] = signature
        return dict(sorted(found.items()))

    def names(self) -> list[str]:
        """The options of this group, in alphabetical order."""
        return list(self.signatures)

    def signature(self, name: str) -> Signature:
        """What the source declares of one component.

        Raises:
            ConfigError: unknown name, with the nearest known one.
        """
        if name not in self.signatures:
            raise ConfigError(f"{self.group}={name}: no such {self.group}; {did_you_mean(name, self.names())}")
        return self.signatures[name]

    def schema(self, name: str) -> type[ComponentConfig]:
        """The dataclass of a component's settings, derived from its signature; the same one each time."""
        if name not in self._schemas:
            columns: list[Any] = [("name", str, field(default=name))]
            for parameter in self.signature(name).parameters:
                kind = list[Any] | None if _holds_rows(parameter.annotation) else parameter.annotation
                columns.append((parameter.name, kind, _field(parameter.default)))
            self._schemas[name] = dataclasses.make_dataclass(
                f"{self.group}_{name}", columns, bases=(ComponentConfig,), kw_only=True, eq=False, repr=False
            )
        return self._schemas[name]

    def get(self, name: str) -> Callable[..., T]:
        """The component itself, imported if it is not yet.

        Raises:
            ConfigError: unknown name, or a module whose imports fail, with the reason.
        """
        signature = self.signature(name)
        if name not in self._components:
            try:
                importlib.import_module(signature.module)
            except ImportError as error:
                raise ConfigError(f"{self.group}={name} needs a package that is not installed: {error}") from error
        return self._components[name]

    def build(self, config: ComponentConfig, /, *supplied: Any) -> T:
        """Build the component that `config` names from its settings and what the runner supplies."""
        settings = {item.name: getattr(config, item.name) for item in dataclasses.fields(config)}
        name = settings.pop("name")
        for parameter in self.signature(name).parameters:
            if _holds_rows(parameter.annotation) and settings[parameter.name] is not None:
                settings[parameter.name] = _rows(settings[parameter.name], f"{self.group}.{parameter.name}")
        return self.get(name)(*supplied, **settings)


def _holds_rows(annotation: Any) -> bool:
    """Whether a setting is a list of lists of numbers, of which OmegaConf would refuse the whole ones."""
    return list[list[float]] in (annotation, *typing.get_args(annotation))


def _rows(value: list[Any], key: str) -> list[list[float]]:
    """[[1, 0.5], [0, 2]] in floats."""
    lists = all(isinstance(row, list) for row in value)
    if not lists or not all(isinstance(x, int | float) and math.isfinite(x) for row in value for x in row):
        raise ConfigError(f"{key}: expected lists of numbers, such as [[1, 0], [0, 2]], got {value}")
    return [[float(x) for x in row] for row in value]


def _field(default: Any) -> Any:
    if default is REQUIRED:
        return field(default=MISSING)
    if isinstance(default, tuple):
        default = list(default)
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default))
    return field(default=default)
