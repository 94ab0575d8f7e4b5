"""The machine under a run: seeds, device, threads, and the record of it."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from node_runner import runtime
from node_runner.errors import ConfigError
from node_runner.settings import DeviceConfig, Place, Precision


CPU = DeviceConfig(place=Place.cpu)


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002 - the global state is meant


def test_a_seed_sets_every_generator():
    results = []
    for seed in (3, 4, 3):
        runtime.set_up(CPU, seed)
        results.append(draws())
    assert results[0] == results[2]
    assert all(one != other for one, other in zip(results[0], results[1], strict=True))


def test_seeds_beyond_numpy_s_range_are_taken():
    runtime.set_up(CPU, 2**40)


def test_the_state_of_the_generators_can_be_restored():
    state = runtime.rng_state()
    first = torch.rand(3)
    runtime.restore_rng(state)
    assert torch.equal(torch.rand(3), first)


@pytest.mark.parametrize("threads", [1, 2, None])
def test_threads_are_those_that_were_asked_for_or_all_there_are(threads: int | None):
    runtime.set_up(DeviceConfig(place=Place.cpu, threads=threads), 0)
    assert torch.get_num_threads() == (threads or runtime.default_threads())


def test_determinism_is_switched_on_and_off_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    for wanted in (True, False):
        runtime.set_up(DeviceConfig(place=Place.cpu, deterministic=wanted), 0)
        assert torch.are_deterministic_algorithms_enabled() is wanted


def test_determinism_is_not_touched_where_nothing_changes(monkeypatch: pytest.MonkeyPatch):
    # The call imports torch's compiler, which takes seconds.
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda mode: pytest.fail("called"))
    runtime.set_up(CPU, 0)


@pytest.mark.parametrize("allowed", [True, False])
def test_tf32_is_used_where_it_is_asked_for_and_recorded(allowed: bool):
    runtime.set_up(DeviceConfig(place=Place.cpu, tf32=allowed), 0)
    assert torch.backends.cuda.matmul.allow_tf32 is torch.backends.cudnn.allow_tf32 is allowed
    assert (torch.backends.cudnn.conv.fp32_precision == "tf32") is allowed
    assert runtime.environment(torch.device("cpu"), torch.float32, 0)["tf32"] is allowed


def test_tf32_is_off_by_default():
    runtime.set_up(CPU, 0)
    assert not torch.backends.cudnn.allow_tf32


@pytest.mark.gpu
def test_without_tf32_a_convolution_on_a_gpu_is_that_of_the_cpu():
    torch.manual_seed(0)
    x, weights = torch.randn(4, 16, 12, 12), torch.randn(16, 16, 3, 3)
    exact = torch.nn.functional.conv2d(x.double(), weights.double())
    errors = []
    for allowed in (False, True):
        runtime.allow_tf32(allowed)
        found = torch.nn.functional.conv2d(x.cuda(), weights.cuda()).cpu()
        errors.append(float((found - exact).norm() / exact.norm()))
    runtime.allow_tf32(False)
    assert errors[0] < 1e-5


@pytest.mark.parametrize(
    ("precision", "dtype"), [(Precision.float32, torch.float32), (Precision.float64, torch.float64)]
)
def test_a_precision_is_a_dtype(precision: Precision, dtype: torch.dtype):
    assert runtime.set_up(DeviceConfig(place=Place.cpu, precision=precision), 0) == (torch.device("cpu"), dtype)


def test_auto_takes_a_gpu_if_there_is_one(monkeypatch: pytest.MonkeyPatch):
    for there, kind in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert runtime.choose_device(Place.auto).type == kind


@pytest.mark.parametrize("place", [Place.cuda, Place.mps], ids=lambda place: place.value)
def test_a_device_that_is_not_there_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=f"^device={place.value}: .*use device=cpu or device=auto"):
        runtime.choose_device(place)


def test_float64_on_an_apple_gpu_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(ConfigError, match="device=mps has no float64"):
        runtime.set_up(DeviceConfig(place=Place.mps, precision=Precision.float64), 0)


def test_the_record_of_the_environment_is_plain_and_complete():
    record = runtime.environment(torch.device("cpu"), torch.float64, 7)
    assert json.loads(json.dumps(record)) == record
    assert (record["device"], record["dtype"], record["seed"]) == ("cpu", "float64", 7)
    assert record["threads"] == torch.get_num_threads()
    assert record["processor"]


def test_a_package_that_is_not_installed_is_recorded_as_that(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(runtime, "PACKAGES", ("torch", "no-such-package-anywhere"))
    assert runtime.package_versions()["no-such-package-anywhere"] == "not installed"


def test_the_state_of_a_checkout_is_its_commit_and_whether_it_was_changed(tmp_path: Path):
    assert runtime.git_state(tmp_path) == {"commit": None, "dirty": None}

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
        done = subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *arguments], capture_output=True, check=True, text=True
        )
        return done.stdout.strip()

    git("init", "-q")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-q", "--no-verify", "-m", "first")
    assert runtime.git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "file").write_text("two")
    assert runtime.git_state(tmp_path)["dirty"] is True
