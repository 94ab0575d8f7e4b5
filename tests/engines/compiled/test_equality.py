"""The compiled engine against torchdiffeq."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from node_runner.adjoints import ADJOINTS
from node_runner.engines.compiled.convolutions import LEAST_IMAGES
from node_runner.engines.compiled.engine import CompiledEngine
from node_runner.engines.compiled.inductor import missing
from node_runner.engines.compiled.loops import AtOnce
from node_runner.fields.concatsquash import ConcatSquash
from node_runner.fields.conv import Conv
from node_runner.fields.mlp import MLP
from node_runner.models.cde import Driven
from node_runner.models.parts.control import through
from node_runner.models.parts.dynamics import Hutchinson, Shifted, Widened, divergence_exact, leading_norm
from node_runner.regularisers.jacobian import Jacobian
from node_runner.regularisers.kinetic import Kinetic
from node_runner.settings import Activation, Capture, ControlPath, Interpolation, ToleranceConfig
from node_runner.solving import Solve, Tolerances
from tests.engines.equality import (
    CONTROLS,
    DIM,
    FORWARD,
    GRADIENTS,
    GRIDS,
    TIMES,
    answer,
    assert_equal_to_torchdiffeq,
    scaled,
)
from tests.problems import METHODS, differentiable, engine_named, make_method


ADAPTIVE = [name for name, method in METHODS.items() if method.tableau is not None and method.adaptive]
FIXED = [name for name, method in METHODS.items() if method.tableau is not None and not method.adaptive]

compiles = pytest.mark.skipif(missing("cpu") is not None, reason=str(missing("cpu")))


def mlp() -> nn.Module:
    return scaled(MLP((DIM,), width=6, depth=1, activation=Activation.tanh, time_dependent=True).double())


def images() -> nn.Module:
    return Conv((4, 3, 3), activation=Activation.tanh).double()


def widened(*names: str, field: nn.Module | None = None, batch: int = 5) -> Widened:
    """A field with integrals beside its state, by name."""
    y = torch.zeros(batch, DIM, dtype=torch.float64)
    made = {
        "exact": lambda: divergence_exact,
        "hutchinson": lambda: Hutchinson(torch.randn(batch, DIM, dtype=torch.float64)),
        "kinetic": lambda: Kinetic().begin(y),
        "jacobian": lambda: Jacobian().begin(y),
    }
    return Widened(field or mlp(), (DIM,), [made[name]() for name in names])


def equal(
    field: nn.Module, shape: tuple[int, ...] = (5, DIM), *, engine: CompiledEngine | None = None, **setting: Any
) -> None:
    assert_equal_to_torchdiffeq(engine or CompiledEngine.uncompiled(), field, shape, **setting)


# --- the steps as they are written ------------------------------------------------------------------


WALKS = {
    "step-by-step": {"loop_up_to": 0},
    "loops": {"at_once_up_to": 0},
}
"""Settings of the engine for each way through a solve."""


@pytest.mark.slow
@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("adjoint", GRADIENTS)
@pytest.mark.parametrize(("name", "times"), [*((name, "forward") for name in ADAPTIVE), ("dopri5", "backward")])
def test_adaptive_methods(name: str, times: str, adjoint: str, walk: str):
    engine = CompiledEngine.uncompiled(**WALKS[walk])
    equal(mlp(), ts=TIMES[times], adjoint=adjoint, name=name, engine=engine)


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("adjoint", ["off", "on"])
def test_captured_loops_but_for_the_capture(adjoint: str, times: str):
    engine = CompiledEngine.uncompiled(at_once_up_to=0, capture=Capture.eager)
    equal(mlp(), ts=TIMES[times], adjoint=adjoint, engine=engine)


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("name", ["bosh3", "adaptive_heun"])
def test_the_gradients_of_all_steps_at_once(name: str, times: str, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", logger="node_runner")
    # adaptive_heun takes more steps than one run of a loop holds, and their gradient goes from one to the next.
    equal(mlp(), (1, DIM), ts=TIMES[times], name=name, engine=CompiledEngine.uncompiled(at_once_from=0))
    assert "step by step" not in caplog.text


@pytest.mark.slow
def test_the_gradients_of_all_steps_at_once_where_the_field_differentiates_itself(caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", logger="node_runner")
    wide = widened("hutchinson", field=scaled(ConcatSquash((DIM,), width=5, depth=1).double()), batch=1)
    equal(wide, (1, DIM + 1), name="fehlberg2", engine=CompiledEngine.uncompiled(at_once_from=0))
    assert "step by step" not in caplog.text


@pytest.mark.parametrize(("steps", "together"), [(23, False), (24, True)])
def test_gradients_are_found_at_once_in_long_solves_only(steps: int, together: bool, monkeypatch: pytest.MonkeyPatch):
    found: list[bool] = []
    run = AtOnce.run
    monkeypatch.setattr(AtOnce, "run", lambda self, *given: (found.append(True), run(self, *given))[1])
    ts = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    equal(mlp(), (1, DIM), ts=ts, name="rk4", engine=CompiledEngine.uncompiled())
    assert bool(found) is together


def test_steps_that_cannot_be_batched_are_differentiated_one_by_one(caplog: pytest.LogCaptureFixture):
    class Written(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(DIM, dtype=torch.float64))

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            changed = y.clone()
            changed[:, 0] = torch.sin(t)
            return torch.tanh(-self.weight * changed.cumsum(-1))

    with caplog.at_level("INFO", logger="node_runner"):
        equal(Written(), (1, DIM), name="bosh3", engine=CompiledEngine.uncompiled(at_once_from=0))
    assert "step by step" in caplog.text


@pytest.mark.parametrize("at_once", [0, 8], ids=["one by one", "at once"])
@pytest.mark.parametrize("adjoint", GRADIENTS[:2])
def test_more_steps_between_two_outputs_than_a_loop_writes_down(adjoint: str, at_once: int):
    engine = CompiledEngine(at_once_up_to=at_once, at_once_from=0)
    engine._compiles = False
    equal(mlp(), (2, DIM), ts=FORWARD[::6], adjoint=adjoint, name="adaptive_heun", engine=engine)


class Response(nn.Module):
    """z (B, H) -> (B, H, 2): what a path of two channels does to it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(DIM, 2 * DIM, dtype=torch.float64)

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        return torch.tanh(self.layer(z)).view(-1, DIM, 2)


