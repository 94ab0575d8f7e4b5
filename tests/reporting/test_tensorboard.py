"""What the TensorBoard logger writes, read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import api_pb2, metadata

from node_runner.config import resolved
from node_runner.reporting.hparams import METRICS, power, tag
from node_runner.reporting.loggers.tensorboard import TensorBoardLogger
from tests.runs import make_run


CONFIG = resolved(make_run(adjoint="on", regularisers=["kinetic"], seed=3))


def outcome(**changes: Any) -> dict[str, Any]:
    """A result.json in small."""
    return {
        "status": "completed",
        "reason": "all steps done",
        "title": "spiral x node x dopri5, adjoint on",
        "choices": {"device": "cpu", "engine": "native"},
        "metrics": {"val/loss": 0.5, "test/mse": 0.25, "nfe/forward": 32.0, "nfe/backward": 64.0},
        "totals": {"seconds_total": 12.5, "steps": 20},
        "command": "node-run",
        **changes,
    }


def figure() -> Figure:
    drawn = Figure(figsize=(2, 1))
    drawn.subplots().plot([0, 1])
    return drawn


def write(folder: Path, **changes: Any) -> EventAccumulator:
    logger = TensorBoardLogger(folder, 0)
    logger.begin(CONFIG)
    for step in (10, 20):
        logger.scalars(step, {"train/loss": 1 / step, "nfe/forward": 32.0, "epoch": 1.0})
        logger.scalars(step, {"val/loss": 2 / step})
    logger.figure("portrait", figure(), 20)
    logger.finish(CONFIG, outcome(**changes))
    logger.close()
    return read(folder)


def read(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    return events


def choices(events: EventAccumulator) -> dict[str, Any]:
    content = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    hparams = metadata.parse_session_start_info_plugin_data(content).hparams
    return {name: value.string_value or value.number_value for name, value in hparams.items()}


def ending(events: EventAccumulator) -> int:
    content = events.SummaryMetadata(metadata.SESSION_END_INFO_TAG).plugin_data.content
    return metadata.parse_session_end_info_plugin_data(content).status


def charts(events: EventAccumulator) -> dict[str, dict[str, list[str]]]:
    (event,) = events.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    return {c.title: {chart.title: list(chart.multiline.tag) for chart in c.chart} for c in layout.category}


def test_scalars_arrive_with_their_names_and_steps(tmp_path: Path) -> None:
    events = write(tmp_path)
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [
        (10, pytest.approx(0.1)),
        (20, pytest.approx(0.05)),
    ]
    assert "epoch" not in events.Tags()["scalars"]


def test_figures_arrive_as_the_image_that_was_drawn(tmp_path: Path) -> None:
    (event,) = write(tmp_path).Images("figures/portrait")
    assert (event.step, event.width, event.height) == (20, 240, 120)
    assert event.encoded_image_string.startswith(b"\x89PNG")


def test_the_configuration_and_the_result_arrive_as_text(tmp_path: Path) -> None:
    events = write(tmp_path)
    (config,) = events.Tensors("config/text_summary")
    (result,) = events.Tensors("result/text_summary")
    assert config.tensor_proto.string_val[0].startswith(b"```yaml\nseed: 3\n")
    assert b"| test/mse | 0.25 |" in result.tensor_proto.string_val[0]


def final(events: EventAccumulator) -> dict[str, float]:
    """The results in the row of the HParams table."""
    return {name: events.Scalars(name)[0].value for name in map(tag, METRICS) if name in events.Tags()["scalars"]}


def test_the_layout_has_the_charts_that_the_run_fills_and_no_others(tmp_path: Path) -> None:
    assert charts(write(tmp_path)) == {
        "Loss": {"loss": ["^train/loss$", "^val/loss$"]},
        "NFE": {"evaluations per optimiser step": ["^nfe/forward$", "^nfe/backward$"]},
    }


def test_a_run_is_a_row_of_readable_choices_and_results(tmp_path: Path) -> None:
    events = write(tmp_path)
    found = choices(events)
    expected = {"status": "completed", "dataset": "spiral", "model": "node", "field": "mlp", "solver": "dopri5",
                "rtol": "1e-03", "atol": "1e-04", "adjoint": "on", "regulariser": "kinetic 0.01", "batch_size": "8",
                "precision": "float64", "seed": "3"}  # fmt: skip
    assert expected.items() <= found.items()
    assert found["lr"] == CONFIG["optimizer"]["lr"]
    assert ending(events) == api_pb2.STATUS_SUCCESS
    results = final(events)
    assert results[tag("test/mse")] == 0.25 and results[tag("seconds")] == 12.5
    assert tag("test/accuracy") not in results  # the cell stays empty, and no chart without a point is made


def test_the_table_has_a_column_for_every_option_of_every_run(tmp_path: Path) -> None:
    content = write(tmp_path).SummaryMetadata(metadata.EXPERIMENT_TAG).plugin_data.content
    experiment = metadata.parse_experiment_plugin_data(content)
    options = {info.name: [v.string_value for v in info.domain_discrete.values] for info in experiment.hparam_infos}
    assert {"dopri5", "rk4"} <= set(options["solver"])
    assert "diverged" in options["status"]
    assert [info.display_name for info in experiment.metric_infos] == list(METRICS)


def test_a_run_that_failed_is_a_row_too(tmp_path: Path) -> None:
    events = write(tmp_path, status="diverged", metrics={"val/loss": None})
    assert choices(events)["status"] == "diverged"
    assert ending(events) == api_pb2.STATUS_FAILURE
    assert list(final(events)) == [tag("seconds")]


def test_a_run_that_is_resumed_becomes_one_run(tmp_path: Path) -> None:
    write(tmp_path, status="interrupted")
    logger = TensorBoardLogger(tmp_path, 10)
    logger.begin(CONFIG)
    logger.scalars(20, {"train/loss": 7.0, "val/loss": 8.0})
    logger.finish(CONFIG, outcome())
    logger.close()
    events = read(tmp_path)
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [
        (10, pytest.approx(0.1)),
        (20, 7.0),
    ]
    assert choices(events)["status"] == "completed"
    assert len(events.Tensors("config/text_summary")) == 1
    assert len(events.Scalars(tag("seconds"))) == 1
    assert not list(tmp_path.glob("partial.*"))


def test_a_file_that_was_cut_short_is_read_up_to_there(tmp_path: Path) -> None:
    write(tmp_path)
    (file,) = tmp_path.glob("events.out.tfevents.*")
    file.write_bytes(file.read_bytes()[:-7])
    TensorBoardLogger(tmp_path, 20).close()
    assert [event.step for event in read(tmp_path).Scalars("train/loss")] == [10, 20]


@pytest.mark.parametrize(("value", "text"), [(1e-4, "1e-04"), (2.5e-6, "2.5e-06"), (1.0, "1e+00")])
def test_tolerances_are_written_as_powers_of_ten(value: float, text: str) -> None:
    assert power(value) == text
