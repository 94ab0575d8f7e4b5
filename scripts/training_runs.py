"""The runs whose training steps are measured."""

from __future__ import annotations

from collections.abc import Sequence

from recording import mnist_missing


RUNS: dict[str, list[str]] = {
    "spiral": ["dataset=spiral", "model=node"],
    "oscillator": ["dataset=oscillator", "model=node", "trainer.window=null"],
    "mnist": ["dataset=mnist", "model=node", "trainer.batch_size=64"],
    "two_moons": ["dataset=two_moons", "model=cnf"],
}
"""Overrides of the default run: windows of 10 points, whole trajectories of 100, a classifier, a flow."""


def available(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Those of the runs whose data are here, and a sentence on each of the others."""
    reason = mnist_missing() if "mnist" in names else None
    if reason is None:
        return list(names), []
    return [name for name in names if name != "mnist"], [f"Left out: mnist, since {reason}."]
