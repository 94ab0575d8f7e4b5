"""The drop-in against torchdiffeq, call by call: values, gradients, callbacks, events, warnings and errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchdiffeq
from torch import Tensor, nn

import node_runner
from tests.problems import AdaptiveStepCounter, FixedStepCounter, SmallField


TS = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
LOOSE = {"rtol": 1e-4, "atol": 1e-5}


class Field(SmallField):
    """A network that torchdiffeq's users write: it counts its calls."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.nfe = 0

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.nfe += 1
        return super().forward(t, y)


class Pair(nn.Module):
    """A tuple of states of different shapes, in both of which it is not linear."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor([0.7, -0.3], dtype=torch.float64))

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        a, b = state
        return self.rate * torch.sin(a) * torch.cos(t), -b * a.mean()


def start(shape: tuple[int, ...] = (4, 3)) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_(True)


def norm(y: Any) -> Tensor:
    """Of a tensor, or of the tuple that an adjoint has."""
    parts = [y] if isinstance(y, Tensor) else y
    return max(part.abs().max() for part in parts if part.numel())


def grid(f: Any, y: Tensor, t: Tensor) -> Tensor:
    """Every interval halved."""
    return torch.cat((torch.stack((t[:-1], (t[:-1] + t[1:]) / 2), dim=1).reshape(-1), t[-1:]))


OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "rk4 step_size": {"method": "rk4", "options": {"step_size": 0.07}},
    "rk4 cubic": {"method": "rk4", "options": {"step_size": 0.3, "interp": "cubic"}},
    "euler perturb": {"method": "euler", "options": {"perturb": True}},
    "midpoint grid": {
        "method": "midpoint", "options": {"grid_constructor": grid}
    },
    "first_step": {"method": "dopri5", "options": {"first_step": 0.05}},
    "bounds": {"method": "bosh3", "options": {"min_step": 0.001, "max_step": 0.1}},
    "control": {"method": "dopri5", "options": {"safety": 0.8, "ifactor": 4.0, "dfactor": 0.5}},
    "max_num_steps": {"method": "dopri5", "options": {"max_num_steps": 500}},
    "dtype": {"method": "dopri5", "options": {"dtype": torch.float64}},
    "norm": {"method": "dopri5", "options": {"norm": norm}},
    "step_t": {"method": "dopri5", "options": {"step_t": torch.tensor([0.21, 0.6], dtype=torch.float64)}},
    "jump_t": {"method": "dopri8", "options": {"jump_t": torch.tensor([0.5], dtype=torch.float64)}},
    "adams": {"method": "implicit_adams", "options": {"step_size": 0.1, "max_iters": 3}},
    "tensor tolerances": {"rtol": torch.full((4, 3), 1e-4, dtype=torch.float64), "atol": torch.tensor(1e-6)},
}  # fmt: skip


def both(
    name: str, make: Callable[[], nn.Module], y0: Any, t: Tensor, **more: Any
) -> tuple[tuple[Any, nn.Module], tuple[Any, nn.Module]]:
    """(result, field) of torchdiffeq and of the drop-in."""
    more = {**LOOSE, **more}
    fields = make(), make()
    theirs, ours = (getattr(module, name)(field, y0, t, **more) for module, field in
                    zip((torchdiffeq, node_runner), fields, strict=True))  # fmt: skip
    return (theirs, fields[0]), (ours, fields[1])


def gradients(ys: Any, inputs: list[Tensor]) -> list[Tensor]:
    parts = [ys] if isinstance(ys, Tensor) else list(ys)
    loss = sum((torch.linspace(-1, 2, p.numel(), dtype=torch.float64).view_as(p.abs()) * p.abs().sin()).sum()
               for p in parts)  # fmt: skip
    return list(torch.autograd.grad(loss, inputs, allow_unused=True))


def assert_equal(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, Tensor):
        assert torch.equal(ours, theirs)
    elif theirs is None:
        assert ours is None
    else:
        assert len(ours) == len(theirs)
        for mine, other in zip(ours, theirs, strict=True):
            assert_equal(mine, other)


def assert_same_call(name: str, make: Callable[[], nn.Module], y0: Any, t: Tensor, **more: Any) -> None:
    """Values and gradients are torchdiffeq's to the bit, and the field was called as often."""
    (theirs, one), (ours, other) = both(name, make, y0, t, **more)
    assert_equal(ours, theirs)
    inputs = [y0] if isinstance(y0, Tensor) else list(y0)
    inputs += [t] if t.requires_grad else []
    assert_equal(gradients(ours, [*inputs, *other.parameters()]), gradients(theirs, [*inputs, *one.parameters()]))
    assert getattr(one, "nfe", 0) == getattr(other, "nfe", 0)


