import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from sklearn.datasets import make_moons

from node_runner.datasets.parts.shapes import RADII, SHAPES


WITH_DENSITY = [
    ("eight_gaussians", None),
    ("checkerboard", None),
    ("checkerboard", 0.3),
    ("rings", None),
    ("rings", 0.3),
]


def draw(shape: str, n: int, noise: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    chosen = SHAPES[shape]
    return chosen.sample(np.random.default_rng(0), n, chosen.noise if noise is None else noise)


def log_prob(shape: str, x: torch.Tensor, noise: float | None = None) -> torch.Tensor:
    chosen = SHAPES[shape]
    return chosen.log_prob(x, chosen.noise if noise is None else noise)


@pytest.mark.parametrize("shape", SHAPES)
def test_samples_are_pairs_of_about_four_at_most_with_every_class_equally_often(shape):
    x, y = draw(shape, 8000)
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((8000, 2), np.float64, (8000,), np.int64)
    assert 2.0 < abs(x).max() < 6.0
    share = np.bincount(y, minlength=SHAPES[shape].num_classes) * SHAPES[shape].num_classes / 8000
    assert len(share) == SHAPES[shape].num_classes
    np.testing.assert_allclose(share, 1.0, atol=0.15)


@pytest.mark.parametrize(("shape", "noise"), WITH_DENSITY)
def test_the_density_integrates_to_one(shape, noise):
    # The midpoint rule on [-6, 6]^2 at a spacing of 0.04, whose lines meet the edges of the checkerboard.
    line = torch.arange(-6 + 0.02, 6, 0.04, dtype=torch.float64)
    mass = sum(log_prob(shape, torch.cartesian_prod(rows, line), noise).exp().sum().item() for rows in line.chunk(8))
    torch.testing.assert_close(mass * 0.04**2, 1.0, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("shape", "noise"), WITH_DENSITY)
def test_the_density_is_that_of_the_samples(shape, noise):
    # The share of samples in each cell of a 12 x 12 grid against the integral of the density over it.
    n, fine = 40_000, 10
    x, _ = draw(shape, n, noise)
    counted, *_ = np.histogram2d(*x.T, bins=12, range=[(-6, 6), (-6, 6)])
    line = torch.arange(-6 + 0.5 / fine, 6, 1 / fine, dtype=torch.float64)
    density = log_prob(shape, torch.cartesian_prod(line, line), noise).exp()
    expected = n * density.reshape(12, fine, 12, fine).mean(dim=(1, 3)).numpy()
    # Counts scatter by the root of their expectation; the coarse integral adds a few per cent in rings.
    assert (abs(counted - expected) < 5 * np.sqrt(expected + 1) + 0.04 * expected).all()


@pytest.mark.parametrize("shape", ["eight_gaussians", "rings"])
def test_without_noise_there_is_no_density(shape):
    assert log_prob(shape, torch.zeros(1, 2), noise=0.0) is None


@pytest.mark.parametrize(("shape", "noise"), WITH_DENSITY)
def test_the_density_keeps_the_type_of_its_argument(shape, noise):
    x = torch.tensor([[1.0, 1.0], [3.0, 0.1]])
    single, double = log_prob(shape, x, noise), log_prob(shape, x.double(), noise)
    assert (single.dtype, double.dtype, single.shape) == (torch.float32, torch.float64, (2,))
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-4)


def test_the_board_is_dark_on_one_diagonal_and_empty_on_the_other():
    x = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [3.0, -1.0], [-3.0, 1.0], [1.0, -1.0], [5.0, 5.0]])
    expected = torch.tensor([-math.log(32)] * 4 + [-math.inf] * 2)
    # (1, 1) lies in column 0 and row 0, (-3, 1) in column -2 and row 0.
    torch.testing.assert_close(log_prob("checkerboard", x), expected)


def test_a_blurred_board_tends_to_the_sharp_one_inside_its_squares_and_falls_off_evenly():
    inside = torch.tensor([[1.0, 1.0], [-3.0, -3.0]], dtype=torch.float64)
    torch.testing.assert_close(log_prob("checkerboard", inside, 0.01), log_prob("checkerboard", inside, 0.0))
    corners = torch.tensor([[5.0, 5.0], [-5.0, -5.0]], dtype=torch.float64)
    left, right = log_prob("checkerboard", corners, 0.1)
    assert left.isfinite()
    torch.testing.assert_close(left, right)
    # Ten deviations off the corner of one square: the tail of the normal distribution, squared.
    torch.testing.assert_close(left.item(), 2 * math.log(7.61985e-24) - math.log(32), rtol=1e-6, atol=0)


def test_two_moons_are_those_of_scikit_learn_scaled():
    theirs, label = make_moons(2000, noise=None)
    theirs = 2 * theirs + (-1.0, -0.2)
    ours, y = draw("two_moons", 2000, noise=0.0)
    for moon in (0, 1):
        for axis in (0, 1):
            assert kstest(ours[y == moon, axis], theirs[label == moon, axis]).pvalue > 1e-3


def test_the_moons_lie_on_their_half_circles_and_noise_spreads_them():
    x, y = draw("two_moons", 4000, noise=0.0)
    centre = np.where(y[:, None] == 0, (-1.0, -0.2), (1.0, 0.8))
    np.testing.assert_allclose(np.linalg.norm(x - centre, axis=1), 2.0, rtol=1e-12)
    assert (x[y == 0, 1] >= -0.2).all() and (x[y == 1, 1] <= 0.8).all()
    noisy, _ = draw("two_moons", 4000)
    np.testing.assert_allclose((noisy - x).std(axis=0), 0.2, rtol=0.05)


def test_gaussians_stand_on_a_circle_with_their_spread():
    x, y = draw("eight_gaussians", 8000)
    for mode in range(8):
        angle = mode * math.pi / 4
        centre = math.sqrt(8) * np.array([math.cos(angle), math.sin(angle)])
        np.testing.assert_allclose(x[y == mode].mean(axis=0), centre, atol=0.05)
        np.testing.assert_allclose(x[y == mode].std(axis=0), 0.5 / math.sqrt(2), rtol=0.1)


def test_rings_have_their_radii():
    x, y = draw("rings", 1000, noise=0.0)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), RADII[y], rtol=1e-12)


def test_the_arms_of_the_pinwheel_are_one_turned_by_fifths():
    x, y = draw("pinwheel", 20_000, noise=0.0)
    radius, angle = np.linalg.norm(x, axis=1) / 2, np.arctan2(-x[:, 1], x[:, 0])
    out = radius > 0.5  # nearer to the centre a negative radius is on the other side
    bend = angle[out] - 0.25 * np.exp(radius[out]) - 2 * np.pi / 5 * y[out]
    np.testing.assert_allclose(np.cos(bend), 1.0, atol=1e-9)
    np.testing.assert_allclose(radius.mean(), 1.0, atol=0.01)
    np.testing.assert_allclose(radius.std(), 0.3, rtol=0.03)


def test_the_spirals_are_one_another_turned_by_half_a_turn():
    x, y = draw("spirals", 4000, noise=0.0)
    one = np.where(y[:, None] == 0, x, -x)
    # The uniform thickness of 0.5 / 3 on both axes displaces a point by at most its diagonal.
    radius, turn = np.linalg.norm(one, axis=1), np.arctan2(one[:, 1], -one[:, 0])
    nearest = (3 * radius - turn) / (2 * np.pi)
    residual = abs(nearest - nearest.round()) * 2 * np.pi / 3
    assert (residual[radius > 1] < 0.5 / 3 * math.sqrt(2) * 1.5).all()
    assert 3.0 < radius.max() < np.pi + 0.3
