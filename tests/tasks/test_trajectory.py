"""Trajectory regression: losses by hand, masks, and where segments come from."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from node_runner.errors import ConfigError
from node_runner.settings import TrainerConfig
from node_runner.tasks import trajectory
from node_runner.tasks.parts.segments import Segments, whole
from node_runner.tasks.trajectory import TrajectoryRegression, parameter_error
from node_runner.views import Equation, Trajectories, View
from tests.models.builders import spec
from tests.tasks.models import Constant


SPEC = spec(View.trajectories, (2,), mean=[0.0, 0.0], std=[1.0, 2.0])
# Two trajectories of three points, seen by a model that predicts the first point for ever.
PART = Trajectories(
    torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64),
    torch.tensor([[[1.0, 2.0], [2.0, 2.0], [1.0, 6.0]], [[0.0, 0.0], [0.0, 2.0], [3.0, 0.0]]], dtype=torch.float64),
)
# Errors: (1, 0) (0, 4) and (0, 2) (3, 0).


class Penalty:
    weight = 0.5


def task(**regularisers: Penalty) -> TrajectoryRegression:
    return TrajectoryRegression(SPEC, regularisers)


def config(**settings: object) -> TrainerConfig:
    return TrainerConfig(**{"batch_size": None, "window": None, **settings})


def everything(part: Trajectories = PART):
    _, batch = task().batches(part, config(), 0, lambda step: 0.0)
    return batch(0)


def indexed(num: int = 6, times: int = 20) -> Trajectories:
    """Trajectories that say where each of their points comes from: (trajectory, index of time)."""
    ts = torch.linspace(3.0, 5.0, times, dtype=torch.float64)
    rows = torch.arange(num, dtype=torch.float64)[:, None].expand(num, times)
    columns = torch.arange(times, dtype=torch.float64).expand(num, times)
    return Trajectories(ts, torch.stack((rows, columns), dim=-1))


def test_the_loss_is_the_mean_square_in_units_of_the_variance_without_the_first_state():
    output = task().step(Constant(2), everything())
    # Axis by axis over std (1, 2): 1 + 4 + 1 + 9 over 8 numbers.
    assert float(output.loss.detach()) == pytest.approx(15 / 8)
    assert float(output.scalars["loss"]) == pytest.approx(15 / 8)
    assert [stats.nfe_forward for stats in output.solves] == [10]


def test_penalties_are_added_by_their_weight_and_reported_without_it():
    output = task(kinetic=Penalty()).step(Constant(2, penalties={"kinetic": 6.0}), everything())
    assert float(output.loss.detach()) == pytest.approx(15 / 8 + 3)
    assert float(output.scalars["loss"]) == pytest.approx(15 / 8)
    assert float(output.scalars["regulariser/kinetic"]) == 6.0


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_evaluation_measures_the_same_in_parts_as_in_one(batch_size: int):
    metrics = task().evaluate(Constant(2), PART, batch_size)
    squares = 1 + 16 + 4 + 9
    truth = (4 + 4 + 1 + 36) + (4 + 9)
    assert metrics == pytest.approx(
        {"loss": 15 / 8, "mse": squares / 8, "relative_rmse": math.sqrt(squares / truth), "nfe": 10.0}
    )


@pytest.mark.parametrize("hidden", [100.0, math.inf, math.nan])
def test_a_point_that_was_not_observed_changes_nothing(hidden: float):
    mask = torch.tensor([[True, True, False], [True, False, True]])
    results = []
    for filling in (0.0, hidden):
        ys = PART.ys.masked_fill(~mask[..., None], filling)
        part, model = Trajectories(PART.ts, ys, mask), Constant(2, 0.25)
        output = task().step(model, everything(part))
        output.loss.backward()
        results.append((float(output.loss.detach()), model.offset.grad.tolist(), task().evaluate(model, part, 2)))
    assert results[0] == results[1]
    assert all(math.isfinite(value) for value in (results[1][0], *results[1][1], *results[1][2].values()))


def test_masked_points_do_not_count_in_the_means():
    mask = torch.tensor([[True, True, False], [True, False, True]])
    part = Trajectories(PART.ts, PART.ys, mask)
    # Seen: (1, 0) and (3, 0), four numbers.
    assert float(task().step(Constant(2), everything(part)).loss.detach()) == pytest.approx(10 / 4)
    assert task().evaluate(Constant(2), part, 1)["mse"] == pytest.approx(10 / 4)


def test_a_batch_in_which_nothing_was_observed_costs_nothing():
    mask = torch.tensor([[True, False, False]] * 2)
    part = Trajectories(PART.ts, PART.ys, mask)
    assert float(task().step(Constant(2), everything(part)).loss.detach()) == 0.0


def test_whole_trajectories_start_at_their_own_first_time():
    part = indexed()
    batch = whole(part, torch.tensor([4, 1]))
    assert batch.ys.shape == (20, 2, 2)
    assert batch.ys[:, 0, 0].tolist() == [4.0] * 20
    assert batch.t0.tolist() == [3.0, 3.0]
    assert float(batch.ts[0]) == 0.0
    torch.testing.assert_close(batch.ts, part.ts - 3.0)


def check_segments(part: Trajectories, batch, length: int) -> None:
    """Every segment must be a stretch of the data, with its own starting time."""
    assert batch.ys.shape[0] == len(batch.ts) == length
    rows, first = batch.ys[0, :, 0].long(), batch.ys[0, :, 1].long()
    for i in range(len(rows)):
        columns = torch.arange(int(first[i]), int(first[i]) + length)
        assert torch.equal(batch.ys[:, i], part.ys[rows[i], columns])
        assert float(batch.t0[i]) == float(part.ts[first[i]])
        torch.testing.assert_close(batch.ts, part.ts[columns] - part.ts[columns[0]], rtol=0, atol=1e-12)


def test_segments_come_from_the_data_with_the_times_at_which_they_start():
    part = indexed()
    steps, batch = task().batches(part, config(batch_size=8, window=5), 0, lambda step: 1.0)
    assert steps == round(6 * 20 / (8 * 5))
    starts = set()
    for step in range(8):
        check_segments(part, batch(step), 5)
        starts |= set(batch(step).t0.tolist())
    assert len(starts) > 5


def test_segments_of_unevenly_spaced_times_share_a_start():
    ts = torch.cat((torch.zeros(1), torch.rand(19).cumsum(0) + 0.1)).double()
    part = Trajectories(ts, indexed().ys)
    _, batch = task().batches(part, config(batch_size=8, window=5), 0, lambda step: 1.0)
    starts = set()
    for step in range(10):
        drawn = batch(step)
        check_segments(part, drawn, 5)
        assert len(set(drawn.t0.tolist())) == 1
        starts.add(float(drawn.t0[0]))
    assert len(starts) > 1


def test_a_window_of_the_whole_length_is_the_whole_trajectory():
    part = indexed()
    _, batch = task().batches(part, config(batch_size=4, window=20), 0, lambda step: 1.0)
    check_segments(part, batch(0), 20)


def test_masks_travel_with_their_segments():
    part = indexed()
    mask = torch.zeros(6, 20, dtype=torch.bool)
    for row, length in enumerate((20, 15, 10, 8, 6, 5)):
        mask[row, :length] = True
    part = Trajectories(part.ts, part.ys, mask)
    _, batch = task().batches(part, config(batch_size=50, window=5), 0, lambda step: 1.0)
    drawn = batch(0)
    rows, first = drawn.ys[0, :, 0].long(), drawn.ys[0, :, 1].long()
    assert drawn.mask is not None
    assert bool(drawn.mask.all())  # ragged ends are left out where there is room
    assert bool((first + 5 <= mask.sum(1)[rows]).all())
    (taken,) = Segments(part)(torch.tensor([[5]]), torch.tensor([[3]]), 4)
    assert taken.mask[:, 0].tolist() == [True, True, False, False]


@pytest.mark.parametrize(("share", "lengths"), [(0.5, [4, 10, 16, 16, 16]), (1.0, [4, 7, 10, 13, 16]), (0.0, [16] * 5)])
def test_the_window_grows_from_its_start_to_its_full_length_over_its_share_of_training(
    share: float, lengths: list[int]
):
    settings = config(batch_size=8, window=16, window_start=4, curriculum_share=share)
    part = indexed()
    _, batch = task().batches(part, settings, 0, lambda step: step / 4)
    for step, length in enumerate(lengths):
        check_segments(part, batch(step), length)


def test_a_curriculum_without_a_window_ends_with_whole_trajectories():
    _, batch = task().batches(indexed(), config(batch_size=4, window_start=2), 0, lambda step: step / 10)
    assert len(batch(0).ts) == 2
    assert len(batch(10).ts) == 20


def test_batches_of_segments_are_a_pure_function_of_seed_and_step():
    def drawn(seed: int, step: int) -> Tensor:
        return task().batches(indexed(), config(batch_size=8, window=5), seed, lambda s: 1.0)[1](step).ys

    assert torch.equal(drawn(0, 3), drawn(0, 3))
    assert not torch.equal(drawn(0, 3), drawn(0, 4))
    assert not torch.equal(drawn(0, 3), drawn(1, 3))


@pytest.mark.parametrize("numbers", [1, 10**9], ids=["one-by-one", "many-at-once"])
def test_batches_do_not_depend_on_how_many_are_made_at_once(monkeypatch: pytest.MonkeyPatch, numbers: int):
    settings = config(batch_size=8, window=16, window_start=4, curriculum_share=0.5)
    expected = task().batches(indexed(), settings, 0, lambda step: step / 150)[1]
    batches = [expected(step) for step in range(150)]
    monkeypatch.setattr(trajectory, "NUMBERS_READY", numbers)
    again = task().batches(indexed(), settings, 0, lambda step: step / 150)[1]
    for step in (*range(150), 3, 149):
        assert torch.equal(again(step).ys, batches[step].ys)
        assert torch.equal(again(step).t0, batches[step].t0)
        assert torch.equal(again(step).ts, batches[step].ts)


def test_evenly_spaced_segments_share_one_tensor_of_times():
    _, batch = task().batches(indexed(), config(batch_size=8, window=5), 0, lambda step: 1.0)
    assert batch(0).ts is batch(200).ts


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"window": 21}, "trainer.window=21: .*only 20 points"),
        ({"window_start": 21}, "trainer.window_start=21: expected at most trainer.window=20"),
        ({"window": 5, "window_start": 6}, "trainer.window_start=6: expected at most trainer.window=5"),
    ],
    ids=["window-too-long", "start-too-long", "start-beyond-window"],
)
def test_a_window_that_does_not_fit_is_refused(settings: dict[str, int], why: str):
    with pytest.raises(ConfigError, match=why):
        task().batches(indexed(), config(**settings), 0, lambda step: 0.0)


def test_the_model_is_asked_from_the_first_state_with_times_from_zero():
    model = Constant(2)
    task().evaluate(model, indexed(), 6)
    y0, ts, t0 = model.asked[0]
    assert torch.equal(y0, indexed().ys[:, 0])
    assert float(ts[0]) == 0.0
    assert t0 is not None
    assert t0.tolist() == [3.0] * 6


def test_the_energy_drift_is_the_largest_change_over_the_energy_at_the_start_both_over_all_trajectories():
    class Growing(Constant):
        def forward(self, y0: Tensor, ts: Tensor, t0: Tensor | None = None):
            output = super().forward(y0, ts, t0)
            return output._replace(value=output.value * torch.tensor([1.0, 3.0, 0.5])[:, None, None])

    part = Trajectories(PART.ts, torch.tensor([[[1.0, 2.0]] * 3, [[0.0, 2.0]] * 3], dtype=torch.float64))
    conserving = TrajectoryRegression(dataclasses.replace(SPEC, energy=lambda y: y[..., 0] ** 2 + y[..., 1]), {})
    # From energies 3 and 2 to 9 + 6 and 6, later to 0.25 + 1 and 1.
    for batch_size in (1, 2):
        assert conserving.evaluate(Growing(2), part, batch_size)["energy_drift"] == pytest.approx((12 + 4) / (3 + 2))


def test_a_model_s_scalars_are_measured_as_means_over_the_samples():
    class Telling(Constant):
        def forward(self, y0: Tensor, ts: Tensor, t0: Tensor | None = None):
            return super().forward(y0, ts, t0)._replace(scalars={"size": y0.abs().sum(dim=1).mean()})

    for batch_size in (1, 2):
        assert task().evaluate(Telling(2), PART, batch_size)["size"] == pytest.approx(1.5)


def test_the_error_of_parameters_is_the_largest_as_a_share_of_the_true_value():
    equation = Equation(lambda t, y: y, {"a": 1.0, "b": 1.0, "c": 1.0}, {"a": 2.0, "b": 0.0, "c": 5.0})
    assert parameter_error({"a": 1.5, "b": 0.1, "gain": 9.0}, equation) == {"parameter_error": 0.25}
    assert parameter_error({"a": 2.0, "b": 0.1}, equation) == {"parameter_error": 0.1}
    assert parameter_error({"gain": 9.0}, equation) == parameter_error({"a": 1.0}, None) == {}


def test_segments_of_trajectories_with_gaps_start_where_a_state_was_observed():
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(6, 12, generator=generator) > 0.6
    mask[:, 0] = True
    ys = torch.where(mask, torch.arange(12.0), -1.0).unsqueeze(-1)
    part = Trajectories(torch.linspace(0, 1, 12, dtype=torch.float64), ys, mask)
    segments = Segments(part)
    assert segments.lengths.tolist() == [int(row.nonzero().max()) + 1 for row in mask]
    rows, first = torch.arange(6).repeat(2, 1), torch.tensor([[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]])
    for batch in segments(rows, first, 4):
        assert batch.mask is not None and bool(batch.mask[0].all())
        assert bool((batch.ys[0] >= 0).all())
        torch.testing.assert_close(batch.t0, part.ts[batch.ys[0, :, 0].long()])
