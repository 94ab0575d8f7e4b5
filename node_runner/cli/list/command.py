"""`node-run list`: what can be chosen. Reads sources and YAML, and imports neither torch nor Hydra."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from node_runner.cli.list.settings_table import settings_of
from node_runner.cli.tables import Cell, Row, show
from node_runner.config import REGISTRIES, config_path
from node_runner.errors import ConfigError, did_you_mean
from node_runner.registry import Registry


PLAIN = {
    "tolerance": "error that the solver may make per step",
    "trainer": "length of the training, batches, intervals",
    "device": "where and in which precision a run computes",
    "experiment": "a whole study: overrides of any group",
    "debug": "makes any run small",
    "pair": "what suits a data set and a model; chosen with them",
}
"""Groups without a registry."""

ABOUT = {
    "dataset": "what is learned from",
    "model": "what is learned",
    "field": "network that is the vector field",
    "solver": "method that integrates the field",
    "adjoint": "how the gradient of a solve is computed",
    "engine": "who runs the solve",
    "optimizer": "how the weights are moved",
    "schedule": "learning rate over training",
    "regulariser": "added to the loss, any number: regulariser=[kinetic,jacobian]",
    "logger": "where metrics and figures go beside the run's own files, any number",
    **PLAIN,
}


@dataclass(frozen=True)
class Option:
    """One YAML file of a group. about: one line; source: "" or the user's folder it is from."""

    name: str
    about: str
    file: Path
    source: str
    default: bool


def registries() -> dict[str, Registry[Any]]:
    """Every registry, by its config group."""
    return {registry.group: registry for registry in REGISTRIES}


def groups(config_dir: Path | None) -> dict[str, list[Option]]:
    """Every group and its options, in the order of the defaults list.

    Raises:
        ConfigError: no such folder.
    """
    if config_dir is not None and not config_dir.is_dir():
        raise ConfigError(f"--config-dir {config_dir}: no such folder")
    places = [(Path(config_path()), "")] + ([(config_dir, str(config_dir))] if config_dir else [])
    defaults = _defaults(Path(config_path()) / "config.yaml")
    found: dict[str, dict[str, Option]] = {}
    for place, source in places:
        for file in sorted(place.rglob("*.yaml")):
            group = file.parent.relative_to(place).as_posix()
            if group == "." or group.split("/")[0] == "hydra":
                continue
            option = Option(file.stem, _about(group, file), file, source, file.stem in defaults.get(group, []))
            found.setdefault(group, {})[file.stem] = option
    order = [*defaults, *sorted(set(found) - set(defaults))]
    return {group: list(found[group].values()) for group in order if group in found}


def _defaults(file: Path) -> dict[str, list[str]]:
    """The options that the defaults list chooses, by group."""
    chosen: dict[str, list[str]] = {}
    for item in yaml.safe_load(file.read_text(encoding="utf-8"))["defaults"]:
        if not isinstance(item, dict):
            continue
        ((group, name),) = item.items()
        if " " not in group:
            chosen[group] = name if isinstance(name, list) else [] if name is None else [str(name)]
    return chosen


def _about(group: str, file: Path) -> str:
    registry = registries().get(group)
    if registry is not None and file.stem in registry.signatures:
        return registry.signatures[file.stem].about.rstrip(".")
    return next(iter(_headings(file)), "").removeprefix("Question: ").rstrip(".")


def _headings(file: Path) -> list[str]:
    """The comments with which a YAML begins, up to a blank line or what is set; `Word: ...` begins another one."""
    entries: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        text = line.removeprefix("#").strip()
        if text.startswith("@"):
            continue
        if not line.startswith("#") or not text:
            break
        if not entries or re.match(r"[A-Z][a-z]+: ", text):
            entries.append(text)
        else:
            entries[-1] += f" {text}"
    return entries


def show_groups(config_dir: Path | None) -> None:
    """Print every option of every group."""
    rows: list[Row] = []
    for group, options in groups(config_dir).items():
        rows.append((Cell(group, ""), "", ABOUT.get(group, "")))
        rows += [_row(option, group) for option in options]
        rows.append(("", "", ""))
    show(("group", "option", "what it is (* the default)"), rows[:-1])
    _say("node-run list GROUP OPTION shows its settings; GROUP=OPTION chooses it, GROUP.SETTING=VALUE sets one of them")


def _row(option: Option, group: str) -> Row:
    name = Cell(f"{option.name} *", "") if option.default else option.name
    # The notes of a pair are long; `list pair NAME` has all of them.
    about = re.split(r"(?<=[a-z0-9])[.:] ", option.about)[0] if group == "pair" else option.about
    return ("", name, f"{about} [{option.source}]" if option.source else about)


def show_group(group: str, config_dir: Path | None) -> None:
    """Print the options of one group.

    Raises:
        ConfigError: no such group.
    """
    options = _group(group, config_dir)
    title = f"{group}: {ABOUT.get(group, '')}"
    show(("", "option", "what it is (* the default)"), [_row(option, group) for option in options], title=title)
    _say(f"node-run list {group} {options[0].name} shows its settings; {group}={options[0].name} chooses it")


def show_option(group: str, name: str, config_dir: Path | None) -> None:
    """Print the settings of one option: type, default, range and meaning.

    Raises:
        ConfigError: no such group or option.
    """
    options = {option.name: option for option in _group(group, config_dir)}
    if name not in options:
        raise ConfigError(f"{group}={name}: no such option; {did_you_mean(name, options)}")
    option = options[name]
    rows = list(settings_of(group, option.file, registries().get(group)))
    print(_title(group, option))
    if not rows:
        print("it has no settings")
        return
    show(("setting", "type", "default", "what it is"), rows)


def _title(group: str, option: Option) -> str:
    """What an option is in a line; of an experiment all that its YAML says of it: command, expected result, time."""
    heading = f"{group}={option.name}: {option.about}"
    if group != "experiment":
        return heading
    entries = _headings(option.file)[1:]
    return "\n".join([heading, *(textwrap.fill(entry, 110, subsequent_indent="  ") for entry in entries)])


def _group(group: str, config_dir: Path | None) -> list[Option]:
    known = groups(config_dir)
    if group not in known:
        raise ConfigError(f"{group}: no such group; {_meant(group, known)}")
    return known[group]


def _meant(group: str, known: Mapping[str, Sequence[Option]]) -> str:
    """What to list in place of a group that there is not: `dataset.spiral` and `tolerance.rtol` are of one."""
    head, _, tail = group.partition(".")
    if head not in known:
        within = [f"`node-run list {name} {group}`" for name, options in known.items() if group in _names(options)]
        return f"did you mean {' or '.join(within)}?" if within else did_you_mean(group, known)
    if tail in _names(known[head]):
        return f"did you mean `node-run list {head} {tail}`?"
    return f"`node-run list {head} OPTION` shows the settings of an option"


def _names(options: Sequence[Option]) -> list[str]:
    return [option.name for option in options]


def _say(line: str) -> None:
    if sys.stdout.isatty():
        print(line)