@pytest.mark.parametrize("adjoint", GRADIENTS[:3])
def test_paths_that_drive_the_field_are_those_of_the_batch(adjoint: str):
    response, knots, engine = Response(), torch.linspace(0, 2, 5, dtype=torch.float64), CompiledEngine.uncompiled()
    for _ in range(2):
        path = through(knots, torch.randn(5, 4, 2, dtype=torch.float64), ControlPath.hermite)
        driven = Driven(response, path)
        equal(driven, (4, DIM), engine=engine, adjoint=adjoint, name="midpoint", step_size=0.5, ts=knots[[0, 4]])


def test_what_a_solve_is_made_of_is_told_by_its_size():
    engine, state = CompiledEngine(), torch.zeros(4, 3)
    assert engine.loops(state, 100, "off")
    assert not engine.loops(state, 10**6, "off")
    assert engine.loops(state, 10**6, "checkpoint")
    assert engine.loops(state, 10**6, None)
    assert not engine.loops(torch.zeros(1000, 3), 100, "checkpoint")
    assert not engine.loops(state.to("meta"), 100, "off")  # on no device but the CPU without being told
    assert CompiledEngine(capture=Capture.compiled).loops(state.to("meta"), 100, "off")


@pytest.mark.slow
@GRIDS
@pytest.mark.parametrize("adjoint", GRADIENTS[:3])
@pytest.mark.parametrize(("name", "times"), [*((name, "forward") for name in FIXED), ("rk4", "backward")])
def test_fixed_steps(name: str, times: str, adjoint: str, options: dict[str, object]):
    equal(mlp(), ts=TIMES[times], adjoint=adjoint, name=name, **options)


FIXED_WALKS = {
    "step-by-step": ((5, DIM), {"loop_up_to": 0}),
    "at-once": ((1, DIM), {"at_once_from": 0}),
    "captured": ((5, DIM), {"capture": Capture.eager}),
}
"""The state's shape and settings of the engine, for each way through fixed steps but loops."""


@pytest.mark.slow
@pytest.mark.parametrize("walk", FIXED_WALKS)
@GRIDS
@pytest.mark.parametrize("adjoint", GRADIENTS[:2])
def test_other_ways_through_fixed_steps(adjoint: str, options: dict[str, object], walk: str):
    shape, settings = FIXED_WALKS[walk]
    engine = CompiledEngine.uncompiled(**settings)
    equal(mlp(), shape, ts=TIMES["backward"], adjoint=adjoint, name="heun3", engine=engine, **options)


@CONTROLS
@pytest.mark.parametrize("adjoint", GRADIENTS)
def test_options_of_the_step_control(adjoint: str, options: dict[str, object]):
    equal(mlp(), adjoint=adjoint, **options)


@pytest.mark.parametrize("times", [torch.linspace(0, 3, 200, dtype=torch.float64), FORWARD[:2]], ids=["many", "two"])
@pytest.mark.parametrize("adjoint", GRADIENTS[:2])
def test_any_number_of_output_times(adjoint: str, times: Tensor):
    equal(mlp(), ts=times, adjoint=adjoint)
    equal(mlp(), ts=times, adjoint=adjoint, name="rk4", step_size=0.05)
    equal(mlp(), ts=times, adjoint=adjoint, name="rk4", step_size=0.05, interp=Interpolation.cubic)


