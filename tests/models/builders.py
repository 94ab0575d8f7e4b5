"""Data specifications and hand-made fields for models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from node_runner.fields import FIELDS
from node_runner.learning import Regulariser
from node_runner.models import MODELS
from node_runner.types import Integrate
from node_runner.views import DataSpec, View
from tests.problems import differentiable, make_method


def spec(
    view: View, shape: tuple[int, ...], *, mean: Sequence[float] | float = 0.0, std: Sequence[float] | float = 1.0,
    **more: Any,
) -> DataSpec:  # fmt: skip
    """What a model is told of the data."""
    mean, std = (torch.tensor(x, dtype=torch.float64) for x in (mean, std))
    return DataSpec("made-up", view, shape, mean, std, **more)


def field_factory(name: str = "mlp", **settings: Any) -> Callable[..., nn.Module]:
    """Makes a field for a state shape, as a run's factory does."""

    def make(shape: tuple[int, ...], outputs: int | None = None) -> nn.Module:
        return FIELDS.get(name)(shape, **settings) if outputs is None else FIELDS.get(name)(shape, outputs, **settings)

    make.state_ndim = getattr(FIELDS.get(name), "state_ndim", 1)  # type: ignore[attr-defined]
    return make


def accurate_solve() -> Integrate:
    return differentiable(make_method("dopri5"), "off", rtol=1e-8, atol=1e-8)


def make_model(
    name: str,
    data: DataSpec,
    make_field: Callable[..., nn.Module],
    *,
    solve: Integrate | None = None,
    regularisers: dict[str, Regulariser] | None = None,
    **settings: Any,
) -> nn.Module:
    """A model, in float64."""
    built = MODELS.get(name)(data, make_field, solve or accurate_solve(), regularisers or {}, **settings)
    return built.double()


class LinearField(nn.Module):
    """dy/dt = y A^T + b, known in every respect."""

    time_dependent = False

    def __init__(self, a: Sequence[Sequence[float]], b: Sequence[float] | None = None) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a, dtype=torch.float64))
        self.b = nn.Parameter(torch.tensor(b or [0.0] * len(a), dtype=torch.float64))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return y @ self.a.T + self.b
