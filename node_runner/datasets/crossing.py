"""The map x -> -x, which no ODE on the line can follow: its two paths would have to cross."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch

from node_runner.datasets import DATASETS
from node_runner.datasets.parts.drawn import Drawn
from node_runner.datasets.parts.streams import mean_std, stream
from node_runner.settings import AtLeast, Count, Positive
from node_runner.views import DataSpec, Trajectories, View


@DATASETS.register("crossing", "the map x -> -x on the line: -1 goes to 1 and 1 to -1, so that paths must cross")
@dataclass(kw_only=True)
class Crossing(Drawn[Trajectories]):
    """Two observations of each path: x near -1 or 1 at t = 0, and -x at t = horizon.

    Solutions of an ODE do not cross, so that a model on the line keeps the order of the starts. The best that it
    can do is to send all of them to the mean: an mse of 1 + spread^2.

    Args:
        train, val, test: numbers of paths.
        spread: standard deviation of the starts about -1 and 1.
        horizon: time at which x has become -x.
        seed: of the starts.

    Source: Dupont, Doucet, Teh, Augmented Neural ODEs (2019), section 3.
    """

    name = "crossing"
    views = (View.trajectories,)

    train: Annotated[int, AtLeast(2)] = 200
    val: Count = 100
    test: Count = 100
    spread: Positive = 0.1
    horizon: Positive = 1.0

    def spec(self, view: View) -> DataSpec:
        """Mean and deviation are those of the training observations, first and last."""
        mean, std = mean_std(self.splits(view).train.ys.flatten(0, 1))
        return DataSpec(self.name, view, (1,), mean, std, labels=("x",))

    def _part(self, part: int, size: int) -> Trajectories:
        """Two points each, ys (N, 2, 1). Starts alternate between the two sides."""
        side = 2.0 * (np.arange(size) % 2) - 1
        start = torch.from_numpy(side + self.spread * stream(self.seed, part).standard_normal(size))
        ts = torch.tensor([0.0, self.horizon], dtype=torch.float64)
        return Trajectories(ts, torch.stack((start, -start), dim=1).unsqueeze(2))
