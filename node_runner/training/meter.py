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
        self.steps = 0
        self.device_sums: dict[str, Tensor] = {}
        self.host_sums: dict[str, float] = {}

    def add(self, scalars: Mapping[str, Tensor], solves: list[SolveStats]) -> None:
        """Book one evaluation of loss and gradient; call after backward."""
        for name, value in scalars.items():
            value = value.detach()
            self.device_sums[name] = self.device_sums[name] + value if name in self.device_sums else value.clone()
            self._add_host(f"count/{name}", 1)
        for stats in solves:
            stats.stop_backward()
            self._add_host("nfe/forward", stats.nfe_forward)
            self._add_host("nfe/backward", stats.nfe_backward)
            self._add_host("solver/accepted", stats.accepted)
            self._add_host("solver/rejected", stats.rejected)
            if stats.nfe_backward:
                self._add_host("solver/accepted_backward", stats.accepted_backward)
                self._add_host("solver/rejected_backward", stats.rejected_backward)
            self._add_host("solve_seconds", stats.seconds_forward + stats.seconds_backward)

    def _add_host(self, name: str, value: float) -> None:
        self.host_sums[name] = self.host_sums.get(name, 0.0) + value

    def end_step(self) -> None:
        """One optimiser step is complete."""
        self.steps += 1

    def means(self, seconds: float) -> dict[str, float]:
        """Means per optimiser step (scalars: per evaluation) by their public names; starts afresh.

        This is the one copy from device to host between two lines of metrics.

        Args:
            seconds: wall time of the steps.
        """
        names = list(self.device_sums)
        values = torch.stack([self.device_sums[n].double() for n in names]).tolist() if names else []
        host = dict(self.host_sums)
        means = {_public(n): v / host.pop(f"count/{n}") for n, v in zip(names, values, strict=True)}
        solving = host.pop("solve_seconds", 0.0)
        means |= {name: total / self.steps for name, total in host.items()}
        means["time/step_ms"] = 1000 * seconds / self.steps
        means["time/solve_share"] = min(1.0, solving / seconds) if seconds > 0 else 0.0
        self.__init__()  # type: ignore[misc]
        return means

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of a line that is not complete yet."""
        return {"steps": self.steps, "device_sums": self.device_sums, "host_sums": self.host_sums}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Undo `state_dict`."""
        self.steps = state["steps"]
        self.device_sums = {name: value.to(device) for name, value in state["device_sums"].items()}
        self.host_sums = dict(state["host_sums"])


def _public(name: str) -> str:
    return name if "/" in name else f"train/{name}"
