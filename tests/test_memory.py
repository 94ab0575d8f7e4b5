"""Bytes kept for backward, exactly; and the peak of the process."""

from __future__ import annotations

import gc
import platform
import sys
import weakref
from mmap import ACCESS_READ, mmap
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from node_runner.memory import MB, PeakMemory, saved_for_backward
from node_runner.models.parts.dynamics import Widened, divergence_exact
from tests.problems import METHODS, OF_THE_REFERENCE, SmallField, differentiable, make_method


N = 1000
BYTES = N * 4


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(N))
        self.register_buffer("shift", torch.ones(N))


def saved_bytes(model: nn.Module, compute) -> float:
    with saved_for_backward(model) as saved:
        kept = compute()
    assert kept is not None
    return saved.mb * MB


def test_a_product_keeps_its_inputs_and_parameters_do_not_count():
    model, x = Scale(), torch.randn(N, requires_grad=True)
    assert saved_bytes(model, lambda: x * model.weight) == BYTES
    assert saved_bytes(model, lambda: (x * model.weight).sin()) == 2 * BYTES
    # The buffer is there anyway too, and a sum keeps nothing.
    assert saved_bytes(model, lambda: (model.weight * model.shift).sum()) == 0


def test_tensors_that_share_their_memory_count_once():
    model, x = Scale(), torch.randn(N, requires_grad=True)
    assert saved_bytes(model, lambda: x * x) == BYTES
    assert saved_bytes(model, lambda: (x.view(10, 100) * x.view(10, 100).flip(0).clone()).sum()) == 2 * BYTES
    assert saved_bytes(model, lambda: x[:10] * x[10:20]) == BYTES  # all of the storage is kept alive


def test_nothing_is_kept_without_gradients():
    model, x = Scale(), torch.randn(N)
    with torch.no_grad():
        assert saved_bytes(model, lambda: (x * model.weight).sin()) == 0


def test_what_was_freed_again_does_not_count():
    model, x = Scale(), torch.randn(N, requires_grad=True)

    def compute() -> Tensor:
        with torch.enable_grad():
            (inner,) = torch.autograd.grad((x.sin().exp()).sum(), x)
        return x * inner

    assert saved_bytes(model, compute) == BYTES


def test_measuring_leaves_nothing_behind():
    x = torch.randn(N, requires_grad=True)
    with saved_for_backward(nn.Identity()):
        y = x.tanh()  # keeps its own output
        watch = weakref.ref(y)
    assert watch() is not None
    del y
    gc.collect()
    assert watch() is None


def test_measuring_changes_no_value_and_no_gradient():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    x = torch.randn(5, 4)
    plain = model(x).sum()
    expected = torch.autograd.grad(plain, list(model.parameters()))
    with saved_for_backward(model):
        measured = model(x).sum()
    got = torch.autograd.grad(measured, list(model.parameters()))
    assert torch.equal(plain, measured)
    assert all(torch.equal(mine, other) for mine, other in zip(got, expected, strict=True))


@pytest.mark.parametrize("adjoint", OF_THE_REFERENCE)
def test_measuring_changes_no_gradient_of_a_flow(adjoint: str):
    # Its divergence differentiates inside the solve, through what was packed.
    field = SmallField()
    wide = Widened(field, (3,), [divergence_exact])
    y0 = torch.randn(4, 3, dtype=torch.float64)
    solve = differentiable(METHODS["dopri5"], adjoint, rtol=1e-3, atol=1e-3)

    def gradients() -> list[Tensor]:
        loss = solve(wide, wide.begin(y0), torch.tensor([0.0, 1.0])).ys.square().sum()
        return list(torch.autograd.grad(loss, list(field.parameters())))

    expected = gradients()
    with saved_for_backward(field):
        got = gradients()
    assert all(torch.equal(mine, other) for mine, other in zip(got, expected, strict=True))


def solve_bytes(adjoint: str, steps: int, *, widened: bool = False) -> float:
    field = SmallField(width=16)
    dynamics: nn.Module = Widened(field, (3,), [divergence_exact]) if widened else field
    y0 = torch.randn(64, 3, dtype=torch.float64)
    start = dynamics.begin(y0) if isinstance(dynamics, Widened) else y0
    method = make_method("rk4", step_size=1 / steps)
    solve = differentiable(method, adjoint)
    return saved_bytes(field, lambda: solve(dynamics, start, torch.tensor([0.0, 1.0])).ys.square().sum())


