import pytest
import torch

from node_runner.datasets.annuli import Annuli
from node_runner.errors import ConfigError
from node_runner.views import View


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a_ball_lies_inside_a_shell_and_both_are_uniform(dim: int):
    data = Annuli(dim=dim, train=20_000, inner=0.5, gap_end=1.0, outer=1.5)
    part = data.splits(View.labelled).train
    radius = part.x.norm(dim=1)
    ball, shell = radius[part.y == 0], radius[part.y == 1]
    assert float(ball.max()) <= 0.5
    assert 1.0 <= float(shell.min()) and float(shell.max()) <= 1.5
    assert len(ball) / len(radius) == pytest.approx(0.5, abs=0.02)
    # Uniform: the share of the volume within half the thickness.
    assert float((ball < 0.25).double().mean()) == pytest.approx(0.5**dim, abs=0.02)
    inside = (1.25**dim - 1) / (1.5**dim - 1)
    assert float((shell < 1.25).double().mean()) == pytest.approx(inside, abs=0.02)
    # No direction is preferred.
    assert torch.allclose(part.x.mean(0), torch.zeros(dim, dtype=torch.float64), atol=0.04)
    assert data.spec(View.labelled).shape == (dim,)


def test_radii_that_do_not_increase_are_refused():
    with pytest.raises(ConfigError, match="use radii that increase"):
        Annuli(inner=1.0, gap_end=0.5)
