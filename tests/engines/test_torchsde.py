"""The engine of stochastic equations: known solutions, orders, gradients, counts, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from node_runner.adjoints import ADJOINTS
from node_runner.engines import ENGINES
from node_runner.engines.torchsde import in_steps
from node_runner.errors import ConfigError
from node_runner.models.parts.stochastic import Diagonal, Equation, Guided
from node_runner.settings import ToleranceConfig
from node_runner.solving import Solve, Tolerances
from node_runner.types import Solution
from tests.problems import make_method


torchsde = pytest.importorskip("torchsde", reason="torchsde is not installed: pip install 'node-runner[sde]'")

STRONG_ORDER = {"euler_maruyama": 0.5, "milstein": 1.0, "srk": 1.5, "reversible_heun": 0.5}


class Linear(nn.Module):
    """a y, as a drift or as a diffusion, with a to be learned."""

    def __init__(self, a: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a, dtype=torch.float64))

    def forward(self, *arguments: Tensor) -> Tensor:
        return self.a * arguments[-1]


def solver(name: str, adjoint: str = "off", engine: str = "auto", step_size: float | None = None) -> Solve:
    method = make_method(name) if step_size is None else make_method(name, step_size=step_size)
    return Solve(ENGINES.get(engine)(), method, ADJOINTS.get(adjoint)(), Tolerances(ToleranceConfig()))


def network(dim: int, out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(dim, 6), nn.Tanh(), nn.Linear(6, out)).double()


class Steered(nn.Module):
    """A drift that depends on time, on the state and on a tensor beside the parameters."""

    def __init__(self, control: Tensor) -> None:
        super().__init__()
        self.control = control
        self.net = network(3, 2)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(torch.cat((y, t.expand(len(y), 1)), dim=1)) + self.control


class Autonomous(nn.Module):
    """A drift of the state alone."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network(2, 2)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(y)


def steered(entropy: int = 5) -> tuple[Guided, Tensor]:
    """A posterior beside its prior, on two coordinates, and the tensor that steers it."""
    torch.manual_seed(1)
    control = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    return Guided(Steered(control), Autonomous(), Diagonal(2, 5, 0.7).double(), entropy, (control,)), control


@pytest.mark.parametrize("name", STRONG_ORDER)
def test_paths_converge_to_those_of_geometric_brownian_motion(name: str):
    # dy = a y dt + b y dW in the sense of Ito: y = y0 exp((a - b^2 / 2) t + b W). The last W does not depend on steps.
    a, b, count = 0.6, 0.8, 400
    y0 = torch.ones(count, 1, dtype=torch.float64)
    errors = []
    sizes = [0.25, 0.0625, 0.015625] if name != "srk" else [0.5, 0.25, 0.125]
    for size in sizes:
        with torch.no_grad():
            equation = Equation(Linear(a), Linear(b), entropy=11)
            ys = solver(name, step_size=size)(equation, y0, torch.tensor([0.0, 1.0], dtype=torch.float64)).ys
        steps = round(1 / size)
        area = "space-time" if name == "srk" else "none"
        path = torchsde.BrownianInterval(
            0.0, float(steps), size=y0.shape, dtype=y0.dtype, entropy=11, levy_area_approximation=area
        )
        w = path(0.0, float(steps)) * math.sqrt(size)
        exact = torch.exp(a - b**2 / 2 + b * w)
        errors.append(float((ys[-1] - exact).square().mean().sqrt()))
    ratio = sizes[0] / sizes[-1]
    order = math.log(errors[0] / errors[-1]) / math.log(ratio)
    assert order > STRONG_ORDER[name] - 0.15, (errors, order)
    assert errors[-1] < 0.25


@pytest.mark.parametrize("name", STRONG_ORDER)
def test_means_and_variances_are_those_of_an_ornstein_uhlenbeck_process(name: str):
    count, rate, size = 4000, 1.0, 0.5
    volatility = Diagonal(1, 0, size).double()
    ts = torch.linspace(0, 2, 41, dtype=torch.float64)
    with torch.no_grad():
        y0 = torch.ones(count, 1, dtype=torch.float64)
        ys = solver(name)(Equation(Linear(-rate), volatility, entropy=3), y0, ts).ys
    mean, variance = ys.mean(dim=1)[:, 0], ys.var(dim=1)[:, 0]
    exact = size**2 / (2 * rate) * (1 - torch.exp(-2 * rate * ts))
    assert float((mean - torch.exp(-rate * ts)).abs().max()) < 0.03
    assert float((variance - exact).abs().max()) < 0.012


