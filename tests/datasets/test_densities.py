import math

import pytest
import torch

from node_runner.datasets import DATASETS
from node_runner.datasets.densities import PlaneDensity
from node_runner.datasets.parts.shapes import SHAPES
from node_runner.errors import ConfigError
from node_runner.views import View


SMALL = {"train": 60, "val": 20, "test": 30}


@pytest.fixture(params=list(SHAPES))
def shape(request: pytest.FixtureRequest) -> str:
    """Each shape by name."""
    return request.param


def test_every_shape_is_registered_by_its_name_with_the_shape_fixed(shape):
    assert [parameter.name for parameter in DATASETS.signature(shape).parameters] == [
        "train",
        "val",
        "test",
        "noise",
        "seed",
    ]
    assert DATASETS.get(shape)(**SMALL).spec(View.points).dataset == shape


def test_the_two_views_show_the_same_samples(shape):
    density = PlaneDensity(shape=shape, **SMALL)
    points, labelled = density.splits(View.points), density.splits(View.labelled)
    for (name, part), (_, with_class) in zip(points.items(), labelled.items(), strict=True):
        assert part.x.shape == (SMALL[name], 2)
        assert part.x.dtype == torch.float64
        assert torch.equal(part.x, with_class.x)
        assert with_class.y.dtype == torch.int64


def test_the_spec_describes_the_training_samples(shape):
    density = PlaneDensity(shape=shape, **SMALL)
    x = density.splits(View.points).train.x
    points, labelled = density.spec(View.points), density.spec(View.labelled)
    for spec in (points, labelled):
        torch.testing.assert_close(spec.mean, x.mean(0))
        torch.testing.assert_close(spec.std, x.std(0, correction=0))
        assert (spec.shape, spec.labels, spec.levels, spec.image) == ((2,), ("x", "y"), 0, ())
    assert (points.num_classes, labelled.num_classes) == (0, SHAPES[shape].num_classes)


def test_the_seed_decides_the_samples(shape):
    first, again, other = (PlaneDensity(shape=shape, seed=s, **SMALL).splits(View.labelled).train for s in (0, 0, 1))
    assert torch.equal(first.x, again.x) and torch.equal(first.y, again.y)
    assert not torch.isclose(first.x, other.x).any()


def test_parts_share_no_sample_and_their_sizes_do_not_move_one_another(shape):
    before = PlaneDensity(shape=shape, **SMALL).splits(View.points)
    after = PlaneDensity(shape=shape, **{**SMALL, "val": 50}).splits(View.points)
    assert torch.equal(before.train.x, after.train.x) and torch.equal(before.test.x, after.test.x)
    assert len(torch.cat([part.x for _, part in before.items()]).unique(dim=0)) == 110


@pytest.mark.parametrize("ask", ["splits", "spec"])
def test_densities_have_no_trajectories(ask):
    with pytest.raises(ConfigError, match="rings offers no view 'trajectories', only points and labelled"):
        getattr(PlaneDensity(shape="rings"), ask)(View.trajectories)


def test_the_true_density_is_offered_where_it_is_known():
    x = torch.zeros(3, 2)
    known = {shape for shape in SHAPES if PlaneDensity(shape=shape).log_prob(x) is not None}
    assert known == {"two_moons", "eight_gaussians", "checkerboard", "rings"}
    assert PlaneDensity(shape="rings").log_prob(x).shape == (3,)


def test_the_noise_asked_for_reaches_samples_and_density():
    narrow, wide = (PlaneDensity(shape="rings", noise=noise) for noise in (0.01, 0.3))
    on_a_ring = torch.tensor([[3.0, 0.0]])
    assert narrow.log_prob(on_a_ring) > wide.log_prob(on_a_ring) + 2
    spread = [
        (part.x.norm(dim=1) - torch.tensor([3.0, 2.25, 1.5, 0.75])[part.y]).std().item()
        for part in (narrow.splits(View.labelled).test, wide.splits(View.labelled).test)
    ]
    torch.testing.assert_close(spread[0], 0.01, rtol=0.1, atol=0)
    torch.testing.assert_close(spread[1], 0.3, rtol=0.1, atol=0)


def test_the_entropy_is_the_mean_of_the_negative_log_density(shape):
    density = PlaneDensity(shape=shape, train=100_000, val=1, test=1)
    found = density.spec(View.points).entropy
    x = density.splits(View.points).train.x
    true = density.log_prob(x)
    assert (found is None) == (true is None)
    if true is not None:
        assert found == pytest.approx(-float(true.mean()), abs=4 * float(true.std()) / len(x) ** 0.5 + 1e-7)
    assert density.spec(View.labelled).entropy is None


def test_gaussians_far_apart_have_the_entropy_of_one_and_of_the_choice():
    found = PlaneDensity(shape="eight_gaussians", noise=0.1).entropy
    assert found == pytest.approx(math.log(8) + math.log(2 * math.pi * math.e * 0.1**2), abs=1e-9)


def test_a_blurred_board_has_more_entropy_than_a_sharp_one_and_a_hair_of_noise_none_that_is_known():
    sharp, blurred, hair = (PlaneDensity(shape="checkerboard", noise=noise).entropy for noise in (0, 0.1, 0.01))
    assert sharp == math.log(32)
    assert sharp < blurred < sharp + 0.5
    assert hair is None
