"""The schema of a run: what `node-run` composes, checks, and turns into objects once."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from node_runner.adjoints import ADJOINTS
from node_runner.datasets import DATASETS
from node_runner.engines import ENGINES
from node_runner.errors import ConfigError
from node_runner.fields import FIELDS
from node_runner.models import MODELS
from node_runner.registry import MISSING, Registry
from node_runner.regularisers import REGULARISERS
from node_runner.reporting import LOGGERS
from node_runner.settings import CountOrZero, DeviceConfig, ToleranceConfig, TrainerConfig, check
from node_runner.solvers import SOLVERS
from node_runner.training import OPTIMIZERS, SCHEDULES

REGISTRIES: tuple[Registry[Any], ...] = (
    DATASETS, MODELS, FIELDS, SOLVERS, ADJOINTS, ENGINES, OPTIMIZERS, SCHEDULES, REGULARISERS, LOGGERS,
)  # fmt: skip
"""Every registry, by config group; `tolerance`, `trainer` and `device` are plain settings."""

MANY = ("regulariser", "logger")
"""Groups of which any number may be chosen."""


@dataclass
class RunConfig:
    """One run. The components' settings are typed by the schema of the component that was chosen."""

    seed: CountOrZero = 0
    sweep: str = ""
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
    OmegaConf.register_new_resolver("slug", slug, replace=True)
    store = ConfigStore.instance()
    store.store(name="run_schema", node=RunConfig)
    for registry in REGISTRIES:
        for name in registry.names():
            store.store(group=f"schema/{registry.group}", name=name, node=registry.schema(name))


def slug(overrides: list[str]) -> str:
    """A folder name for a job of a sweep, made of its overrides.

    Letters, digits and -_.+ stay, the rest becomes _; a name over 100 characters is cut and told
    apart by a hash.
    """
    text = ",".join(overrides).replace("=", "-") or "defaults"
    name = re.sub(r"[^A-Za-z0-9._+\-,]", "_", text).replace(",", "__")
    if len(name) <= 100:
        return name
    return f"{name[:88]}_{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def to_run(config: DictConfig) -> RunConfig:
    """Composed configuration -> objects, checked.

    Raises:
        ConfigError: a value is missing or out of its range, or a key that no schema declares.
    """
    missing = OmegaConf.missing_keys(config)
    if missing:
        raise ConfigError(f"{sorted(missing)[0]}: must be given")
    run = OmegaConf.to_object(config)
    if not isinstance(run, RunConfig):
        raise ConfigError("the configuration is not a run: its defaults list must begin with run_schema")
    check(run, "")
    return run


def load_run(path: Path, overrides: list[str] | None = None) -> RunConfig:
    """Read the config.yaml that a run left behind, with some values replaced.

    Raises:
        ConfigError: no such file, or it does not fit today's schemas.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; is its folder one that node-run made?")
    try:
        saved = OmegaConf.merge(OmegaConf.load(path), OmegaConf.from_dotlist(overrides or []))
        base = OmegaConf.structured(RunConfig)
        by_group = {registry.group: registry for registry in REGISTRIES}
        for group, registry in by_group.items():
            if group in MANY:
                base[group] = {key: registry.schema(value.name) for key, value in saved[group].items()}
            else:
                base[group] = registry.schema(saved[group].name)
        merged = OmegaConf.merge(base, saved)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}") from error
    assert isinstance(merged, DictConfig)
    return to_run(merged)


def resolved(run: RunConfig) -> dict[str, Any]:
    """The whole configuration as plain containers, defaults included."""
    plain = OmegaConf.to_container(OmegaConf.structured(run), resolve=True, enum_to_str=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def config_hash(run: RunConfig) -> str:
    """Twelve characters that tell runs of different configurations apart.

    Loggers and the sweep's name do not count: they change no result.
    """
    plain = {key: value for key, value in resolved(run).items() if key not in ("logger", "sweep")}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]