@pytest.mark.parametrize("name", STRONG_ORDER)
def test_one_key_gives_one_path_and_another_key_another(name: str):
    ts = torch.tensor([0.0, 0.1, 0.2, 0.3])
    y0 = torch.ones(3, 2)
    one, same, other = (
        solver(name)(Equation(Linear(-1.0), Diagonal(2, 0, 0.5), entropy=key), y0, ts).ys.detach() for key in (4, 4, 5)
    )
    assert torch.equal(one, same)
    assert not torch.allclose(one[1:], other[1:])
    assert not torch.allclose(one[-1, 0], one[-1, 1])


@pytest.mark.parametrize(("name", "adjoint"), [*((name, "off") for name in STRONG_ORDER), ("reversible_heun", "on")])
def test_gradients_agree_with_finite_differences_on_one_path(name: str, adjoint: str):
    equation, control = steered()
    ts = torch.tensor([0.0, 0.3, 0.6, 0.9], dtype=torch.float64)
    y0 = torch.cat((torch.randn(4, 2), torch.zeros(4, 1)), dim=1).double().requires_grad_()
    solve = solver(name, adjoint, step_size=0.15)

    def loss() -> Tensor:
        ys = solve(equation, y0, ts).ys
        return ys[1:, :, :2].square().mean() + ys[-1, :, 2].mean()

    loss().backward()
    for parameter in [*equation.parameters(), control, y0]:
        place = int(parameter.grad.abs().argmax())  # type: ignore[union-attr]
        changed = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                parameter.view(-1)[place] += step
                changed.append(float(loss()))
                parameter.view(-1)[place] -= step
        difference = (changed[0] - changed[1]) / 2e-5
        found = float(parameter.grad.view(-1)[place])  # type: ignore[union-attr]
        assert found == pytest.approx(difference, rel=1e-5, abs=1e-7)


def gradient(name: str, adjoint: str, step_size: float) -> Tensor:
    equation, control = steered()
    y0 = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
    ts = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    ys = solver(name, adjoint, step_size=step_size)(equation, y0, ts).ys
    (ys[1:, :, :2].square().mean() + ys[-1, :, 2].mean()).backward()
    return torch.cat([p.grad.flatten() for p in [*equation.parameters(), control, y0]])  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["euler_maruyama", "milstein", "srk"])
def test_the_continuous_adjoint_approaches_the_discrete_gradient_as_steps_shrink(name: str):
    distances = []
    for size in (0.25, 0.25 / 8):
        discrete, continuous = (gradient(name, adjoint, size) for adjoint in ("off", "on"))
        distances.append(float((continuous - discrete).norm() / discrete.norm()))
    assert distances[1] < 0.6 * distances[0]
    assert distances[1] < 0.15