@pytest.mark.parametrize("widened", [False, True], ids=["field", "field-and-divergence"])
def test_backpropagation_keeps_memory_in_proportion_to_the_steps(widened: bool):
    ten, twenty, forty = (solve_bytes("off", steps, widened=widened) for steps in (10, 20, 40))
    assert ten > 10 * 64 * 16 * 8
    assert twenty - ten > 0.9 * ten
    assert forty - twenty == pytest.approx(2 * (twenty - ten), rel=1e-9)


@pytest.mark.parametrize("widened", [False, True], ids=["field", "field-and-divergence"])
def test_the_continuous_adjoint_keeps_the_same_whatever_the_steps(widened: bool):
    assert solve_bytes("on", 10, widened=widened) == solve_bytes("on", 40, widened=widened)
    # The states at the output times, which the loss keeps too.
    assert solve_bytes("on", 10, widened=widened) < 5 * 2 * 64 * 4 * 8


@pytest.mark.parametrize("adjoint", [name for name in OF_THE_REFERENCE if name != "off"])
def test_a_continuous_adjoint_keeps_less_than_backpropagation(adjoint: str):
    field = SmallField(width=16)
    y0 = torch.randn(64, 3, dtype=torch.float64)
    kept = {}
    for name in ("off", adjoint):
        solve = differentiable(METHODS["dopri5"], name)
        kept[name] = saved_bytes(field, lambda solve=solve: solve(field, y0, torch.tensor([0.0, 1.0])).ys)
    assert kept[adjoint] < kept["off"] / 10


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux can reset the high-water mark of a process"
)
def test_the_peak_sees_an_allocation_that_is_gone_again():
    found = []
    for _ in range(5):  # a kernel that reclaims other pages of the process meanwhile hides some of it
        gc.collect()
        watch = PeakMemory(torch.device("cpu"))
        if "above the baseline" not in watch.source:
            pytest.skip("this system does not let a process reset its high-water mark")
        before = watch.peak_mb()
        block = torch.ones(64 * MB // 4)
        del block
        found.append((before, watch.peak_mb()))
    assert any(before < 16 and 60 <= peak <= 96 for before, peak in found), found


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux can reset the high-water mark of a process"
)
def test_a_later_watch_is_not_charged_for_an_earlier_peak():
    found = []
    for _ in range(5):  # what the kernel reclaims between reset and baseline is charged when it comes back
        block = torch.ones(64 * MB // 4)
        del block
        gc.collect()
        watch = PeakMemory(torch.device("cpu"))
        if "above the baseline" not in watch.source:
            pytest.skip("this system does not let a process reset its high-water mark")
        found.append(watch.peak_mb())
    assert min(found) < 16, found


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked to give back what is free")
def test_a_later_watch_is_not_spared_what_an_earlier_one_has_freed():
    def job() -> float:
        watch = PeakMemory(torch.device("cpu"))
        if watch.source.startswith("resident memory of the process, peak of its whole life"):
            pytest.skip("this system does not let a process reset its high-water mark")
        small = [torch.ones(2000) for _ in range(4000)]  # 30 MiB in pieces that the heap keeps for itself once freed
        peak = watch.peak_mb()
        del small
        return peak

    job()
    found = [job() for _ in range(5)]  # a kernel that reclaims meanwhile, see above
    assert any(peak == pytest.approx(4000 * 2000 * 4 / MB, rel=0.3) for peak in found), found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="files are told from memory on Linux alone")
def test_pages_of_files_do_not_count(tmp_path: Path):
    # As those of a library, whose code is read when it is first run.
    (tmp_path / "library").write_bytes(b"x" * (64 * MB))
    watch = PeakMemory(torch.device("cpu"))
    if watch.source.startswith("resident memory of the process, peak of its whole life"):
        pytest.skip("the kernel does not reset the peak here")
    with (tmp_path / "library").open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as pages:
        assert sum(pages[::4096]) == 64 * MB // 4096 * ord("x")
        assert watch.peak_mb() < 16


@pytest.mark.gpu
def test_the_peak_on_a_gpu_is_the_allocator_s():
    device = torch.device("cuda")
    kept = torch.ones(MB, device=device)
    watch = PeakMemory(device)
    block = torch.ones(64 * MB // 4, device=device)
    del block
    assert watch.peak_mb() == pytest.approx(64, abs=2)
    assert kept.is_cuda
    assert "CUDA" in watch.source
