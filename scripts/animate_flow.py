"""Animate how a trained flow in the plane carries its base to the data.

Question: which way do the points go?

    python scripts/animate_flow.py outputs/RUN                # writes outputs/RUN/figures/flow.gif
    python scripts/animate_flow.py outputs/RUN --out flow.gif --frames 60

Points keep the colour of where they began; the first and the last frame are held for a second.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.animation import FuncAnimation, PillowWriter

from node_runner.cli.saved import open_saved
from node_runner.errors import ConfigError
from node_runner.reporting.figures.scene import Array, host
from node_runner.reporting.figures.style import clean, height, planar, sheet, style, window


PER_SECOND = 20


def states(run: Path, points: int, frames: int) -> tuple[Array, str]:
    """(frames, points, 2) states of the best weights on their way from base to data, and the data set's name.

    Raises:
        ConfigError: not a flow in the plane.
    """
    saved = open_saved(run, [], "best").experiment
    path = getattr(saved.model, "path", None)
    if path is None or saved.spec.shape != (2,):
        raise ConfigError(f"{run}: expected a flow in the plane; use a run of model=cnf or flow_matching on 2-D points")
    with saved.tolerances.evaluation(), torch.no_grad():
        return host(path(points, frames, generator=torch.Generator().manual_seed(0))), saved.spec.dataset


def animate(paths: Array, dataset: str, out: Path) -> None:
    """Write the states (frames, points, 2) as a GIF."""
    x, y = window(np.concatenate([paths[0], paths[-1]]), tails=0.002)
    centre = paths[0] - np.nanmean(paths[0], axis=0)
    turn = 0.5 + np.arctan2(centre[:, 1], centre[:, 0]) / (2 * np.pi)
    with style():
        figure = sheet(4.4, 4.0 * height(x, y) + 0.8, f"{dataset}: from the base to the data")
        axes = clean(figure.subplots())
        planar(axes, x, y, ("x", "y"))
        drawn = axes.scatter(*paths[0].T, c=0.8 * mpl.colormaps["twilight_shifted"](turn)[:, :3], s=3, linewidths=0)
        held = [0] * PER_SECOND + list(range(len(paths))) + [len(paths) - 1] * PER_SECOND

        def show(frame: int) -> None:
            drawn.set_offsets(paths[frame])
            axes.set_title(f"{frame / (len(paths) - 1):.0%} of the way", fontsize="small")

        out.parent.mkdir(parents=True, exist_ok=True)
        FuncAnimation(figure, show, frames=held).save(out, writer=PillowWriter(PER_SECOND), dpi=80)  # type: ignore[arg-type]


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, and animate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--out", type=Path, help="GIF to write (RUN/figures/flow.gif if not given)")
    parser.add_argument("--points", type=int, default=2000)
    parser.add_argument("--frames", type=int, default=40)
    chosen = parser.parse_args(arguments)
    out = chosen.out or chosen.run / "figures" / "flow.gif"
    try:
        paths, dataset = states(chosen.run, chosen.points, max(2, chosen.frames))
    except ConfigError as error:
        parser.error(str(error))
    animate(paths, dataset, out)
    print(out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
