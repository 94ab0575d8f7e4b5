"""The schema of a run: what `node-run` composes, checks, and turns into objects once.

Hydra and OmegaConf are imported where they are used: `node-run list` needs neither.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from node_runner.adjoints import ADJOINTS
from node_runner.datasets import DATASETS
from node_runner.engines import ENGINES
from node_runner.errors import ConfigError, did_you_mean
from node_runner.fields import FIELDS
from node_runner.models import MODELS
from node_runner.registry import MISSING, ComponentConfig, Registry
from node_runner.regularisers import REGULARISERS
from node_runner.reporting import LOGGERS
from node_runner.settings import DeviceConfig, FigureFormat, Seed, ToleranceConfig, TrainerConfig, check
from node_runner.solvers import SOLVERS
from node_runner.training import OPTIMIZERS, SCHEDULES


if TYPE_CHECKING:
    from omegaconf import DictConfig

REGISTRIES: tuple[Registry[Any], ...] = (
    DATASETS, MODELS, FIELDS, SOLVERS, ADJOINTS, ENGINES, OPTIMIZERS, SCHEDULES, REGULARISERS, LOGGERS,
)  # fmt: skip
"""Every registry, by config group; `tolerance`, `trainer` and `device` are plain settings."""

MANY = ("regulariser", "logger")
"""Groups of which any number may be chosen."""


@dataclass
class RunConfig:
    """One run. The components' settings are typed by the schema of the component that was chosen."""

    seed: Seed = 0
    sweep: str = ""
    figures: list[FigureFormat] = dataclasses.field(default_factory=lambda: [FigureFormat.png])
    dataset: Any = MISSING
    model: Any = MISSING
    field: Any = MISSING
    solver: Any = MISSING
    tolerance: ToleranceConfig = dataclasses.field(default_factory=ToleranceConfig)
    adjoint: Any = MISSING
    engine: Any = MISSING
    optimizer: Any = MISSING
    schedule: Any = MISSING
    trainer: TrainerConfig = dataclasses.field(default_factory=TrainerConfig)
    regulariser: dict[str, Any] = dataclasses.field(default_factory=dict)
    logger: dict[str, Any] = dataclasses.field(default_factory=dict)
    device: DeviceConfig = dataclasses.field(default_factory=DeviceConfig)


def config_path() -> str:
    """The folder of the configs: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).resolve().parent
    return str(next(path for path in (package / "configs", package.parent / "configs") if path.is_dir()))


def register_schemas() -> None:
    """Tell Hydra the schema of a run and of every component. May be called again."""
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins
    from omegaconf import OmegaConf

    from node_runner.schemas import SchemaPath, SchemaSource

    OmegaConf.register_new_resolver("slug", slug, replace=True)
    ConfigStore.instance().store(name="run_schema", node=RunConfig)
    SchemaSource.registries = {registry.group: registry for registry in REGISTRIES}
    for plugin in (SchemaSource, SchemaPath):
        Plugins.instance().register(plugin)


def slug(overrides: list[str]) -> str:
    """A folder name for a job of a sweep, made of its overrides but for the sweep's own name.

    Letters, digits and -_.+ stay, the rest becomes _. A name over 100 characters loses the groups of its settings, is
    cut at 139, and is told apart by a hash.
    """
    chosen = [item for item in overrides if not item.startswith("sweep=")]
    text = ",".join(chosen).replace("=", "-") or "defaults"
    name = _in_letters(text)
    if len(name) <= 100:
        return name
    short = _in_letters(",".join(re.sub(r"^[^=]*\.", "", item) for item in chosen).replace("=", "-"))
    return f"{short[:139]}_{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def _in_letters(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+\-,]", "_", text).replace(",", "__")


def to_run(config: DictConfig) -> RunConfig:
    """Composed configuration -> objects, checked.

    Raises:
        ConfigError: a value is missing or out of its range, or a key that no schema declares.
    """
    from omegaconf import OmegaConf

    missing = OmegaConf.missing_keys(config)
    if missing:
        raise ConfigError(f"{sorted(missing)[0]}: must be given")
    run = OmegaConf.to_object(config)
    if not isinstance(run, RunConfig):
        raise ConfigError("the configuration is not a run: its defaults list must begin with run_schema")
    for registry in REGISTRIES:
        _check_typed(registry.group, getattr(run, registry.group))
    check(run, "")
    return run


def _check_typed(group: str, chosen: Any) -> None:
    """Refuse settings of components that no schema has checked."""
    for name, config in chosen.items() if group in MANY else [("", chosen)]:
        if isinstance(config, ComponentConfig):
            continue
        if name:
            raise ConfigError(f"{group}.{name}: choose it by {group}=[{name}], then set {group}.{name}.SETTING=VALUE")
        raise ConfigError(
            f"{group}: its settings have no schema; its YAML must begin with "
            f"defaults: [/schema/{group}/NAME@_here_, _self_], NAME being that of a component"
        )


def option_names(group: str) -> list[str]:
    """The options of a group that this package brings."""
    return sorted(file.stem for file in (Path(config_path()) / group).glob("*.yaml"))


def refuse_non_names(overrides: Sequence[str]) -> None:
    """Refuse `debug=true` and `model=2`, which Hydra, whose options have names, answers with a traceback; and
    `~dataset` and `~trainer.steps`, since a run has one of each.

    Raises:
        ConfigError: a group with a truth value or a number for an option, or without one.
    """
    for override in overrides:
        removed = override.removeprefix("~").partition("=")[0]
        if override.startswith("~") and is_group(removed) and removed not in MANY:
            raise ConfigError(f"{override}: a run has a {removed}; {removed}=NAME chooses another one")
        if override.startswith("~") and is_group(removed.partition(".")[0]) and "." in removed:
            raise ConfigError(f"{override}: a setting cannot be taken away; use {removed}=VALUE")
        group, _, name = override.lstrip("+").partition("=")
        options = option_names(group.partition("@")[0]) if re.fullmatch(r"[a-z_/@]+", group) else []
        if options and re.fullmatch(r"(?i:true|false|inf|nan)|[-+]?[\d_]*\.?\d[\d_]*(?i:e[-+]?\d+)?", name):
            raise ConfigError(f"{override.lstrip('+')}: no such option; {did_you_mean(name, options)}")


def compose_run(overrides: Sequence[str] = ()) -> RunConfig:
    """The run that `node-run OVERRIDES` would do, for programs and notebooks.

    Raises:
        ConfigError: as `to_run`.
        hydra.errors.HydraException: no such option, or an override that is none.
    """
    from hydra import compose, initialize_config_dir

    register_schemas()
    refuse_non_names(overrides)
    with initialize_config_dir(config_path(), version_base="1.3"):
        return to_run(compose("config", list(overrides)))


def is_group(key: str) -> bool:
    """Whether a key is that of a whole group."""
    return key in {registry.group for registry in REGISTRIES} | {"tolerance", "trainer", "device"}


def resolved(run: RunConfig) -> dict[str, Any]:
    """The whole configuration as plain containers, defaults included."""
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(OmegaConf.structured(run), resolve=True, enum_to_str=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def config_hash(run: RunConfig) -> str:
    """Twelve characters that tell runs of different configurations apart.

    Loggers, formats of figures and the sweep's name do not count: they change no result.
    """
    plain = {key: value for key, value in resolved(run).items() if key not in ("logger", "figures", "sweep")}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]
