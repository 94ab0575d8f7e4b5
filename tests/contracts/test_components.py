"""What every registered component owes: a YAML that builds, a line on what it is, settings that are what they say."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from node_runner.assemble import FieldFactory
from node_runner.config import MANY, REGISTRIES, RunConfig, compose_run, config_path
from node_runner.errors import ConfigError
from node_runner.learning import StepRegulariser
from node_runner.registry import MISSING, Registry
from node_runner.settings import ranges
from node_runner.signatures import REQUIRED
from node_runner.solvers.tableaux import adaptive_tableau
from node_runner.types import Method, SolveStats, Step
from node_runner.views import Equation, Graph, View
from tests.models.builders import accurate_solve, field_factory, spec


CONFIGS = Path(config_path())
BY_GROUP = {registry.group: registry for registry in REGISTRIES}
COMPONENTS = [
    pytest.param(registry, name, id=f"{registry.group}-{name}") for registry in REGISTRIES for name in registry.names()
]


def component(registry: Registry[Any], name: str) -> tuple[Callable[..., Any], set[str]]:
    """What was registered, and the keywords that were bound for the name."""
    found = registry.get(name)
    bound = set(getattr(found, "keywords", {}))
    return getattr(found, "func", found), bound


# --- its declaration -------------------------------------------------------------------------------


@pytest.mark.parametrize(("registry", "name"), COMPONENTS)
def test_it_says_in_one_line_what_it_is(registry: Registry[Any], name: str):
    about = registry.signature(name).about
    assert about == about.strip()
    assert 5 <= len(about) <= 110
    assert "\n" not in about
    assert inspect.getdoc(component(registry, name)[0])


@pytest.mark.parametrize(("registry", "name"), COMPONENTS)
def test_its_settings_are_keyword_only_and_what_is_supplied_is_positional_only(registry: Registry[Any], name: str):
    found, _ = component(registry, name)
    kinds = {parameter.kind for parameter in inspect.signature(found).parameters.values()}
    assert kinds <= {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize(("registry", "name"), COMPONENTS)
def test_what_was_read_from_source_is_what_python_sees(registry: Registry[Any], name: str):
    found, bound = component(registry, name)
    if dataclasses.is_dataclass(found):  # a field's annotation means what it does in the file of its own class
        hints = typing.get_type_hints(found, include_extras=True)
        defaults = {field.name: _default(field) for field in dataclasses.fields(found)}
    else:
        hints = typing.get_type_hints(found.__init__ if isinstance(found, type) else found, include_extras=True)
        parameters = inspect.signature(found).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    missing = (dataclasses.MISSING, inspect.Parameter.empty)
    running = {
        key: (hints[key], REQUIRED if default in missing else default)
        for key, default in defaults.items()
        if key not in bound
    }
    read = {p.name: (p.annotation, p.default) for p in registry.signature(name).parameters}
    assert read == running


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


@pytest.mark.parametrize(("registry", "name"), COMPONENTS)
def test_its_schema_has_the_defaults_of_its_signature_and_they_are_in_range(registry: Registry[Any], name: str):
    made = registry.schema(name)()
    assert made.name == name
    for parameter in registry.signature(name).parameters:
        value = getattr(made, parameter.name)
        if parameter.default is REQUIRED:
            assert value == MISSING
            continue
        assert value == parameter.default
        if isinstance(value, int | float) and not isinstance(value, bool):
            assert all(limit.allows(value) for limit in ranges(parameter.annotation))


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.group)
def test_a_group_has_a_yaml_for_each_component_and_no_other(registry: Registry[Any]):
    assert sorted(file.stem for file in (CONFIGS / registry.group).glob("*.yaml")) == registry.names()


# --- its YAML --------------------------------------------------------------------------------------

PLAIN = {group: sorted(file.stem for file in (CONFIGS / group).glob("*.yaml")) for group in
         ("tolerance", "trainer", "device", "debug")}  # fmt: skip
"""Options of the groups that hold settings of no component."""

OPTIONS = {**{group: registry.names() for group, registry in BY_GROUP.items()}, **PLAIN}


@pytest.fixture(scope="module")
def composed() -> dict[tuple[str, str], Any]:
    """The settings of every option of every group as Hydra composes them, from as few runs as there are solvers.

    Each run chooses the next option of every group, so that no option is left out.
    """
    found: dict[tuple[str, str], Any] = {}
    for i in range(max(map(len, OPTIONS.values()))):
        chosen = {group: names[i % len(names)] for group, names in OPTIONS.items()}
        overrides = [f"{group}=[{name}]" if group in MANY else f"{group}={name}" for group, name in chosen.items()]
        run: RunConfig = compose_run(overrides)
        for group, name in chosen.items():
            settings = getattr(run, group, None)  # debug is an overlay of others
            found[group, name] = settings[name] if group in MANY else settings
    return found


@pytest.mark.parametrize(("group", "option"), [(group, name) for group, names in PLAIN.items() for name in names])
def test_every_option_of_a_plain_group_makes_a_run(group: str, option: str, composed: dict[tuple[str, str], Any]):
    assert (group, option) in composed
    if group == "tolerance" and option != "schedule":
        assert composed[group, option].start_rtol is None
    if group == "device":
        assert composed[group, option].place.value == option


SUPPLIED: dict[str, Callable[[str, Path], tuple[Any, ...]]] = {
    "dataset": lambda name, folder: (),
    "field": lambda name, folder: ({1: (3,), 3: (3, 4, 4)}[BY_GROUP["field"].get(name).state_ndim],),
    "solver": lambda name, folder: (name,),
    "adjoint": lambda name, folder: (),
    "engine": lambda name, folder: (),
    "optimizer": lambda name, folder: ([nn.Parameter(torch.zeros(2))],),
    "schedule": lambda name, folder: (100,),
    "regulariser": lambda name, folder: (),
    "logger": lambda name, folder: (folder, 0),
    "model": lambda name, folder: (
        spec(
            BY_GROUP["model"].get(name).views[0], (2,), mean=[0.0, 0.0], std=[1.0, 1.0], num_classes=3,
            equation=Equation(lambda t, y, rate: -rate * y, {"rate": 1.0}),
            graph=Graph(torch.ones(2, 2).fill_diagonal_(0), torch.zeros(2, 2)),
        ),
        field_factory(time_dependent=True), accurate_solve(), {},
    ),
}  # fmt: skip
"""What the runner hands over, by group."""


def check_dataset(made: Any, name: str) -> None:
    assert made.views
    assert all(isinstance(view, View) for view in made.views)
    assert len(set(made.views)) == len(made.views)


def check_solver(made: Any, name: str) -> None:
    assert isinstance(made, Method)
    assert made.name == name
    assert made.max_steps > 0


def check_named(made: Any, name: str) -> None:
    assert made.name == name


def check_regulariser(made: Any, name: str) -> None:
    assert made.weight > 0
    if isinstance(made, StepRegulariser):
        flat = torch.zeros(3, 2)
        step = Step(adaptive_tableau("dopri5"), torch.tensor(0.1), flat, [flat] * 7)
        assert made.of_step(step).shape == (3,)
        return
    y = torch.randn(3, 2, requires_grad=True)
    assert made.begin(y.detach())(torch.tensor(0.0), y, torch.sin(y)).shape == (3,)


def check_logger(made: Any, name: str) -> None:
    made.scalars(1, {"train/loss": 0.5})
    made.close()


CHECKS: dict[str, Callable[[Any, str], None]] = {
    "dataset": check_dataset,
    "solver": check_solver,
    "adjoint": check_named,
    "engine": check_named,
    "regulariser": check_regulariser,
    "logger": check_logger,
    "field": lambda made, name: _isinstance(made, nn.Module),
    "model": lambda made, name: _isinstance(made, nn.Module),
    "optimizer": lambda made, name: _isinstance(made, torch.optim.Optimizer),
    "schedule": lambda made, name: _isinstance(made(0), float),
}


def _isinstance(made: Any, kind: type) -> None:
    assert isinstance(made, kind)


@pytest.mark.parametrize(("registry", "name"), COMPONENTS)
def test_its_yaml_composes_and_builds_what_the_group_promises(
    registry: Registry[Any], name: str, composed: dict[tuple[str, str], Any], tmp_path: Path
):
    settings = composed[registry.group, name]
    assert isinstance(settings, registry.schema(name))
    made = registry.build(settings, *SUPPLIED[registry.group](name, tmp_path))
    CHECKS[registry.group](made, name)


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.group)
def test_an_unknown_name_is_refused_with_all_known_ones(registry: Registry[Any]):
    with pytest.raises(ConfigError) as caught:
        registry.get("no-such-thing")
    assert all(name in str(caught.value) for name in registry.names())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", BY_GROUP["model"].names())
def test_a_model_declares_the_views_that_it_learns_from(name: str):
    views = BY_GROUP["model"].get(name).views
    assert views
    assert all(isinstance(view, View) for view in views)


@pytest.mark.parametrize("name", BY_GROUP["field"].names())
def test_a_field_says_what_state_it_takes_and_whether_it_depends_on_time(name: str):
    factory = FieldFactory(BY_GROUP["field"].schema(name)())
    made = factory((3,) if factory.state_ndim == 1 else (3, 4, 4))
    assert made.time_dependent in (True, False)


def test_statistics_start_at_zero():
    assert all(not value for value in vars(SolveStats()).values())
