"""Figures of a run, chosen by what it learned from, one idea a file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from node_runner.errors import SolveFailed
from node_runner.reporting.figures import (
    confusion,
    decision,
    density,
    energy,
    error_over_time,
    events,
    features,
    flow,
    graph,
    interpolation,
    latent,
    mistakes,
    paths,
    phase_portrait,
    processes,
    samples,
    series,
    space,
    trajectories,
)
from node_runner.reporting.figures.scene import Scene
from node_runner.reporting.figures.style import style
from node_runner.views import Dataset, DataSpec, Splits, View


FIGURES: dict[View, dict[str, Callable[[Scene], Figure | None]]] = {
    View.trajectories: {
        "trajectories": trajectories.draw,
        "phase_portrait": phase_portrait.draw,
        "space": space.draw,
        "error_over_time": error_over_time.draw,
        "energy": energy.draw,
        "events": events.draw,
        "graph": graph.draw,
    },
    View.points: {"density": density.draw, "samples": samples.draw, "flow": flow.draw},
    View.labelled: {
        "confusion": confusion.draw,
        "mistakes": mistakes.draw,
        "decision": decision.draw,
        "features": features.draw,
    },
    View.series: {
        "series": series.draw_times,
        "plane": series.draw_plane,
        "latent": latent.draw,
        "interpolation": interpolation.draw,
    },
    View.paths: {"paths": paths.draw, "confusion": confusion.draw},
    View.processes: {
        "forecasts": processes.draw_forecasts,
        "process": processes.draw_process,
        "coefficients": processes.draw_coefficients,
    },
}
"""What may be drawn of each view. A function gives None where its figure does not suit the data."""

log = logging.getLogger("node_runner")


def draw(
    model: nn.Module,
    spec: DataSpec,
    splits: Splits[Any],
    dataset: Dataset,
    metrics: Mapping[str, float] | None = None,
) -> Iterator[tuple[str, Figure]]:
    """(name, figure) of everything worth a look after training.

    A figure that cannot be drawn is left out with a warning: what was measured is worth more than
    the picture of it.

    Args:
        model: in eval mode, on its device.
        spec: of the data.
        splits: of the view that the model learned from, on any device.
        dataset: the source of the data; its true field or density is drawn where it has one.
        metrics: of the run, by their public names; titles repeat them.
    """
    scene = Scene(model, spec, splits, dataset, metrics or {})
    for name, make in FIGURES[spec.view].items():
        figure = _make(name, make, scene)
        if figure is not None:
            yield name, figure


def _make(name: str, make: Callable[[Scene], Figure | None], scene: Scene) -> Figure | None:
    try:
        # Predictions may be anything: what is not finite is not drawn.
        with style(), torch.no_grad(), np.errstate(all="ignore"):
            figure = make(scene)
            if figure is not None:
                # Lay it out once, under this style: it is rendered for a file and again for each logger.
                engine = figure.get_layout_engine()
                if engine is not None:
                    engine.execute(figure)
                    figure.set_layout_engine("none")
            return figure
    except SolveFailed as failure:
        log.warning("figure %s left out: %s", name, failure)
    except Exception:
        log.warning("figure %s left out, because of a bug in drawing it:", name, exc_info=True)
    return None
