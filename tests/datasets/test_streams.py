import torch

from node_runner.datasets.parts.streams import mean_std, not_offered, stream
from node_runner.errors import ConfigError
from node_runner.views import View


def test_a_stream_is_decided_by_its_seed_and_key():
    draws = {key: stream(*key).standard_normal(4).tolist() for key in [(0, 0), (0, 1), (1, 0), (0, 0, 0), (0, 0, 1)]}
    assert stream(0, 1).standard_normal(4).tolist() == draws[0, 1]
    assert len({tuple(draw) for draw in draws.values()}) == len(draws)


def test_mean_and_deviation_are_those_of_the_population():
    mean, std = mean_std(torch.tensor([[0.0, 1.0], [2.0, 1.0], [4.0, 4.0]], dtype=torch.float64))
    torch.testing.assert_close(mean, torch.tensor([2.0, 2.0], dtype=torch.float64))
    torch.testing.assert_close(std, torch.tensor([(8 / 3) ** 0.5, 2**0.5], dtype=torch.float64))


def test_the_deviation_of_an_axis_that_does_not_vary_is_one():
    mean, std = mean_std(torch.tensor([[0.1, 1.0], [0.1, 3.0]], dtype=torch.float64))
    torch.testing.assert_close(mean, torch.tensor([0.1, 2.0], dtype=torch.float64))
    assert std.tolist() == [1.0, 1.0]


def test_an_absent_view_is_answered_with_those_that_are_there():
    error = not_offered("spiral", View.labelled, (View.trajectories, View.points))
    assert isinstance(error, ConfigError)
    assert str(error) == "dataset=spiral offers no view 'labelled', only trajectories and points"
