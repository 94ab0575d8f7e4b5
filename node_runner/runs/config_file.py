"""The config.yaml that a run left behind: read again, and changed on the way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from node_runner.config import (
    MANY,
    REGISTRIES,
    RunConfig,
    config_path,
    is_group,
    option_names,
    register_schemas,
    to_run,
)
from node_runner.errors import ConfigError, did_you_mean


def load_run(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read the config.yaml that a run left behind, and change some of it.

    Args:
        path: of the file.
        overrides: as on the command line. `key=value` changes a setting that is there;
            `group=option` puts an option of today's configs in the place of all of a group.

    Raises:
        ConfigError: no such file, it does not fit today's schemas, or no such option.
        hydra.errors.HydraException, omegaconf.errors.OmegaConfBaseException: an override that is
            no override, a setting that is not there, a value of the wrong type.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; is its folder one that node-run made?")
    changes = _parse(overrides)
    try:
        saved = OmegaConf.load(path)
    except YAMLError as error:
        raise ConfigError(f"{path}: not YAML ({str(error).splitlines()[0]}); is it as node-run left it?") from error
    if not isinstance(saved, DictConfig):
        raise ConfigError(f"{path}: expected the settings of a run, got a list; is it as node-run left it?")
    try:
        for group, option in changes:
            if is_group(group):
                saved[group] = _options(group, option)
        merged = OmegaConf.merge(_typed(saved), saved)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}") from error
    except AttributeError as error:
        raise ConfigError(f"{path}: a group lacks the name of its component; is it as node-run left it?") from error
    assert isinstance(merged, DictConfig)
    for key, value in changes:
        if not is_group(key):
            OmegaConf.update(merged, key, value, merge=False)
    return to_run(merged)


def _parse(overrides: Sequence[str]) -> list[tuple[str, Any]]:
    """(key, value) of each override, by Hydra's grammar."""
    pairs = []
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        if override.is_add() or override.is_force_add() or override.is_delete() or override.is_sweep_override():
            raise ConfigError(f"{override.input_line}: expected key=value with one value; it changes a run that exists")
        pairs.append((override.key_or_group, override.value()))
    return pairs


def _options(group: str, chosen: Any) -> Any:
    """What `group=chosen` stands for: an option's settings, or those of several by their names."""
    names = chosen if isinstance(chosen, list) else [chosen]
    if len(names) != 1 and group not in MANY:
        raise ConfigError(f"{group}={chosen}: expected the name of one option")
    # `off` and `on` are read as truth values.
    names = [{True: "on", False: "off"}.get(name, name) if isinstance(name, bool) else name for name in names]
    known = option_names(group)
    found: Any = OmegaConf.create({})
    register_schemas()
    with initialize_config_dir(config_path(), version_base="1.3"):
        for name in names:
            if name not in known:
                raise ConfigError(f"{group}={name}: no such option; {did_you_mean(str(name), known)}")
            found = OmegaConf.merge(found, OmegaConf.to_container(compose(f"{group}/{name}"))[group])  # type: ignore[call-overload,index]
    return found


def _typed(saved: DictConfig) -> DictConfig:
    """An empty run with the schemas of the components that `saved` names."""
    base: DictConfig = OmegaConf.structured(RunConfig)
    for registry in REGISTRIES:
        if registry.group in MANY:
            base[registry.group] = {key: registry.schema(item.name) for key, item in saved[registry.group].items()}
        else:
            base[registry.group] = registry.schema(saved[registry.group].name)
    return base