def test_a_constant_control_moves_the_drift_and_costs_half_its_square():
    class Constant(nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.value = value

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return torch.full_like(y, self.value)

    volatility = Diagonal(2, 0, 0.5).double()
    # g = 1/2: a control of 1.2 adds 0.6 to the drift. Two coordinates: |u|^2 = 2 * 1.44.
    guided, plain = (Guided(Constant(u), Constant(h), volatility, entropy=1) for u, h in ((1.2, 1.0), (0.0, 1.6)))
    ts = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    with torch.no_grad():
        one, other = (solver("euler_maruyama")(each, torch.zeros(3, 3).double(), ts).ys for each in (guided, plain))
    torch.testing.assert_close(one[..., :2], other[..., :2])
    torch.testing.assert_close(one[..., 2], (ts * 1.44).unsqueeze(1).expand(3, 3))
    assert not other[..., 2].any()


def test_a_constant_diffusion_has_its_gradient_by_the_adjoint():
    found = []
    for adjoint in ("off", "on"):
        torch.manual_seed(0)
        volatility = Diagonal(2, 0, 0.5).double()
        ts = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
        equation = Equation(Autonomous(), volatility, entropy=1)
        ys = solver("reversible_heun", adjoint)(equation, torch.ones(3, 2).double(), ts).ys
        ys.square().mean().backward()
        found.append(volatility.bias.grad)
    torch.testing.assert_close(*found)


# --- steps and counts ------------------------------------------------------------------------------


def test_an_even_grid_is_met_by_whole_steps():
    for dtype in (torch.float32, torch.float64):
        grid = in_steps(torch.linspace(1.0, 4.0, 61, dtype=dtype), None)
        assert grid.places.tolist() == list(range(61))
        assert grid.step == pytest.approx(0.05, rel=1e-6)
        assert grid.start == 1.0
    assert in_steps(torch.linspace(0, 1, 11), 0.03).places.tolist() == [4 * k for k in range(11)]
    assert in_steps(torch.linspace(0, 1, 11), 0.1).places.tolist() == list(range(11))


def test_an_uneven_grid_has_the_step_of_its_shortest_gap_or_less():
    ts = torch.tensor([0.0, 0.2, 0.5], dtype=torch.float64)
    assert in_steps(ts, None).places.tolist() == pytest.approx([0, 1, 2.5])
    assert in_steps(ts, 0.1).places.tolist() == pytest.approx([0, 2, 5])
    with pytest.raises(ConfigError, match="forward in time"):
        in_steps(ts.flip(0), None)


class Counted(Equation):
    """Counts its own evaluations."""

    calls = 0

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(t, y)

    def diffusion(self, t: Tensor, y: Tensor) -> Tensor:
        self.calls += 1
        return super().diffusion(t, y)


@pytest.mark.parametrize("adjoint", ["off", "on"])
@pytest.mark.parametrize("name", STRONG_ORDER)
def test_every_evaluation_of_drift_and_diffusion_is_counted(name: str, adjoint: str):
    equation = Counted(Linear(-1.0), Diagonal(2, 3, 0.5).double(), entropy=2)
    y0 = torch.ones(3, 2, dtype=torch.float64)
    solution: Solution = solver(name, adjoint)(equation, y0, torch.linspace(0, 1, 6, dtype=torch.float64))
    forward = equation.calls
    assert solution.stats.nfe_forward == forward >= 10
    assert (solution.stats.accepted, solution.stats.rejected, solution.stats.nfe_backward) == (5, 0, 0)
    solution.ys.square().mean().backward()
    assert solution.stats.nfe_forward == forward
    assert solution.stats.nfe_backward == equation.calls - forward
    assert (solution.stats.nfe_backward > 0) is (adjoint == "on")
    assert solution.stats.accepted_backward == (5 if adjoint == "on" else 0)


# --- refusals --------------------------------------------------------------------------------------


def stochastic_solve(name: str, **settings: str) -> Solution:
    equation = Equation(Linear(-1.0), Diagonal(2, 0, 0.5).double(), entropy=1)
    return solver(name, **settings)(equation, torch.ones(3, 2).double(), torch.tensor([0.0, 1.0]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "dopri5"}, "solver=dopri5 is for ordinary .*: use solver=euler_maruyama"),
        ({"name": "srk", "adjoint": "checkpoint"}, "adjoint=checkpoint needs an explicit Runge-Kutta method"),
        ({"name": "srk", "adjoint": "seminorm"}, "adjoint=seminorm .*: use adjoint=on"),
        ({"name": "srk", "engine": "native"}, "engine=native .* solver=srk is none here; use engine=auto"),
        ({"name": "srk", "engine": "torchdiffeq"}, "engine=torchdiffeq .* solver=srk stochastic ones; use engine=auto"),
        ({"name": "dopri5", "engine": "torchsde"}, "engine=torchsde .* solver=dopri5 ordinary ones; use engine=auto"),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else "",
)
def test_what_cannot_serve_is_refused_in_a_sentence(settings: dict[str, str], message: str):
    with pytest.raises(ConfigError, match=message) as caught:
        stochastic_solve(**settings)
    assert "\n" not in str(caught.value)


def test_an_ordinary_field_is_refused():
    with pytest.raises(ConfigError, match=r"solver=srk is for stochastic equations, .*: use solver=dopri5"):
        solver("srk")(Linear(-1.0), torch.ones(3, 2).double(), torch.tensor([0.0, 1.0]))


def test_without_torchsde_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("node_runner.engines.torchsde.find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        solver("srk")
    assert str(caught.value) == (
        "solver=srk needs torchsde, which is not installed: use `pip install 'node-runner[sde]'`"
    )
