"""Maps from data to the space of a flow, against autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from node_runner.models.parts.scaling import Logit, Standardise


def log_det_by_autograd(scaling: nn.Module, x: Tensor) -> Tensor:
    return torch.stack([
        torch.autograd.functional.jacobian(lambda v: scaling(v[None])[0][0], row).slogdet().logabsdet for row in x
    ])  # fmt: skip


SCALINGS = {
    "standardise": Standardise(
        torch.tensor([1.0, -2.0, 0.0], dtype=torch.float64), torch.tensor([0.5, 3.0, 1e-3], dtype=torch.float64)
    ),
    "standardise-by-scalars": Standardise(torch.tensor(0.3).double(), torch.tensor(0.2).double()),
    "logit-256": Logit(256),
    "logit-17": Logit(17, a=0.01),
    "logit-17-by-pixel": Logit(17, torch.rand(3, 17, dtype=torch.float64).softmax(dim=1)),
}


def points(name: str) -> Tensor:
    scale = {"logit-256": 256, "logit-17": 17, "logit-17-by-pixel": 17}.get(name, 4)
    return torch.rand(8, 3, dtype=torch.float64) * scale


@pytest.mark.parametrize("name", SCALINGS)
def test_the_log_determinant_is_that_of_autograd_s_jacobian(name: str):
    x = points(name)
    _, log_det = SCALINGS[name](x)
    torch.testing.assert_close(log_det, log_det_by_autograd(SCALINGS[name], x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", SCALINGS)
def test_the_inverse_undoes_it(name: str):
    x = points(name)
    z, _ = SCALINGS[name](x)
    torch.testing.assert_close(SCALINGS[name].inverse(z), x, rtol=0, atol=1e-10)


def test_standardised_data_have_mean_zero_and_deviation_one():
    x = 3 + 2 * torch.randn(1000, 2, dtype=torch.float64)
    z, _ = Standardise(x.mean(0), x.std(0, correction=0))(x)
    torch.testing.assert_close(z.mean(0), torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-12)


def test_every_pixel_has_mean_zero_and_deviation_one():
    levels = torch.tensor([[0, 0, 3], [0, 4, 1], [0, 2, 3], [0, 2, 3]])
    frequencies = torch.stack([torch.bincount(pixel, minlength=5) / 4 for pixel in levels.T])
    x = levels.repeat(20_000, 1) + torch.rand(80_000, 3, dtype=torch.float64)
    z, _ = Logit(5, frequencies)(x)
    torch.testing.assert_close(z.mean(0), torch.zeros(3, dtype=torch.float64), rtol=0, atol=0.02)
    torch.testing.assert_close(z.std(0), torch.ones(3, dtype=torch.float64), rtol=0, atol=0.02)


@pytest.mark.parametrize("levels", [17, 256])
def test_the_ends_of_the_grey_scale_stay_finite(levels: int):
    scaling = Logit(levels)
    x = torch.tensor([[0.0, float(levels)]], dtype=torch.float64)
    z, log_det = scaling(x)
    assert z.isfinite().all()
    assert log_det.isfinite().all()
    torch.testing.assert_close(z, torch.logit(torch.tensor([[1e-5, 1 - 1e-5]], dtype=torch.float64)))
    assert scaling.inverse(torch.tensor([[-50.0, 50.0]])).tolist() == [[0.0, float(levels)]]
