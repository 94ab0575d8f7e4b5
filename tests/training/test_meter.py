"""The meter: means over steps, by hand."""

from __future__ import annotations

import pytest
import torch

from node_runner.training.meter import Meter
from node_runner.types import SolveStats


CPU = torch.device("cpu")


def stats(**counts: float) -> SolveStats:
    return SolveStats(**counts)


def test_scalars_are_means_over_evaluations_and_counts_are_means_over_steps():
    meter = Meter()
    for loss, nfe in ((1.0, 20), (3.0, 40)):
        meter.add({"loss": torch.tensor(loss)}, [stats(nfe_forward=nfe, nfe_backward=nfe // 2, accepted=3, rejected=1)])
        meter.end_step()
    means = meter.means(seconds=0.5)
    assert means["train/loss"] == 2.0
    assert (means["nfe/forward"], means["nfe/backward"]) == (30.0, 15.0)
    assert (means["solver/accepted"], means["solver/rejected"]) == (3.0, 1.0)
    assert means["time/step_ms"] == 250.0


def test_an_optimiser_that_evaluates_several_times_in_a_step_is_charged_for_all():
    # As L-BFGS: three evaluations in the first step, one in the second.
    meter = Meter()
    for losses in ((4.0, 2.0, 3.0), (1.0,)):
        for loss in losses:
            meter.add({"loss": torch.tensor(loss)}, [stats(nfe_forward=10, nfe_backward=6)])
        meter.end_step()
    means = meter.means(seconds=1.0)
    assert (means["nfe/forward"], means["nfe/backward"]) == (20.0, 12.0)
    assert means["train/loss"] == 2.5


def test_several_solves_of_one_evaluation_are_added():
    meter = Meter()
    meter.add(
        {},
        [
            stats(nfe_forward=10, nfe_backward=6, accepted_backward=1),
            stats(nfe_forward=5, nfe_backward=12, rejected_backward=2),
        ],
    )
    meter.end_step()
    means = meter.means(seconds=1.0)
    assert means["nfe/forward"] == 15.0
    assert (means["solver/accepted_backward"], means["solver/rejected_backward"]) == (1.0, 2.0)


def test_a_scalar_that_comes_only_now_and_then_is_a_mean_of_the_times_it_came():
    meter = Meter()
    for i in range(4):
        scalars = {"loss": torch.tensor(1.0)} | ({"rare": torch.tensor(float(i))} if i % 2 else {})
        meter.add(scalars, [])
        meter.end_step()
    assert meter.means(seconds=1.0)["train/rare"] == 2.0


def test_a_scalar_may_come_in_different_company():
    meter = Meter()
    for scalars in ({"loss": 1.0}, {"loss": 2.0, "other": 8.0}, {"other": 4.0, "loss": 6.0}):
        meter.add({name: torch.tensor(value) for name, value in scalars.items()}, [])
        meter.end_step()
    means = meter.means(seconds=1.0)
    assert (means["train/loss"], means["train/other"]) == (3.0, 6.0)


def test_names_with_a_slash_are_public_already():
    meter = Meter()
    meter.add({"loss": torch.tensor(1.0), "optim/grad_norm": torch.tensor(2.0)}, [])
    meter.end_step()
    means = meter.means(seconds=1.0)
    assert (means["train/loss"], means["optim/grad_norm"]) == (1.0, 2.0)


def test_a_line_starts_afresh():
    meter = Meter()
    for loss in (1.0, 5.0):
        meter.add({"loss": torch.tensor(loss)}, [stats(nfe_forward=int(loss))])
        meter.end_step()
        means = meter.means(seconds=1.0)
        assert (means["train/loss"], means["nfe/forward"], meter.steps) == (loss, loss, 0)


def test_the_share_of_the_solve_is_that_of_its_seconds_forward_and_backward():
    meter = Meter()
    meter.add({}, [stats(seconds_forward=0.2, seconds_backward=0.3)])
    meter.end_step()
    assert meter.means(seconds=2.0)["time/solve_share"] == pytest.approx(0.25)


def test_a_clock_that_still_runs_is_stopped():
    running = stats(backward_began=0.0)
    Meter().add({}, [running])
    assert running.backward_began is None
    assert running.seconds_backward > 0


def test_sums_do_not_keep_the_graph_or_change_with_the_scalar():
    meter = Meter()
    loss = torch.tensor(2.0, requires_grad=True)
    value = loss * 1
    meter.add({"loss": value}, [])
    assert not any(value.requires_grad for sums in meter.state_dict()["sums"].values() for value in sums)
    with torch.no_grad():
        value.zero_()
    meter.end_step()
    assert meter.means(seconds=1.0)["train/loss"] == 2.0


def test_a_line_that_is_not_complete_survives_a_checkpoint():
    meter, other = Meter(), Meter()
    meter.add({"loss": torch.tensor(1.0)}, [stats(nfe_forward=10)])
    meter.end_step()
    other.load_state_dict(meter.state_dict(), CPU)
    for each in (meter, other):
        each.add({"loss": torch.tensor(3.0)}, [stats(nfe_forward=20)])
        each.end_step()
    assert other.means(seconds=1.0) == meter.means(seconds=1.0)