@pytest.mark.parametrize("direction", [1, -1], ids=["forward", "reversed"])
@pytest.mark.parametrize("name", ["odeint", "odeint_adjoint"])
@pytest.mark.parametrize("options", OPTIONS)
def test_every_option_means_what_it_means_to_torchdiffeq(options: str, name: str, direction: int):
    more = dict(OPTIONS[options])
    t = TS if direction == 1 else TS.flip(0)
    if options == "tensor tolerances" and name == "odeint_adjoint":
        more |= {"adjoint_rtol": 1e-4, "adjoint_atol": 1e-6}
    assert_same_call(name, Field, start(), t, **more)


@pytest.mark.parametrize("direction", [1, -1], ids=["forward", "reversed"])
@pytest.mark.parametrize("name", ["odeint", "odeint_adjoint"])
@pytest.mark.parametrize("method", ["dopri5", "rk4"])
def test_tuples_are_served(method: str, name: str, direction: int):
    t = TS if direction == 1 else TS.flip(0)
    assert_same_call(name, Pair, (start((2,)), start((3, 2))), t, method=method)


def test_a_tuple_may_have_tolerances_of_its_own():
    assert_same_call("odeint", Pair, (start((2,)), start((3, 2))), TS, rtol=(1e-3, 1e-6), atol=(1e-4, 1e-7))


@pytest.mark.parametrize("name", ["odeint", "odeint_adjoint"])
def test_times_get_a_gradient(name: str):
    assert_same_call(name, Field, start(), TS.clone().requires_grad_(True))
    assert_same_call(name, Field, start(), TS.flip(0).clone().requires_grad_(True), method="rk4")


@pytest.mark.parametrize("method", ["dopri5", "rk4"])
def test_complex_states_are_served(method: str):
    class Turning(nn.Module):
        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return (-0.3 + 1j) * y

    y0 = torch.tensor([[1 + 1j], [2 - 1j]], dtype=torch.complex128, requires_grad=True)
    assert_same_call("odeint", Turning, y0, TS, method=method)


@pytest.mark.parametrize(
    "more",
    [
        {"adjoint_options": {"norm": "seminorm"}},
        {"adjoint_options": {"norm": norm}},
        {"adjoint_rtol": 1e-3, "adjoint_atol": 1e-3},
        {"adjoint_method": "rk4", "adjoint_options": {"step_size": 0.05}},
        {"method": "rk4", "options": {"step_size": 0.1}},
        {"method": "dopri5", "options": {"first_step": 0.1}, "adjoint_options": {"max_step": 0.2}},
    ],
    ids=["seminorm", "norm", "tolerance", "method", "fixed", "options"],
)
def test_the_adjoint_s_own_settings_mean_what_they_mean_to_torchdiffeq(more: dict[str, Any]):
    assert_same_call("odeint_adjoint", Field, start(), TS, **more)


def test_adjoint_params_are_what_gets_gradients():
    rate = torch.tensor(-0.4, dtype=torch.float64, requires_grad=True)
    answers = []
    for module in (torchdiffeq, node_runner):
        y0 = start()
        ys = module.odeint_adjoint(lambda t, y: rate * y.sin(), y0, TS, adjoint_params=(rate,), **LOOSE)
        answers.append([ys, *gradients(ys, [y0, rate])])
    assert_equal(*answers)


