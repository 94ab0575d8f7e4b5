"""Maps from grey levels to the space of a flow: densities by hand, by autograd, and what the data become."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from node_runner.errors import ConfigError
from node_runner.models.cnf import standard_normal
from node_runner.models.parts.pixels import Gaussianised, Whitened, pixel_map
from node_runner.settings import Pixels
from node_runner.views import View
from tests.models.builders import spec
from tests.models.test_scaling import log_det_by_autograd


LEVELS = 6


def images(count: int) -> Tensor:
    """(count, 4) levels: the second pixel follows the first, the third is all but always 0, the last is free."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randint(0, LEVELS, (count,), generator=generator)
    second = (first + torch.randint(0, 2, (count,), generator=generator)).clamp(max=LEVELS - 1)
    third = LEVELS // 2 * (torch.rand(count, generator=generator) < 1e-3)
    return torch.stack((first, second, third, torch.randint(0, 3, (count,), generator=generator)), dim=1)


def shares(x: Tensor) -> Tensor:
    return torch.stack([torch.bincount(pixel, minlength=LEVELS) / len(x) for pixel in x.T]).double()


def continuous(x: Tensor) -> Tensor:
    return x + torch.rand(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


MAPS: dict[str, nn.Module] = {
    "gaussianised": Gaussianised(shares(images(500))),
    "whitened": Whitened(Gaussianised(shares(images(500))), images(500)),
}


@pytest.mark.parametrize("name", MAPS)
def test_the_log_determinant_is_that_of_autograd_s_jacobian(name: str):
    x = continuous(images(8))
    _, log_det = MAPS[name](x)
    torch.testing.assert_close(log_det, log_det_by_autograd(MAPS[name], x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", MAPS)
def test_the_inverse_undoes_it(name: str):
    x = torch.rand(500, 4, dtype=torch.float64) * LEVELS  # every level of every pixel, seen or not
    z, _ = MAPS[name](x)
    torch.testing.assert_close(MAPS[name].inverse(z), x, rtol=0, atol=1e-9)


def test_in_single_precision_a_rare_level_is_told_from_its_neighbours_at_both_ends_of_the_scale():
    often = torch.tensor([[1 - 5e-4, *[1e-4] * 5], [*[1e-4] * 5, 1 - 5e-4]])
    scaling = Gaussianised(often).float()
    x = torch.tensor([[1.5, 0.5], [3.5, 2.5], [5.5, 4.5]])
    z, _ = scaling(x)
    torch.testing.assert_close(scaling.inverse(z), x, rtol=0, atol=1e-2)


def test_the_density_of_independent_normals_is_the_share_of_each_level():
    x, unseen = images(8), 0.1
    z, log_det = Gaussianised(shares(images(500)), unseen=unseen)(continuous(x))
    probability = (1 - unseen) * shares(images(500)) + unseen / LEVELS
    expected = torch.stack([probability[torch.arange(4), levels].log().sum() for levels in x])
    torch.testing.assert_close(standard_normal(z) + log_det, expected)


def test_every_pixel_is_standard_normal():
    x = images(50_000)
    z, _ = Gaussianised(shares(x))(continuous(x))
    at = torch.tensor([0.01, 0.1, 0.5, 0.9, 0.99], dtype=torch.float64)
    expected = torch.special.ndtri(at).unsqueeze(1).expand(5, 4)
    torch.testing.assert_close(z.quantile(at, dim=0), expected, rtol=0, atol=0.04)


def test_whitened_pixels_are_uncorrelated_and_have_deviation_one():
    x = images(50_000)
    pixels = Gaussianised(shares(x))
    before, _ = pixels(continuous(x))
    assert before.T.cov()[0, 1] > 0.8
    z, _ = Whitened(pixels, x)(continuous(x))
    torch.testing.assert_close(z.T.cov(), torch.eye(4, dtype=torch.float64), rtol=0, atol=0.03)


def test_pixels_that_are_copies_of_one_another_are_whitened_too():
    x = torch.arange(2).repeat(50).unsqueeze(1).repeat(1, 2)
    z, log_det = Whitened(Gaussianised(shares(x)), x)(continuous(x))
    assert z.isfinite().all()
    assert log_det.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_ends_of_the_grey_scale_stay_finite(dtype: torch.dtype):
    scaling = Gaussianised(shares(images(500))).to(dtype)
    x = torch.tensor([[0.0], [float(LEVELS)]], dtype=dtype).expand(2, 4)
    z, log_det = scaling(x)
    assert z.isfinite().all()
    assert log_det.isfinite().all()
    torch.testing.assert_close(scaling.inverse(z), x)


@pytest.mark.parametrize(
    ("pixels", "given", "lacking"),
    [
        (Pixels.gaussianised, {}, "the share of each grey level"),
        (Pixels.whitened, {"frequencies": shares(images(9))}, "the training images"),
    ],
)
def test_data_that_do_not_tell_what_a_map_is_fitted_to_are_refused(
    pixels: Pixels, given: dict[str, Tensor], lacking: str
):
    data = spec(View.points, (4,), levels=LEVELS, image=(1, 2, 2), **given)
    with pytest.raises(ConfigError, match=f"model.pixels={pixels.value} is fitted to {lacking}.*use model.pixels="):
        pixel_map(data, pixels)
