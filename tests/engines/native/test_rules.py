"""What the native engine serves and refuses, how it fails, and what it leaves on disk."""

from __future__ import annotations

import gc
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from node_runner.adjoints import ADJOINTS
from node_runner.engines import ENGINES
from node_runner.engines.auto import Auto
from node_runner.engines.compiler import compiler
from node_runner.engines.native import build, calls, engine, plan
from node_runner.engines.native.engine import NativeEngine
from node_runner.errors import ConfigError, RunError, SolveFailed
from node_runner.fields.concatsquash import ConcatSquash
from node_runner.fields.mlp import MLP
from node_runner.forms import Integral, form_of
from node_runner.memory import PeakMemory
from node_runner.models.parts.dynamics import Hutchinson, Shifted, UnitTime, Widened, leading_norm
from node_runner.models.second_order import Motion
from node_runner.regularisers.jacobian import Estimate, Norm
from node_runner.runs.rehearsal import rehearse
from node_runner.settings import Activation, ToleranceConfig
from node_runner.solving import Solve, Tolerances
from tests.problems import METHODS, differentiable, make_method
from tests.runs import make_run, trainer_of


needs_compiler = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")
as_shipped = pytest.mark.usefixtures("as_shipped")
TS = torch.tensor([0.0, 0.5, 1.0])


def native_rk4(step_size: float | None = None) -> Solve:
    """A solve by rk4, differentiated."""
    method = make_method("rk4", step_size=step_size)
    return Solve(NativeEngine(), method, ADJOINTS.get("off")(), Tolerances(ToleranceConfig()))


class Cubed(nn.Module):
    """A field that no layer describes."""

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return -(y**3)


