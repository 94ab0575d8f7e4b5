"""The energy of true and learned trajectories over time, or what else their system conserves."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from node_runner.reporting.figures.horizon import beyond
from node_runner.reporting.figures.scene import Array, Prediction, Scene
from node_runner.reporting.figures.style import PALETTE, SHADE, clean, figure_of, headline, sheet


def draw(scene: Scene) -> Figure | None:
    """Least, median and greatest energy of the test that lasts longest; none where no energy is conserved."""
    energy = scene.spec.energy
    if energy is None:
        return None
    name, longest = scene.longest
    figure = sheet(7.2, 3.8, "")
    axes = clean(figure.subplots(), grid=True)
    true, learned = energy(longest.true), energy(longest.learned)
    horizon = scene.horizon
    if beyond(longest.ts[-1], horizon):
        axes.axvspan(horizon, longest.ts[-1], color=SHADE, linewidth=0, label="beyond the training horizon")
    for colour, row in zip(PALETTE, _chosen(true[:, 0]), strict=False):
        axes.plot(longest.ts, true[row], color=colour, linewidth=3.2, alpha=0.35, label="true")
        axes.plot(longest.ts, learned[row], color=colour, linewidth=1.1, label="learned")
    axes.set_xlabel(scene.spec.clock)
    axes.set_ylabel(scene.spec.conserved)
    axes.set_xlim(longest.ts[0], longest.ts[-1])
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=len(handles))
    drifted = figure_of(drift(scene, name, longest))
    headline(figure, f"{scene.spec.dataset}: {scene.spec.conserved} over time, drift {drifted} on {name}")
    return figure


def drift(scene: Scene, name: str, prediction: Prediction) -> float:
    """Drift of the energy on a test: as the run measured it, or else of the trajectories that are looked at."""
    measured = scene.measured(f"{name}/{scene.spec.conserved}_drift")
    if measured is not None:
        return measured
    assert scene.spec.energy is not None, "only asked for where there is one"
    energy = scene.spec.energy(prediction.learned)
    change: Array = np.abs(energy - energy[:, :1]).max(axis=1)
    return float(change.sum() / np.abs(energy[:, 0]).sum())


def _chosen(energies: Array) -> list[int]:
    """Trajectories of least, median and greatest energy, each once."""
    order = np.argsort(energies)
    return list(dict.fromkeys(int(order[place]) for place in (0, (len(order) - 1) // 2, len(order) - 1)))