@pytest.mark.slow
@pytest.mark.parametrize("adjoint", GRADIENTS)
@pytest.mark.parametrize("integrals", [("exact",), ("hutchinson",), ("hutchinson", "kinetic", "jacobian")], ids=str)
def test_integrals_that_differentiate_the_field(integrals: tuple[str, ...], adjoint: str):
    wide = widened(*integrals, field=scaled(ConcatSquash((DIM,), width=5, depth=1).double()))
    norm = leading_norm(DIM + 1) if len(integrals) > 1 else None
    equal(wide, (5, DIM + len(integrals)), adjoint=adjoint, norm=norm)


@pytest.mark.parametrize("adjoint", GRADIENTS)
def test_images_and_samples_that_start_at_times_of_their_own(adjoint: str):
    start = torch.linspace(0, 1, 2, dtype=torch.float64)
    equal(Shifted(images(), start), (2, 4, 3, 3), ts=FORWARD[:3], adjoint=adjoint)


def test_the_first_step_is_torchdiffeq_s():
    # Its gradient differs: torchdiffeq differentiates its estimate of the first step.
    engines, method = (CompiledEngine.uncompiled(), engine_named("torchdiffeq")), make_method("dopri5")
    field = mlp()
    ours, theirs = (answer(e, method, "on", field, (5, DIM)) for e in engines)
    torch.testing.assert_close(ours.ys, theirs.ys, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ours.gradient, theirs.gradient, rtol=1e-8, atol=1e-10)
    assert ours.stats.nfe_forward == theirs.stats.nfe_forward
    assert ours.stats.nfe_backward == theirs.stats.nfe_backward


def test_a_tensor_in_a_closure_gets_its_gradient():
    weight = torch.randn(DIM, DIM, dtype=torch.float64, requires_grad=True)
    y0 = torch.randn(2, DIM, dtype=torch.float64, requires_grad=True)
    found = []
    for engine in ("compiled", "torchdiffeq"):
        solve = differentiable(make_method("dopri5", first_step=0.1), "off", engine=engine)
        ys = solve(lambda t, y: torch.tanh(y @ weight) * torch.cos(t), y0, FORWARD).ys
        found.append(torch.autograd.grad(ys.sin().sum(), [weight, y0]))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


# --- compiled -----------------------------------------------------------------------------------------


@compiles
@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 5], ids=["at-once", "loops"])
def test_compiled_loops(size: int):
    equal(mlp(), (size, DIM), name="adaptive_heun", engine=CompiledEngine(at_once_from=0))


@pytest.mark.gpu
@pytest.mark.parametrize("capture", [Capture.eager, Capture.compiled], ids=lambda capture: capture.value)
def test_a_captured_loop(capture: Capture):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    method, field = make_method("dopri5", first_step=0.1), mlp()
    y0, ts = torch.randn(5, DIM, dtype=torch.float64), FORWARD
    found = []
    for device, engine in (("cuda", CompiledEngine(capture=capture)), ("cpu", CompiledEngine.uncompiled())):
        solve = Solve(engine, method, ADJOINTS.get("off")(), Tolerances(ToleranceConfig(rtol=1e-4, atol=1e-5)))
        own = field.to(device)
        solution = solve(own, y0.to(device), ts.to(device))
        gradients = torch.autograd.grad(solution.ys.square().mean(), list(own.parameters()))
        counts = solution.stats.accepted, solution.stats.rejected
        found.append((counts, solution.ys.detach().cpu(), [g.cpu() for g in gradients]))
    assert found[0][0] == found[1][0]
    torch.testing.assert_close(found[0][1:], found[1][1:], rtol=1e-10, atol=1e-10)


@compiles
@pytest.mark.slow
def test_compiled_fixed_steps_that_are_computed_again():
    equal(mlp(), name="midpoint", adjoint="checkpoint", engine=CompiledEngine())


@compiles
@pytest.mark.slow
def test_compiled_convolutions():
    equal(images(), (LEAST_IMAGES, 4, 3, 3), ts=FORWARD[:3], name="midpoint", engine=CompiledEngine())


@compiles
@pytest.mark.slow
@pytest.mark.parametrize("adjoint", ["off", "on"])
def test_compiled_flows_draw_new_noise_for_every_solve_and_are_compiled_once(adjoint: str):
    engine = CompiledEngine()
    spent = []
    for _ in range(2):  # the second time with other weights and other noise
        field = scaled(MLP((DIM,), width=6, depth=1, activation=Activation.tanh).double())
        wide = widened("hutchinson", field=field)
        equal(wide, (5, DIM + 1), name="adaptive_heun", adjoint=adjoint, engine=engine)
        spent.append(engine.compile_seconds)
    assert spent[0] == spent[1]