class Bounded(nn.Module):
    """A field that ends in an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2), nn.Tanh())

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(y)


class Decaying(Bounded):
    """The same, drawn back to the origin."""

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(y) - y


def refusal(field: nn.Module, y0: Tensor, **more: object) -> str:
    reason = NativeEngine().refuses(METHODS["dopri5"], field, y0, more.get("norm"), "off")
    assert reason is not None
    assert reason.startswith("engine=native ")
    return reason


def test_refusals_say_what_is_wrong():
    field, y0 = MLP((2,)), torch.zeros(4, 2)
    assert NativeEngine().refuses(METHODS["dopri5"], field, y0, None, "off") is None
    assert "Cubed is none" in refusal(Cubed(), y0)
    assert "Cubed is none" in refusal(Shifted(Cubed(), torch.zeros(4)), y0)
    assert NativeEngine().refuses(METHODS["dopri5"], field, y0, leading_norm(1), "off") is None
    assert "norm of its own" in refusal(field, y0, norm=torch.linalg.vector_norm)
    assert "MLP in UnitTime is none" in refusal(UnitTime(field, torch.ones(4)), y0)
    assert "needs states (B, 2), got (4, 3)" in refusal(field, torch.zeros(4, 3))
    assert "parameters of the state's dtype" in refusal(field, y0.double())
    assert "computes in float32 and float64" in refusal(field, y0.half())
    assert "on meta" in refusal(field, y0.to("meta"))
    assert "up to 512 wide, and this field has 600" in refusal(MLP((2,), width=600), y0)
    assert "start at times of their own" in refusal(Shifted(ConcatSquash((2,)), torch.zeros(4)), y0)
    noisy = Widened(field, (2,), [Hutchinson(torch.zeros(3, 2))])
    assert "a probe for each sample" in refusal(noisy, torch.zeros(4, 3))
    both = Widened(field, (2,), [Hutchinson(torch.zeros(4, 2)), Norm()])
    assert "beside the exact divergence only" in refusal(both, torch.zeros(4, 4))
    estimated = Widened(field, (2,), [Estimate(y0)])
    assert "this solve has other integrals" in refusal(estimated, torch.zeros(4, 3))
    moving = Widened(Motion(MLP((2,), 1)), (2,), [Norm()])
    assert "velocities move positions" in refusal(moving, torch.zeros(4, 3))
    assert "gives a state's 2 numbers, and this one gives 1" in refusal(MLP((2,), 1), y0)
    bounded = Widened(Bounded(), (2,), [Norm()])
    assert "this one ends in an activation" in refusal(bounded, torch.zeros(4, 3))
    squared = Widened(MLP((2,), power=2), (2,), [Norm()])
    assert "sees a power of it" in refusal(squared, torch.zeros(4, 3))
    decaying = Widened(Decaying(), (2,), [Norm()])
    decaying.field.net = decaying.field.net[:3]
    assert "or of the state beside it, alone" in refusal(decaying, torch.zeros(4, 3))
    wide = Widened(MLP((9,)), (9,), [Norm()])
    assert "exact trace up to 8 dimensions" in refusal(wide, torch.zeros(4, 10))


def test_a_field_with_hooks_is_refused():
    field = MLP((2,))
    field.out.register_forward_hook(lambda module, inputs, output: output)
    assert "hooks would not run: MLP has some" in refusal(field, torch.zeros(4, 2))


def test_methods_without_a_tableau_are_refused():
    assert "solver=explicit_adams is none here" in (NativeEngine().unsupported(METHODS["explicit_adams"]) or "")


def test_without_a_compiler_it_says_so_and_auto_takes_the_next(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine, "compiler", lambda: None)
    assert "needs a C++ compiler" in (NativeEngine().unsupported(METHODS["dopri5"]) or "")
    solve = differentiable(METHODS["dopri5"], engine="auto")
    assert isinstance(solve, Solve)
    with solve.rehearsal() as choices:
        solve(MLP((2,)), torch.zeros(4, 2), TS)
    assert choices[0].engine != "native"
    assert "needs a C++ compiler" in choices[0].refused["native"]


def test_auto_takes_the_native_engine_where_it_serves_and_another_where_not():
    solve = differentiable(METHODS["dopri5"], engine="auto")
    with solve.rehearsal() as choices:
        solve(MLP((2,)), torch.zeros(4, 2), TS)
        solve(Cubed(), torch.zeros(4, 2), TS)
    assert [choice.engine == "native" for choice in choices] == [compiler() is not None, False]
    assert [candidate.name for candidate in Auto().candidates(0)][-1] == "torchdiffeq"


@needs_compiler
def test_the_engine_by_name_refuses_a_field_before_any_work():
    solve = differentiable(METHODS["dopri5"], engine="native")
    with pytest.raises(ConfigError, match="Cubed is none"):
        solve(Cubed(), torch.zeros(4, 2), TS)


# --- failures: the sentences of the reference engine ---------------------------------------------------


def steep(gain: float) -> MLP:
    """y' = gain y, by layers without a bend."""
    field = MLP((1,), width=1, depth=1, activation=Activation.relu).double()
    for layer, value in ((field.hidden[0], 1.0), (field.out, gain)):
        nn.init.constant_(layer.weight, value)
        nn.init.zeros_(layer.bias)
    return field


CASES = {
    "not-finite": (steep(float("nan")), make_method("dopri5")),
    "overflow": (steep(1e300), make_method("dopri5")),
    "budget": (steep(3.0), make_method("dopri5", max_steps=3)),
    "underflow": (steep(-1e17), make_method("dopri5", max_steps=10_000)),
}


@as_shipped
@needs_compiler
@pytest.mark.parametrize("ts", [[0.0, 5.0], [5.0, 0.0]], ids=["forward", "backward"])
@pytest.mark.parametrize("case", CASES)
def test_failures_are_those_of_the_reference(case: str, ts: list[float]):
    field, method = CASES[case]
    y0 = torch.ones(2, 1, dtype=torch.float64)
    said = []
    for name in ("torchdiffeq", "native"):
        try:
            differentiable(method, rtol=1e-9, atol=1e-9, engine=name)(field, y0, torch.tensor(ts, dtype=torch.float64))
            said.append("solved")
        except SolveFailed as error:
            said.append(str(error))
    assert said[0] == said[1]


