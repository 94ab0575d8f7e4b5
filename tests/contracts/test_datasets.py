"""What every data set owes in every view it offers: repeatable, finite, disjoint parts that match its specification."""

from __future__ import annotations

import dataclasses
import functools
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from node_runner.datasets import DATASETS
from node_runner.errors import ConfigError
from node_runner.views import Dataset, DataSpec, Labelled, Points, Series, Splits, Trajectories, View
from tests.runs import smaller


def declared_views(name: str) -> tuple[View, ...]:
    component = DATASETS.get(name)
    return getattr(component, "func", component).views


KINDS = {
    View.trajectories: Trajectories,
    View.labelled: Labelled,
    View.points: Points,
    View.series: Series,
    View.paths: Series,
    View.processes: Series,
}

OFFERED = [(name, view) for name in DATASETS.names() for view in declared_views(name)]
OFFERED_IDS = [f"{name}-{view.value}" for name, view in OFFERED]
NOT_OFFERED = [(name, view) for name in DATASETS.names() for view in View if view not in declared_views(name)]


@pytest.fixture(autouse=True)
def mnist_files(request: pytest.FixtureRequest) -> None:
    """MNIST's files, or what passes for them, for the tests that read them."""
    if hasattr(request.node, "callspec") and "mnist" in request.node.callspec.params.values():
        request.getfixturevalue("any_mnist")


def build(name: str, **settings: Any) -> Dataset:
    """A data set made small."""
    config = DATASETS.schema(name)()
    for key, value in {**smaller(config), **{f"dataset__{k}": v for k, v in settings.items()}}.items():
        setattr(config, key.removeprefix("dataset__"), value)
    return DATASETS.build(config)


@functools.cache
def _kept(name: str, data_folder: str | None) -> Dataset:
    return build(name)


def shared(name: str) -> Dataset:
    """A data set made small, the same one for all tests that only look at it."""
    return _kept(name, os.environ.get("NODE_RUNNER_DATA"))


def tensors(part: Any) -> dict[str, Tensor]:
    return {
        item.name: getattr(part, item.name)
        for item in dataclasses.fields(part)
        if isinstance(getattr(part, item.name), Tensor)
    }


def samples(part: Any) -> Tensor:
    """One row a sample."""
    content = part.ys if isinstance(part, Trajectories | Series) else part.x
    return content.reshape(len(part), -1).double()


@pytest.mark.parametrize(("name", "view"), OFFERED, ids=OFFERED_IDS)
def test_the_same_seed_gives_the_same_data(name: str, view: View):
    torch.manual_seed(1)
    one = build(name).splits(view)
    torch.manual_seed(2)
    two = build(name).splits(view)
    assert [key for key, _ in one.items()] == [key for key, _ in two.items()]
    for (_, mine), (_, other) in zip(one.items(), two.items(), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(tensors(mine).values(), tensors(other).values(), strict=True))


@pytest.mark.parametrize(("name", "view"), OFFERED, ids=OFFERED_IDS)
def test_another_seed_gives_other_data(name: str, view: View):
    one, two = (build(name, seed=seed).splits(view) for seed in (0, 1))
    assert not torch.equal(samples(one.train), samples(two.train))


@pytest.mark.parametrize(("name", "view"), OFFERED, ids=OFFERED_IDS)
def test_parts_are_of_the_kind_and_shape_that_the_specification_says(name: str, view: View):
    data = shared(name)
    splits, spec = data.splits(view), data.spec(view)
    kind = KINDS[view]
    assert (spec.dataset, spec.view) == (name, view)
    for key, part in splits.items():
        assert isinstance(part, kind), key
        assert len(part) > 0
        if isinstance(part, Trajectories | Series):
            assert part.ys.shape == (len(part), len(part.ts), *spec.shape)
            assert bool((part.ts.diff() > 0).all())
        else:
            assert tuple(part.x.shape) == (len(part), *spec.shape)
        if isinstance(part, Labelled):
            assert part.y.dtype is torch.int64
            assert part.y.shape == (len(part),)
            assert 0 <= int(part.y.min()) <= int(part.y.max()) < spec.num_classes
        if isinstance(part, Series):
            assert part.seen.dtype is part.known.dtype is torch.bool
            assert part.seen.shape == part.known.shape == part.target.shape == part.ys.shape
            assert not (part.seen & ~part.known).any(), "what may be seen was measured"
            assert not part.ys[~part.known].any()
            assert (part.labels is not None) == (view is View.paths)
            if part.labels is not None:
                assert part.labels.dtype is torch.int64
                assert 0 <= int(part.labels.min()) <= int(part.labels.max()) < spec.num_classes


@pytest.mark.parametrize(("name", "view"), OFFERED, ids=OFFERED_IDS)
def test_every_number_is_finite_on_the_cpu_and_in_the_dtype_agreed(name: str, view: View):
    for key, part in shared(name).splits(view).items():
        for field, tensor in tensors(part).items():
            assert tensor.device.type == "cpu"
            assert tensor.dtype in (torch.float64, torch.float32, torch.uint8, torch.int64, torch.bool), (key, field)
            assert bool(tensor.double().isfinite().all()), (key, field)


