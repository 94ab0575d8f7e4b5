"""Each view has its task."""

from __future__ import annotations

import pytest

from node_runner.tasks import TASKS, Classification, Density, TrajectoryRegression, make_task
from node_runner.views import View
from tests.models.builders import spec


def test_every_view_has_a_task_that_says_so():
    assert set(TASKS) == set(View)
    assert all(task.view is view for view, task in TASKS.items())


@pytest.mark.parametrize(
    ("view", "kind"),
    [(View.trajectories, TrajectoryRegression), (View.labelled, Classification), (View.points, Density)],
    ids=lambda value: getattr(value, "value", ""),
)
def test_the_view_of_the_data_chooses_the_task(view: View, kind: type):
    assert isinstance(make_task(spec(view, (2,)), {}), kind)