@as_shipped
@needs_compiler
def test_a_backward_solve_that_fails_says_that_it_is_one():
    field = steep(1.0)
    y0 = torch.ones(2, 1, dtype=torch.float64, requires_grad=True)
    ts = torch.tensor([0.0, 1.0], dtype=torch.float64)
    tolerances = Tolerances(ToleranceConfig(rtol=1e-2, atol=1e-2, adjoint_rtol=1e-9, adjoint_atol=1e-9))
    said = []
    for name in ("torchdiffeq", "native"):
        solve = Solve(ENGINES.get(name)(), make_method("dopri5", max_steps=4), ADJOINTS.get("on")(), tolerances)
        with pytest.raises(SolveFailed) as caught:
            solve(field, y0, ts).ys[-1].sum().backward()
        said.append(str(caught.value))
    assert said[0].startswith("in the backward solve of the adjoint: dopri5 spent its budget")
    assert said[0] == said[1]


# --- memory --------------------------------------------------------------------------------------------


@needs_compiler
def test_what_a_solve_keeps_is_counted_and_let_go(monkeypatch: pytest.MonkeyPatch):
    gc.collect()  # solves of tests before, which an exception's traceback may have kept
    released = []
    monkeypatch.setattr(calls.NativeSolve, "release", lambda self: released.append(self), raising=True)
    field, y0 = MLP((2,)), torch.randn(8, 2)
    kept = {}
    gc.disable()
    try:
        for adjoint in ("off", "checkpoint", "on"):
            solution = differentiable(METHODS["dopri5"], adjoint, engine="native")(field, y0, TS)
            kept[adjoint] = solution.stats.kept_bytes
            solution.ys.sum().backward()
            del solution
    finally:
        gc.enable()
    assert len(released) == 3  # without the garbage collector: there are no cycles
    assert kept["off"] > kept["checkpoint"] > kept["on"] > 0


@needs_compiler
def test_without_gradients_nothing_is_kept():
    with torch.no_grad():
        solution = differentiable(METHODS["dopri5"], engine="native")(MLP((2,)), torch.randn(8, 2), TS)
    assert solution.stats.kept_bytes == 0
    assert not solution.ys.requires_grad


@needs_compiler
def test_a_gradient_sees_the_parameters_of_its_own_forward_solve():
    gradients = []
    for change in (False, True):
        torch.manual_seed(0)
        field, y0 = MLP((2,)), torch.randn(8, 2)
        solution = differentiable(METHODS["dopri5"], "checkpoint", engine="native")(field, y0, TS)
        if change:
            with torch.no_grad():
                for parameter in field.parameters():
                    parameter.zero_()
        gradients.append(torch.autograd.grad(solution.ys.sum(), list(field.parameters())))
    for before, after in zip(*gradients, strict=True):
        assert torch.equal(before, after)


@as_shipped
@needs_compiler
def test_gradients_too_small_for_a_full_mantissa_are_zero_in_a_solve_and_nowhere_else():
    # Linear in y: the gradient by y0 is the weight times the one that is handed in.
    field, y0 = MLP((2,), width=4, activation=Activation.relu), torch.ones(3, 2, requires_grad=True)
    ys = differentiable(make_method("euler"), "off", engine="native")(field, y0, TS).ys
    tiny = torch.finfo(torch.float32).tiny
    (gradient,) = torch.autograd.grad(ys, y0, torch.full_like(ys, tiny / 64))
    assert float(gradient.abs().max()) == 0.0
    assert float((torch.tensor([tiny]) / 64).double()) > 0  # this thread's own arithmetic is as it was


# --- the cache -----------------------------------------------------------------------------------------

TINY = {"NODE_REAL": "float", "NODE_SIZES": "{1,1}", "NODE_BIASED": "{1}", "NODE_ACTIVATIONS": "{NONE}",
        "NODE_SLOPE": "0", "NODE_TIMED": "0", "NODE_TIME_FIRST": "0", "NODE_POWER": "1", "NODE_GATED": "0",
        "NODE_SCALED": "0", "NODE_ALONG": "0",
        "NODE_PROBES": "0", "NODE_INTEGRALS": "{-1}", "NODE_NORM_ROWS": "1", "NODE_BYTES": "16", "NODE_WIDTH": "1",
        "NODE_UNITS": "0", "NODE_PER_SAMPLE": "0", "NODE_GRADIENT": "0"}  # fmt: skip


