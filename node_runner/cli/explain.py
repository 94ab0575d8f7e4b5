"""One line for each mistake that a user can make on the command line."""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from node_runner.errors import NodeRunnerError, RunError, did_you_mean


if TYPE_CHECKING:
    from hydra.errors import HydraException, MissingConfigException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException


class Interrupted(KeyboardInterrupt):
    """Ctrl-C in a run that left a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self.folder = folder


def report(error: BaseException, commands: Sequence[str] = ()) -> int:
    """Say on stderr what went wrong; the exit code: 1 the run failed, 2 the user's mistake, 130 Ctrl-C.

    A bug of ours is shown as a traceback, and with HYDRA_FULL_ERROR=1 so is everything else.
    """
    if interrupted(error):
        again = f"; `node-run resume {shown(error.folder)}` goes on" if isinstance(error, Interrupted) else ""
        print(f"node-run: interrupted{again}", file=sys.stderr)
        return 130
    line = explain(error, commands) if isinstance(error, Exception) else None
    if line is None or os.environ.get("HYDRA_FULL_ERROR") == "1":
        traceback.print_exception(error)
        return 1
    print(f"node-run: {line}", file=sys.stderr)
    return 1 if isinstance(error, RunError) or out_of_memory(error) else 2


TOO_LARGE = (
    "DefaultCPUAllocator",
    "Storage size",
    "invalid size",
    "unpacking long",
    "array is too big",
    "Maximum allowed ",
)
"""What torch and NumPy say of arrays that no memory holds, in errors of general types."""


def interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an error: before Python 3.12, one that came while a class was made is a RuntimeError,
    and what it leaves half done may be an error too.
    """
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def out_of_memory(error: BaseException) -> bool:
    """Whether the machine or its GPU has not the memory that was asked for: torch has an error of its own for GPUs."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or any(words in str(error) for words in TOO_LARGE)


def shown(path: Path) -> Path:
    """A path as a person would type it: relative where it is below the working folder."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def explain(error: Exception, commands: Sequence[str] = ()) -> str | None:
    """What went wrong and how to mend it, in one line; None for a bug of ours."""
    if isinstance(error, NodeRunnerError):
        return str(error)
    if out_of_memory(error):
        sizes = "field.width, trainer.batch_size or the data smaller, or see what adjoint=checkpoint saves"
        return f"out of memory ({_first_line(error)}); make {sizes}"
    # Some of Hydra's errors are OSErrors too.
    line = _of_hydra(error, commands)
    if line is None and isinstance(error, OSError):
        if error.errno == errno.ENOSPC:
            where = f" to write {error.filename}" if error.filename else ""
            return f"no space left on the disk{where}; make room, or choose another one by hydra.run.dir=FOLDER"
        return f"cannot read or write {error.filename}: {error.strerror}" if error.filename else _first_line(error)
    return line


def _of_hydra(error: Exception, commands: Sequence[str]) -> str | None:
    from hydra.errors import (
        ConfigCompositionException,
        HydraException,
        MissingConfigException,
        OverrideParseException,
    )
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, MissingConfigException):
        return _missing_option(error)
    if isinstance(error, OverrideParseException):
        return _not_an_override(error, commands)
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__
    if isinstance(cause, OmegaConfBaseException):
        return _bad_value(cause)
    if isinstance(error, ValueError) and (line := _not_an_entry(error)):
        return line
    if isinstance(error, ConfigCompositionException) and "Ambiguous value" in str(error):
        return _ambiguous(error)
    if isinstance(error, HydraException):
        return _first_line(error)
    return None


def _missing_option(error: MissingConfigException) -> str:
    group, _, name = (error.missing_cfg_file or "").removesuffix(".yaml").rpartition("/")
    if not group:
        return _first_line(error)
    if group.startswith("schema/"):
        from node_runner.config import REGISTRIES

        group = group.removeprefix("schema/")
        known = next((registry.names() for registry in REGISTRIES if registry.group == group), [])
        return (
            f"configs for {group} ask for the component '{name}', and none is registered by that name "
            f"(is its module in NODE_RUNNER_PLUGINS?); {did_you_mean(name, known)}"
        )
    # Hydra knows the options of a group of which one is chosen, not those of a list.
    from node_runner.config import option_names

    refused = f"{group}={name}: no such option; {did_you_mean(name, error.options or option_names(group))}"
    return f"{refused}; for {name}: {PLUGINS[group, name]}" if (group, name) in PLUGINS else refused


def _ambiguous(error: HydraException) -> str:
    """`a=1,2` without -m. Of some groups several options may be chosen, and then commas are easily meant so."""
    from node_runner.config import MANY

    line = _first_line(error)
    group, _, names = line.partition("'")[2].removesuffix("'").partition("=")
    both = f", or use {group}=[{names}] to choose them all" if group in MANY else ""
    return f"{line} (add -m to run one job for each value{both})"


ELSEWHERE = {
    "method": "solver",
    "learning_rate": "optimizer.lr",
    "max_epochs": "trainer.epochs",
    "max_steps": "trainer.steps",
    "niters": "trainer.steps",
    "dt": "solver.step_size",
    "hidden_dim": "field.width",
    "data": "dataset",
}
"""What other tools call a setting: torchdiffeq and its examples, Lightning."""

