"""A finished run as one row of TensorBoard's HParams table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo

from node_runner.adjoints import ADJOINTS
from node_runner.datasets import DATASETS
from node_runner.engines import ENGINES
from node_runner.fields import FIELDS
from node_runner.models import MODELS
from node_runner.solvers import SOLVERS


METRICS = {
    "val/loss": "of the best validation",
    "nfe/forward": "evaluations of the field per optimiser step",
    "nfe/backward": "evaluations per optimiser step, in the gradient",
    "test/mse": "mean squared error of the test, trajectories",
    "test/accuracy": "share of correct labels of the test, classification",
    "test/nll": "negative log-likelihood of the test in nats, density",
    "memory/peak_mb": "MiB above the baseline",
    "memory/saved_mb": "MiB kept by autograd for one backward",
    "time/step_ms": "ms per optimiser step",
    "seconds": "of the whole run, validations included",
}
"""The columns of results. The same for every run, so that runs of different tasks share a table."""

FIRST = ("adjoint", "dataset", "model", "rtol", "solver")
"""TensorBoard sorts columns by name, and shows five until it is asked for more: these."""

REGISTRIES = (DATASETS, MODELS, FIELDS, SOLVERS, ADJOINTS, ENGINES)
STATUSES = ("completed", "interrupted", "diverged", "failed")


def hparams(config: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, str | float]:
    """The choices that tell runs apart, worded as a person would: the columns left of the results."""
    regularisers = (f"{name} {item['weight']:g}" for name, item in config["regulariser"].items())
    solver = config["solver"]
    group = {"rtol": "tolerance", "atol": "tolerance", "step_size": "solver"}
    chosen: dict[str, str | float] = {
        "status": result["status"],
        "dataset": config["dataset"]["name"],
        "model": config["model"]["name"],
        "field": config["field"]["name"],
        "solver": solver["name"],
        "rtol": power(config["tolerance"]["rtol"]),
        "atol": power(config["tolerance"]["atol"]),
        "step_size": f"{solver['step_size'] or 'as the data'}" if "step_size" in solver else "adaptive",
        "adjoint": config["adjoint"]["name"],
        "engine": result["choices"]["engine"],
        "optimizer": config["optimizer"]["name"],
        "lr": float(config["optimizer"].get("lr", math.nan)),
        "batch_size": f"{config['trainer']['batch_size'] or 'all'}",
        "regulariser": ", ".join(regularisers) or "none",
        "precision": config["device"]["precision"],
        "device": result["choices"]["device"],
        "seed": f"{config['seed']}",
    }
    unused = result.get("unused", ())
    return {name: "none" if group.get(name, name) in unused else value for name, value in chosen.items()}


def results(result: Mapping[str, Any]) -> dict[str, float]:
    """The value of every column of results that the run has one for: the others stay empty."""
    values = {**result["metrics"], "seconds": result["totals"]["seconds_total"]}
    return {name: float(values[name]) for name in METRICS if values.get(name) is not None}


def tag(metric: str) -> str:
    """The scalar that holds a column of results: apart from the curves, whose last value it need not be."""
    return f"final/{metric}"


def summaries(config: Mapping[str, Any], result: Mapping[str, Any]) -> list[Summary]:
    """What makes a run a row: the table's columns, the run's choices, and how it ended."""
    values = hparams(config, result)
    experiment = api_pb2.Experiment(
        hparam_infos=[_column(name, value) for name, value in values.items()],
        metric_infos=[
            api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag(name)), display_name=name, description=about)
            for name, about in METRICS.items()
        ],
    )
    start = SessionStartInfo()
    for name, value in values.items():
        if isinstance(value, str):
            start.hparams[name].string_value = value
        elif math.isfinite(value):
            start.hparams[name].number_value = value
    good = result["status"] == "completed"
    end = SessionEndInfo(status=api_pb2.STATUS_SUCCESS if good else api_pb2.STATUS_FAILURE)
    return [
        _summary(metadata.EXPERIMENT_TAG, HParamsPluginData(experiment=experiment)),
        _summary(metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=start)),
        _summary(metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=end)),
    ]


def power(value: float) -> str:
    """A tolerance as people write it.

    >>> power(0.0001), power(2.5e-6)
    ('1e-04', '2.5e-06')
    """
    digits, exponent = f"{value:.6e}".split("e")
    return f"{digits.rstrip('0').rstrip('.')}e{exponent}"


def _column(name: str, value: str | float) -> api_pb2.HParamInfo:
    """The declaration of a column. TensorBoard takes it from any one run, so it must hold for all."""
    kind = api_pb2.DATA_TYPE_STRING if isinstance(value, str) else api_pb2.DATA_TYPE_FLOAT64
    # Columns that are said to differ between runs are sorted before the others.
    column = api_pb2.HParamInfo(name=name, type=kind, differs=name in FIRST)
    options = {registry.group: registry.names() for registry in REGISTRIES} | {"status": STATUSES}
    if name in options:
        column.domain_discrete.extend(options[name])
    return column


def _summary(name: str, content: HParamsPluginData) -> Summary:
    content.version = metadata.PLUGIN_DATA_VERSION
    plugin = SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME, content=content.SerializeToString())
    return Summary(value=[Summary.Value(tag=name, metadata=SummaryMetadata(plugin_data=plugin))])