@needs_compiler
def test_a_library_is_built_once_by_jobs_that_start_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NODE_RUNNER_CACHE", str(tmp_path))
    with ThreadPoolExecutor(2) as pool:
        built = list(pool.map(lambda _: build.build(TINY, "tiny"), range(2)))
    assert all(library.node_parameters() == 2 for library, _ in built)
    (only,) = (tmp_path / "native").iterdir()
    assert only.suffix == ".so"
    assert build.build(TINY, "tiny")[1] == 0.0


@needs_compiler
def test_further_flags_make_a_library_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NODE_RUNNER_CACHE", str(tmp_path))
    build.build(TINY, "tiny")
    monkeypatch.setenv("NODE_RUNNER_CXXFLAGS", "-O0")
    assert build.build(TINY, "tiny")[1] > 0
    assert len(list((tmp_path / "native").iterdir())) == 2


@needs_compiler
def test_a_compiler_that_fails_is_named_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NODE_RUNNER_CACHE", str(tmp_path))
    with pytest.raises(RunError, match=r"engine=native: .* failed on wrong: .*error"):
        build.build({**TINY, "NODE_REAL": "nonsense"}, "wrong")
    assert list((tmp_path / "native").iterdir()) == []


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NODE_RUNNER_CACHE", "/somewhere")
    assert build.cache_folder() == Path("/somewhere")
    monkeypatch.delenv("NODE_RUNNER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert build.cache_folder() == Path("/elsewhere/node-runner")


@needs_compiler
def test_another_process_finds_what_was_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NODE_RUNNER_CACHE", str(tmp_path))
    build.build(TINY, "tiny")
    script = f"from node_runner.engines.native.build import build; print(build({TINY!r}, 'tiny')[1])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0.0"


@needs_compiler
def test_a_run_s_rehearsal_compiles_all_that_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = []
    monkeypatch.setattr(plan, "library", lambda network: made.append(network))
    trainer, experiment, _ = trainer_of(make_run(engine="auto", dataset__long=2), tmp_path)
    state = torch.get_rng_state()
    rehearsal = rehearse(experiment, trainer.batch)
    assert made == []  # a refusal would have cost nothing
    assert rehearsal.in_words() == "engine native"
    rehearsal.prepare()
    assert {network.gradient for network in made} == {0, 1}  # evaluation of the smallest part, and training
    # What trains evaluates, too.
    assert len({network._replace(gradient=0) for network in made}) == len(made)
    assert torch.equal(torch.get_rng_state(), state)


@needs_compiler
def test_a_library_with_a_gradient_gives_the_same_values_without_one(monkeypatch: pytest.MonkeyPatch):
    taken, real = [], engine.library
    monkeypatch.setattr(engine, "library", lambda network: taken.append(network) or real(network))
    field, y0 = MLP((2,)), torch.randn(8, 2)
    solve, evaluation = (differentiable(METHODS["dopri5"], engine="native") for _ in range(2))
    with torch.no_grad():
        alone = evaluation(field, y0, TS).ys
    trained = solve(field, y0, TS).ys
    with torch.no_grad():
        solution = solve(field, y0, TS)
    assert [network.gradient for network in taken] == [0, 1, 1]
    assert solution.stats.kept_bytes == 0
    assert torch.equal(solution.ys, trained)
    torch.testing.assert_close(solution.ys, alone)


def test_empty_lanes_are_few():
    narrow, wide = (form_of(MLP((2,), width=width)) for width in (6, 64))
    assert narrow is not None and wide is not None
    for count, dtype in ((1, torch.float32), (4, torch.float32), (2, torch.float64)):
        assert plan.tile(narrow, torch.zeros(count, 2, dtype=dtype)) == (16, 1, False)
    assert plan.tile(narrow, torch.zeros(8, 2)) == (32, 1, False)
    assert plan.tile(wide, torch.zeros(16, 2)) == (64, 1, False)
    assert plan.tile(wide, torch.zeros(33, 2)) == (64, 4, False)
    assert plan.tile(wide, torch.zeros(8, 2)) == (64, 1, True)
    assert plan.tile(wide, torch.zeros(8, 2), per_sample=True) == (32, 1, False)
    assert not plan.tile(replace(wide, integrals=(Integral.kinetic,)), torch.zeros(8, 3))[2]
    for unusual in (
        replace(wide, time_first=True),
        replace(wide, activations=(Activation.tanh,) * 3),
        replace(wide, activations=(Activation.tanh, Activation.relu, None)),
        replace(wide, layers=(wide.layers[0]._replace(bias=None), *wide.layers[1:])),
    ):
        assert not plan.tile(unusual, torch.zeros(8, 2))[2]


@needs_compiler
@pytest.mark.skipif(shutil.which("nm") is None, reason="no nm, which lists a library's names")
@pytest.mark.parametrize(("per_sample", "gradient"), [(False, 1), (False, 2), (True, 1)])
def test_a_library_has_no_memory_that_others_of_the_process_would_share(
    per_sample: bool, gradient: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # A static variable of a template is one for all libraries that have its name, whatever vectors each computes with;
    # so is a static member that something refers to, where the compiler does not see through that.
    monkeypatch.setenv("NODE_RUNNER_CACHE", str(tmp_path))
    small = {"NODE_SIZES": "{2,5,2}", "NODE_BIASED": "{1,1}", "NODE_ACTIVATIONS": "{TANH,NONE}",
             "NODE_PER_SAMPLE": str(int(per_sample)), "NODE_GRADIENT": str(gradient)}  # fmt: skip
    build.build(TINY | small, "small")
    (path,) = (tmp_path / "native").iterdir()
    names = subprocess.run(["nm", str(path)], capture_output=True, text=True, check=True).stdout.splitlines()
    assert any("node_backward" in line for line in names)
    assert not [line for line in names if line.split()[-2] == "u"]


@needs_compiler
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can reset the high-water mark")
def test_a_later_run_is_not_spared_the_memory_that_an_earlier_one_left_for_the_next_solve():
    field = MLP((2,), width=64, depth=1)
    solve = native_rk4(0.01)

    def peak() -> float:
        watch = PeakMemory(torch.device("cpu"))
        if watch.source.startswith("resident memory of the process, peak of its whole life"):
            pytest.skip("this system does not let a process reset its high-water mark")
        solve(field, torch.randn(256, 2), TS).ys.sum().backward()
        return watch.peak_mb()

    peak()
    found = [peak() for _ in range(5)]  # a kernel that reclaims pages meanwhile hides some of it
    assert max(found) > 20
    assert sorted(found)[2] > 0.7 * max(found), found


@needs_compiler
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux bounds the memory of a process")
def test_memory_that_is_not_there_is_an_error_and_no_end_of_the_process():
    import resource

    solve, short = native_rk4(1e-6), native_rk4(0.1)
    field, y0 = MLP((2,), width=64, depth=1), torch.randn(256, 2)
    short(field, y0, TS)  # compiles
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**28, before[1]))
    try:
        with pytest.raises(MemoryError, match=r"engine=native, after \d+ steps of 256 samples"):
            solve(field, y0, TS)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@needs_compiler
def test_gradients_in_a_batch_are_refused_with_who_can_find_them():
    solve = native_rk4()
    field, y0 = MLP((2,), width=4, depth=1), torch.randn(3, 2, requires_grad=True)
    ys = solve(field, y0, TS).ys
    with pytest.raises(RuntimeError, match=r"one gradient at a time.*use engine=torchdiffeq"):
        torch.autograd.grad(ys, y0, torch.ones(2, *ys.shape), is_grads_batched=True)