class Told(Field):
    """Hears of every step, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[tuple[str, float, float]] = []

    def _hear(self, name: str, t: Tensor, dt: Tensor) -> None:
        self.heard.append((name, float(t.detach()), float(torch.as_tensor(dt).detach())))

    def callback_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        self._hear("step", t, dt)

    def callback_accept_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        self._hear("accept", t, dt)

    def callback_reject_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        self._hear("reject", t, dt)

    def callback_step_adjoint(self, t: Tensor, y: Any, dt: Tensor) -> None:
        self._hear("step back", t, dt)

    def callback_accept_step_adjoint(self, t: Tensor, y: Any, dt: Tensor) -> None:
        self._hear("accept back", t, dt)


@pytest.mark.parametrize("name", ["odeint", "odeint_adjoint"])
@pytest.mark.parametrize("direction", [1, -1], ids=["forward", "reversed"])
def test_callbacks_are_called_at_the_same_steps(name: str, direction: int):
    t = TS if direction == 1 else TS.flip(0)
    heard = []
    for result, field in both(name, Told, start(), t, options={"first_step": 1.0}, method="dopri5"):
        gradients(result, list(field.parameters()))
        heard.append(field.heard)
    assert heard[0] == heard[1]
    assert {kind for kind, *_ in heard[0]} >= {"step", "accept"}
    assert ("step back" in {kind for kind, *_ in heard[0]}) == (name == "odeint_adjoint")


@pytest.mark.parametrize("counter", [AdaptiveStepCounter, FixedStepCounter])
def test_a_recognised_field_with_callbacks_is_called_all_the_same(counter: type):
    method = "dopri5" if counter is AdaptiveStepCounter else "rk4"
    with torch.no_grad():
        (_, one), (_, other) = both("odeint", lambda: counter(SmallField()), start(), TS, method=method)
    assert (one.calls, one.accepted, one.sizes) == (other.calls, other.accepted, other.sizes)
    assert one.accepted > 0


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reversed"])
@pytest.mark.parametrize("adjoint", [False, True], ids=["odeint", "odeint_adjoint"])
@pytest.mark.parametrize("more", [{"method": "dopri5"}, {"method": "rk4", "options": {"step_size": 0.02}}],
                         ids=["dopri5", "rk4"])  # fmt: skip
def test_events_are_found_with_their_gradients(more: dict[str, Any], adjoint: bool, reverse: bool):
    class Falling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gravity = nn.Parameter(torch.tensor([-9.8], dtype=torch.float64))

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return torch.cat((y[1:], self.gravity))

    answers = []
    for module in (torchdiffeq, node_runner):
        field = Falling()
        y0 = torch.tensor([1.0, -3.0 if reverse else 0.0], dtype=torch.float64, requires_grad=True)
        t0 = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
        event, ys = module.odeint_event(
            field, y0, t0, event_fn=lambda t, y: y[0] - (1.1 if reverse else 0.0), reverse_time=reverse, atol=1e-8,
            rtol=1e-8, odeint_interface=module.odeint_adjoint if adjoint else module.odeint, **more,
        )  # fmt: skip
        answers.append([event, ys, *torch.autograd.grad(event + ys[-1].sum(), [y0, field.gravity])])
    assert_equal(*answers)


def test_event_fn_in_odeint_is_torchdiffeq_s():
    y0 = torch.tensor([[1.0, 0.3]], dtype=torch.float64)
    for name in ("odeint", "odeint_adjoint"):
        (theirs, _), (ours, _) = both(
            name, lambda: SmallField(dim=2), y0, TS[:2], event_fn=lambda t, y: t - 0.7
        )  # fmt: skip
        assert_equal(ours, theirs)


class Decay(nn.Module):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return -y


@pytest.mark.parametrize(
    ("t", "more"),
    [
        (TS, {"method": "dopri6"}),
        (torch.tensor([0, 1]), {}),
        (torch.tensor([0.0, 1.0, 0.5], dtype=torch.float64), {}),
        (TS[None], {}),
        (TS, {"rtol": torch.tensor(1e-4, requires_grad=True)}),
        (TS, {"method": "dopri5", "options": {"max_num_steps": 1, "max_step": 0.01}}),
        (TS, {"method": "rk4", "options": {"step_size": 0.1, "grid_constructor": lambda f, y, t: t}}),
        (TS, {"method": "dopri5", "options": {"step_t": TS[:1], "jump_t": TS[:1]}}),
    ],
    ids=["method", "integers", "unsorted", "matrix", "tolerance", "max_num_steps", "grid", "repeated"],
)
def test_mistakes_are_the_same_errors(t: Tensor, more: dict[str, Any]):
    raised = []
    for module in (torchdiffeq, node_runner):
        with pytest.raises(Exception) as caught:
            module.odeint(Decay(), torch.ones(2, 2, dtype=torch.float64), t, **more)
        raised.append(caught.value)
    assert type(raised[0]) is type(raised[1])
    # The list of methods is ours, which is longer.
    assert str(raised[1]).startswith(str(raised[0])[:25])


def test_an_unknown_option_is_warned_of_in_the_same_words():
    for module in (torchdiffeq, node_runner):
        with pytest.warns(UserWarning, match="Unexpected arguments {'speed': 3}"):
            module.odeint(SmallField(), start(), TS, method="dopri5", options={"speed": 3})


def test_a_function_needs_adjoint_params():
    for module in (torchdiffeq, node_runner):
        with pytest.raises(ValueError, match=r"must be an instance of nn\.Module"):
            module.odeint_adjoint(lambda t, y: -y, start(), TS)


@pytest.mark.parametrize("name", ["odeint", "odeint_adjoint"])
def test_tsit5_has_the_whole_interface(name: str):
    function = getattr(node_runner, name)
    y0, field = (start((2,)), start((3, 2))), Pair()
    ys = function(field, y0, TS.flip(0), method="tsit5", options={"max_step": 0.2}, rtol=1e-9, atol=1e-9)
    reference = getattr(torchdiffeq, name)(field, y0, TS.flip(0), method="dopri8", rtol=1e-9, atol=1e-9)
    for mine, other in zip(ys, reference, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-5)
    got, expected = (gradients(states[0][-1], [*y0, field.rate]) for states in (ys, reference))
    for mine, other in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["radauIIA5", "gl4", "trbdf2"])
def test_implicit_methods_have_both_functions(method: str):
    options = {"step_size": 0.02}
    answers = []
    for name in ("odeint", "odeint_adjoint"):
        y0, field = (start((2,)), start((3, 2))), Pair()
        ys = getattr(node_runner, name)(field, y0, TS, method=method, options=options)
        answers.append([*ys, *gradients(ys, [*y0, field.rate])])
    for mine, other in zip(*answers, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=2e-3)


def test_an_implicit_method_may_run_the_backward_solve_alone():
    y0, field = start(), SmallField()
    ys = node_runner.odeint_adjoint(
        field, y0, TS, method="dopri5", options={"max_step": 0.5}, adjoint_method="radauIIA5",
        adjoint_options={"step_size": 0.02}, rtol=1e-8, atol=1e-8,
    )  # fmt: skip
    reference = torchdiffeq.odeint(field, y0, TS, rtol=1e-8, atol=1e-8)
    for mine, other in zip(*(gradients(x, [y0, *field.parameters()]) for x in (ys, reference)), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"event_fn": lambda t, y: t - 0.5}, "looks for no events"),
        ({"t": TS.clone().requires_grad_(True)}, "gives no gradient for t"),
        ({"adjoint_options": {"norm": norm}}, "no norm of the user's"),
        ({"func": Told()}, "calls no callbacks"),
        ({"adjoint_params": ()}, "takes the parameters of func"),
        ({"func": lambda t, y: -y}, "nn.Module"),
        ({"rtol": torch.full((4, 3), 1e-3)}, "one number"),
    ],
    ids=["event", "t", "norm", "callbacks", "params", "function", "tolerance"],
)
def test_what_the_adjoint_of_an_implicit_method_lacks_is_said_in_a_sentence(more: dict[str, Any], reason: str):
    given = {"func": SmallField(), "y0": start(), "t": TS, "method": "radauIIA5", **more}
    with pytest.raises(ValueError, match=f"odeint_adjoint with an implicit method .*{reason}.*: use odeint"):
        node_runner.odeint_adjoint(**given)


def test_without_parameters_an_implicit_method_takes_a_function():
    y0 = start()
    ys = node_runner.odeint_adjoint(lambda t, y: -y, y0, TS, method="gl4", adjoint_params=(), options=None)
    (gradient,) = torch.autograd.grad(ys[-1].sum(), y0)
    torch.testing.assert_close(gradient, torch.full_like(y0, float(torch.exp(torch.tensor(-1.0)))), rtol=0, atol=1e-3)