@pytest.mark.parametrize(("name", "view"), OFFERED, ids=OFFERED_IDS)
def test_parts_share_no_sample(name: str, view: View):
    splits: Splits[Any] = shared(name).splits(view)
    rows = {key: {tuple(row) for row in samples(part).tolist()} for key, part in splits.items()}
    keys = list(rows)
    for i, one in enumerate(keys):
        for other in keys[i + 1 :]:
            assert not rows[one] & rows[other], (one, other)


@pytest.mark.parametrize(("name", "view"), OFFERED, ids=OFFERED_IDS)
def test_the_statistics_are_those_of_the_training_part_only(name: str, view: View):
    data = shared(name)
    spec: DataSpec = data.spec(view)
    assert spec.mean.dtype is spec.std.dtype is torch.float64
    assert bool((spec.std > 0).all())
    train = data.splits(view).train
    if isinstance(train, Series):
        channels = [train.ys[..., i][train.known[..., i]] for i in range(train.ys.shape[-1])]
        torch.testing.assert_close(spec.mean, torch.stack([x.mean() for x in channels]))
        torch.testing.assert_close(spec.std, torch.stack([x.std(correction=0) for x in channels]))
        return
    content = train.ys.flatten(0, 1) if isinstance(train, Trajectories) else train.x
    content = content.double()
    if spec.levels:
        # Of dequantised pixels on the unit interval: uniform noise adds half a level and its own variance.
        mean, std = (content.mean() + 0.5) / spec.levels, (content.var(correction=0) + 1 / 12).sqrt() / spec.levels
    elif spec.mean.ndim == 0:
        mean, std = content.mean(), content.std(correction=0)
    else:
        mean, std = content.mean(0), content.std(0, correction=0)
    torch.testing.assert_close(spec.mean, mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(spec.std, std, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("name", "view"), OFFERED, ids=OFFERED_IDS)
def test_the_specification_describes_images_and_axes(name: str, view: View):
    data = shared(name)
    spec = data.spec(view)
    if spec.labels:
        assert (len(spec.labels),) == spec.shape
    if spec.levels:
        train = data.splits(view).train.x
        assert int(train.min()) >= 0
        assert int(train.max()) < spec.levels
        assert torch.equal(train.double(), train.double().round())
    if spec.image:
        channels, height, width = spec.image
        assert channels * height * width == spec.numel
    assert spec.numel == torch.Size(spec.shape).numel()


@pytest.mark.parametrize(("name", "view"), OFFERED, ids=OFFERED_IDS)
def test_further_parts_are_tests_and_sizes_are_those_that_were_asked_for(name: str, view: View):
    splits = shared(name).splits(view)
    assert all(key.startswith("test_") for key in splits.extra)
    factor = len(splits.test) // 6  # a point view of trajectories has all states along each
    assert (len(splits.train), len(splits.val), len(splits.test)) == (12 * factor, 6 * factor, 6 * factor)


@pytest.mark.parametrize(("name", "view"), OFFERED, ids=OFFERED_IDS)
def test_a_part_moves_as_a_whole(name: str, view: View):
    part = shared(name).splits(view).train.to(torch.device("cpu"), torch.float32)
    floats = {field: tensor for field, tensor in tensors(part).items() if field not in ("y", "labels")}
    assert {tensor.dtype for tensor in floats.values()} <= {torch.float32, torch.bool}


@pytest.mark.parametrize(("name", "view"), NOT_OFFERED, ids=[f"{name}-{view.value}" for name, view in NOT_OFFERED])
def test_a_view_that_is_not_offered_is_refused_by_name(name: str, view: View):
    data = shared(name)
    for ask in (data.splits, data.spec):
        with pytest.raises(ConfigError, match=rf"^dataset={name} offers no view '{view.value}', only "):
            ask(view)


@pytest.mark.parametrize("name", DATASETS.names())
def test_it_can_be_checked_before_any_work(name: str):
    assert shared(name).check() is None


def test_the_real_mnist_has_its_official_sizes(real_mnist: Path):
    splits = DATASETS.build(DATASETS.schema("mnist")(root=str(real_mnist))).splits(View.labelled)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (55_000, 5_000, 10_000)
    assert splits.test.y.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@pytest.mark.parametrize("name", [name for name in DATASETS.names() if "equation" in vars(DATASETS.get(name))])
def test_an_equation_with_its_true_values_is_the_field(name: str):
    data: Any = build(name, **({"growth": 0.7} if name == "diffusion" else {}))
    equation = data.spec(View.trajectories).equation
    assert equation.truth.keys() == equation.parameters.keys()
    t, y = torch.tensor(0.5), data.splits(View.trajectories).test.ys[:, 0]
    torch.testing.assert_close(equation.form(t, y, **equation.truth), data.vector_field(t, y))