PLUGINS = {
    ("hydra/launcher", "joblib"): "pip install 'node-runner[sweep]'",
    ("hydra/sweeper", "optuna"): "pip install hydra-optuna-sweeper",
}
"""Options of Hydra's that are packages of their own."""

EXPECTED = {"Float": "a number", "Integer": "a whole number", "bool": "true or false", "String": "text"}
"""OmegaConf's types in words."""


def _wrong_type(cause: OmegaConfBaseException) -> str:
    """OmegaConf's line on a value that cannot be had as its type, in the words of the checks of ranges."""
    line = _first_line(cause)
    found = re.fullmatch(r"Value '(.*?)'(?: of type '\w+')? (?:could not be converted to|is not a valid) (\w+).*", line)
    if found and found[2] in EXPECTED:
        return f"expected {EXPECTED[found[2]]}, got {found[1] or 'nothing'}"
    plain = re.match(r"Invalid value assigned: (\w+) is not a ListConfig", line)
    if plain:
        return f"expected a list, such as {'[png,pdf]' if plain[1] == 'str' else '[1,2]'}"
    return line


def _not_an_override(error: OverrideParseException, commands: Sequence[str]) -> str:
    if error.override in commands:
        return f"{error.override}: a command stands before its flags: node-run {error.override} ..."
    if error.override and "=" not in error.override and not error.override.startswith(("~", "+")):
        hint = did_you_mean(error.override, commands) if commands else ""
        return f"'{error.override}' is neither a command nor an override (key=value); {hint}".rstrip("; ")
    reason = str(error).splitlines()[0].removeprefix("Error parsing override").strip()
    quotes = "quote values that hold = , ; [ or {, twice in a shell: 'key=\";\"'"
    return f"{error.override}: not a valid override ({reason}); {quotes}"


def _bad_value(cause: OmegaConfBaseException) -> str:
    from omegaconf.errors import ConfigAttributeError, ConfigKeyError, ValidationError

    key = cause.full_key or ""
    if isinstance(cause, ConfigAttributeError | ConfigKeyError):
        if _is_empty(cause, key.rpartition(".")[0]):
            return f"{key}: a name that you give yourself is added with a plus: +{key}=..."
        return f"{key}: no such setting{_of_component(cause)}; {_nearest_key(cause, key)}"
    if isinstance(cause, ValidationError):
        return f"{key}: {_wrong_type(cause)}"
    return f"{key}: {_first_line(cause)}" if key else _first_line(cause)


def _not_an_entry(error: ValueError) -> str | None:
    """`figures.x=1`: OmegaConf reads what stands behind the name of a list as a number, and fails in Python's words."""
    at = traceback.extract_tb(error.__traceback__)[-1].filename
    found = re.fullmatch(r"invalid literal for int\(\) with base 10: (.*)", str(error))
    if not found or "omegaconf" not in at:
        return None
    return f"{found[1]}: a list has entries .0, .1 and so on, or is given whole, such as figures=[png,pdf]"


def _of_component(cause: OmegaConfBaseException) -> str:
    """Such as ` of solver=rk4`, where the setting was looked for in a component."""
    kind = _component(cause)
    if kind is None:
        return ""
    group, _, name = kind.__name__.partition("_")
    return f" of {group}={name}"


def _component(cause: OmegaConfBaseException) -> type[Any] | None:
    """The component in which the setting was looked for, if it was one."""
    from node_runner.registry import ComponentConfig

    kind = cause.object_type
    return kind if isinstance(kind, type) and issubclass(kind, ComponentConfig) else None


def _is_empty(cause: OmegaConfBaseException, parent: str) -> bool:
    """Whether a key was looked for in a mapping that has none."""
    from omegaconf import DictConfig, OmegaConf

    root = None if cause.parent_node is None else cause.parent_node._get_root()
    place = OmegaConf.select(root, parent) if parent and root is not None else None
    return isinstance(place, DictConfig) and not place


def _nearest_key(cause: OmegaConfBaseException, key: str) -> str:
    from omegaconf import OmegaConf

    parent = key.rpartition(".")[0]
    node = cause.parent_node
    root = node._get_root() if node is not None else None
    place = OmegaConf.select(root, parent) if parent and root is not None else root
    # No settings: a component's name, which is chosen as solver=rk4, and beside the groups what is Hydra's.
    hidden = "name" if _component(cause) else "hydra"
    known = [str(option) for option in place if option != hidden] if place is not None else []
    prefix = f"{parent}." if parent else ""
    name = key.rpartition(".")[2]
    # A setting of that very name in another group is what was meant: solver.rtol is tolerance.rtol.
    elsewhere = [
        f"{group}.{name}" for group in root or () if group not in ("hydra", parent) and _holds(root, group, name)
    ]
    if elsewhere:
        return f"did you mean '{elsewhere[0]}'?"
    if name in ELSEWHERE:
        return f"did you mean '{ELSEWHERE[name]}'?"
    return did_you_mean(key, [prefix + option for option in known]) if known else "it has none"


def _holds(root: Any, group: str, name: str) -> bool:
    """Whether a group has a setting of that name."""
    from omegaconf import DictConfig

    settings = root._get_node(group)
    return isinstance(settings, DictConfig) and not settings._is_missing() and name in settings


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
