"""What is learned with one step size, and used with another: has a model learned a field, or its own steps?

    python scripts/bench_step_sizes.py                  # all of it
    python scripts/bench_step_sizes.py --steps 300      # with shorter trainings

Method. Each contestant is trained at three step sizes, with the defaults of `node-run` and one set of initial weights,
and measured at others without further training. On trajectories (the damped oscillator, omega_n = 2, 16 of them to
t = 5) the step is the spacing of the observations: a residual network takes one layer from each to the next, which is
Euler's method; node takes one step of its solver, or as many as dopri5 at rtol 1e-4 likes. What is measured is the
relative RMSE on 16 test trajectories. On the annuli, a disc inside a ring, the step is 1 / layers, or that of the
solver over [0, 1], and what is measured is the share of the test examples that are classified wrongly.

Reading. A line that is low only at its dot, where it was trained, belongs to a model that is right for one step alone:
it has learned the map of that step. A flat line belongs to a field. A flow of the plane cannot take the disc out of its
ring, which a residual network of few layers does: long steps may jump over one another. With any other step it
fails, and so do methods of higher order that were trained with long ones.

Limits. One seed, one network of two hidden layers of 64 units. The residual network has the same weights in all layers,
as a neural ODE has; with weights of its own in each layer it could not be asked for more of them.

Source. Ott, Katiyar, Hennig, Tiemann, ResNet After All? Neural ODEs and Their Numerical Solution (2021); Krishnapriyan,
Queiruga, Erichson, Mahoney, Learning continuous models for continuous physics (2022).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from recording import BENCHMARKS, parse
from torch import nn

from node_runner import library as nr
from node_runner.reporting.figures.style import PALETTE, clean, legend_below, sheet, style
from node_runner.tasks import make_task
from node_runner.types import Integrate
from node_runner.views import Dataset


NAMES = ("longest", "middle", "shortest")
"""Of the steps that models are trained with."""


class Point(NamedTuple):
    """One measurement: a contestant, the step that it was trained and measured at, and how good it was."""

    contestant: str
    trained: float
    used: float
    value: float


@dataclass(frozen=True)
class Problem:
    """Where step sizes matter.

    Attributes:
        title: for the figure.
        measure: the metric of the test part that makes its error.
        steps: that models are trained with.
        others: that they are measured with too.
        data: the data set for a step.
        contestants: by name, the name of the model, its settings for a step, and its solve for a step.
        training: settings of the trainer.
    """

    title: str
    measure: str
    steps: Sequence[float]
    others: Sequence[float]
    data: Callable[[float], Dataset]
    contestants: Mapping[str, tuple[str, Callable[[float], dict[str, Any]], Callable[[float], Integrate]]]
    training: dict[str, Any]


HORIZON = 5.0


def fixed(name: str) -> Callable[[float], Integrate]:
    """A solver of fixed steps."""
    return lambda step: nr.solver(name, step_size=step)


def adaptive(step: float) -> Integrate:
    """dopri5, whatever the step."""
    del step
    return nr.solver("dopri5", engine="auto")


def nothing(step: float) -> dict[str, Any]:
    """A model whose settings have nothing to do with steps."""
    del step
    return {}


def problems(steps: int) -> dict[str, Problem]:
    """Both problems, trained for so many optimiser steps."""
    annuli = nr.dataset("annuli")
    node = {name: ("node", nothing, fixed(name)) for name in ("midpoint", "rk4")}
    solved = {**{f"node, {name}": made for name, made in node.items()}, "node, dopri5": ("node", nothing, adaptive)}
    return {
        "oscillator": Problem(
            title="oscillator, relative RMSE on the test",
            measure="relative_rmse",
            steps=[HORIZON / n for n in (20, 40, 80)],
            others=[HORIZON / n for n in (10, 20, 40, 80, 160, 320)],
            data=lambda step: nr.dataset("oscillator", train=16, test=16, times=round(HORIZON / step) + 1),
            contestants={"resnet": ("resnet", nothing, adaptive), **solved},
            training={"steps": steps, "batch_size": 256, "window": 10, "average": 0.98},
        ),
        "annuli": Problem(
            title="annuli, share of errors on the test",
            measure="accuracy",
            steps=[1 / n for n in (1, 2, 4)],
            others=[1 / n for n in (1, 2, 4, 8, 16, 32)],
            data=lambda step: annuli,
            contestants={"resnet": ("resnet", lambda step: {"layers": round(1 / step)}, adaptive), **solved},
            training={"steps": steps, "batch_size": 256, "average": 0.98},
        ),
    }


def measure(problem: Problem) -> list[Point]:
    """Train every contestant at every step, and measure it at all."""
    points = []
    for contestant, (name, settings, solve) in problem.contestants.items():
        for step in problem.steps:
            torch.manual_seed(0)
            data = problem.data(step)
            trained = nr.model(name, data, solve(step), **settings(step))
            nr.fit(trained, data, **problem.training)
            for used in problem.others:
                data = problem.data(used)
                model = nr.model(name, data, solve(used), **settings(used))
                points.append(Point(contestant, step, used, test(model, trained, data, problem.measure)))
            print(f"{problem.title}: {contestant} trained at {step:g}")
    return points


def test(model: nn.Module, trained: nn.Module, data: Dataset, metric: str) -> float:
    """The error on the test part with the weights of another model: a metric, or what accuracy lacks to 1."""
    # The classifier's end and the data's scale come along: they are those of the training.
    model.load_state_dict(trained.state_dict())
    model.to(next(trained.parameters())).eval()
    spec = data.spec(trained.view)  # type: ignore[arg-type]
    part = data.splits(spec.view).test.to(next(model.parameters()).device, torch.float32)
    value = make_task(spec, {}).evaluate(model, part, 1000)[metric]
    return 1 - value if metric == "accuracy" else value


def draw(found: Mapping[str, list[Point]], about: Mapping[str, Problem]) -> Figure:
    """A row a problem, a column a contestant, a line a step that was trained with."""
    with style():
        figure = sheet(11.5, 5.8, "Trained with one step (dot), used with others")
        grid = figure.subplots(len(found), 4, sharex="row", sharey="row", squeeze=False)
        for row, (name, points) in zip(grid, found.items(), strict=True):
            problem = about[name]
            for axes, contestant in zip(row, problem.contestants, strict=True):
                _panel(clean(axes, grid=True), problem, [p for p in points if p.contestant == contestant])
                axes.set_title(contestant)
            row[0].set_ylabel(problem.title)
        legend_below(figure, grid[0, :1])
    return figure


def _panel(axes: Axes, problem: Problem, points: Sequence[Point]) -> None:
    for colour, marker, (name, step) in zip(PALETTE, "osD", zip(NAMES, problem.steps, strict=True), strict=False):
        line = {p.used: p.value for p in points if p.trained == step}
        # Lines that coincide are told apart by their widths.
        axes.plot(list(line), list(line.values()), color=colour, linewidth=1.2 + 1.4 * NAMES.index(name), alpha=0.7)
        axes.plot(step, line[step], marker, color=colour, markersize=6, label=f"trained with the {name} step")
    axes.set(xscale="log", xlabel="step that it is used with")
    axes.set_xticks(problem.others, [f"{step:.2g}" for step in problem.others])
    axes.set_xticks([], minor=True)
    if problem.measure != "accuracy":
        axes.set_yscale("log")


def table(points: Sequence[Point]) -> list[dict[str, Any]]:
    """A row for each contestant and step of the training, a column for each step that it is used with."""
    rows: dict[tuple[str, float], dict[str, Any]] = {}
    for p in points:
        row = rows.setdefault((p.contestant, p.trained), {"model": p.contestant, "trained at": p.trained})
        row[f"{p.used:.3g}"] = p.value
    return list(rows.values())


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=1000, help="optimiser steps of each training")
    options, record = parse(__doc__ or "", __file__, arguments, parser, BENCHMARKS / "step_sizes")
    about = problems(2 if options.quick else options.steps)
    if options.quick:
        about = {name: replace(problem, others=problem.steps) for name, problem in about.items()}
    found = {name: measure(problem) for name, problem in about.items()}
    record.add("Errors", figures={"step_sizes": draw(found, about)})
    for name, problem in about.items():
        words = f"{problem.title}, by the step that the model is used with."
        record.add(name, words, table(found[name]))
    results = {name: [point._asdict() for point in points] for name, points in found.items()}
    record.write(results, torch.device("cpu"), "float32")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
