"""Means over the optimiser steps between two lines of metrics, gathered where they are computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from node_runner.types import SolveStats


class Meter:
    """Sums of scalars since the last line. Device scalars stay on the device until `means`."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Start a line afresh."""
        self.steps = 0
        # Scalars that come together are added together: one operation for all of them.
        self._sums: dict[tuple[str, ...], list[Tensor]] = {}
        self._counts: dict[tuple[str, ...], int] = {}
        self._solves: list[SolveStats] = []
        self._booked: dict[str, float] = {}

    def add(self, scalars: Mapping[str, Tensor], solves: list[SolveStats]) -> None:
        """Book one evaluation of loss and gradient; call after backward."""
        names = tuple(scalars)
        values = [value.detach() for value in scalars.values()]
        if names in self._sums:
            torch._foreach_add_(self._sums[names], values)
            self._counts[names] += 1
        elif names:
            self._sums[names] = [value.clone() for value in values]
            self._counts[names] = 1
        for stats in solves:
            stats.stop_backward()
        self._solves += solves

    def end_step(self) -> None:
        """One optimiser step is complete."""
        self.steps += 1

    def solver_sums(self) -> dict[str, float]:
        """Sums over the solves by their public names, and "solve_seconds"."""
        for stats in self._solves:
            figures: dict[str, float] = {
                "nfe/forward": stats.nfe_forward,
                "nfe/backward": stats.nfe_backward,
                "solver/accepted": stats.accepted,
                "solver/rejected": stats.rejected,
                "solve_seconds": stats.seconds_forward + stats.seconds_backward,
            }
            if stats.nfe_backward:
                figures["solver/accepted_backward"] = stats.accepted_backward
                figures["solver/rejected_backward"] = stats.rejected_backward
            for name, value in figures.items():
                self._booked[name] = self._booked.get(name, 0.0) + value
        self._solves = []
        return self._booked

    def means(self, seconds: float) -> dict[str, float]:
        """Means per optimiser step (scalars: per evaluation) by their public names; starts afresh.

        This is the one copy from device to host between two lines of metrics.

        Args:
            seconds: wall time of the steps.
        """
        sums = [value for together in self._sums.values() for value in together]
        values = iter(torch.stack(sums).tolist() if sums else [])
        totals: dict[str, float] = {}
        counts: dict[str, int] = {}
        for names, count in self._counts.items():
            for name in names:
                totals[name] = totals.get(name, 0.0) + next(values)
                counts[name] = counts.get(name, 0) + count
        means = {_public(name): total / counts[name] for name, total in totals.items()}
        solver = {"nfe/forward": 0.0, "nfe/backward": 0.0, **self.solver_sums()}  # a model need not solve anything
        solving = solver.pop("solve_seconds", 0.0)
        means |= {name: total / self.steps for name, total in solver.items()}
        means["time/step_ms"] = 1000 * seconds / self.steps
        means["time/solve_share"] = min(1.0, solving / seconds) if seconds > 0 else 0.0
        self.clear()
        return means

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of a line that is not complete yet."""
        return {"steps": self.steps, "sums": self._sums, "counts": self._counts, "solves": self.solver_sums()}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Undo `state_dict`."""
        self.clear()
        self.steps = state["steps"]
        self._sums = {names: [value.to(device) for value in sums] for names, sums in state["sums"].items()}
        self._counts = dict(state["counts"])
        self._booked = dict(state["solves"])


def _public(name: str) -> str:
    return name if "/" in name else f"train/{name}"
