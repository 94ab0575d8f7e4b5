"""What Hydra runs: one job of one run or sweep."""

from __future__ import annotations

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from node_runner.config import register_schemas, to_run

# Workers of a parallel launcher import this module afresh, and need schemas and resolvers too.
register_schemas()


def run(config: DictConfig) -> float:
    """Run one job; its val/loss is what a sweeper minimises."""
    checked = to_run(config)
    from node_runner.run import run as run_experiment

    hydra = HydraConfig.get()
    alone = hydra.mode is RunMode.RUN
    result = run_experiment(checked, Path(hydra.runtime.output_dir), live=alone)
    if result["status"] == "interrupted":
        raise KeyboardInterrupt
    return float(result["metrics"].get("val/loss", "nan"))
