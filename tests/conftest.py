"""What all tests share: one thread, a clean global state, a seeded generator, and data that may be there."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra


torch.set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    """Keep what engines compile beside pytest's own cache, so that a second run of the tests is faster.

    It is compiled quickly, but where tests/engines/native is about the code that users get. And Ctrl-C, which some
    tests send, is heard.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in what a shell starts in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.setdefault("NODE_RUNNER_CXXFLAGS", "-Og")
    os.environ.setdefault("TORCHINDUCTOR_DEBUG_COMPILE", "1")
    cache = getattr(config, "cache", None)
    if cache is not None:
        os.environ.setdefault("NODE_RUNNER_CACHE", str(cache.mkdir("node-runner")))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None]:
    """All that is imported and collected stays: it is not searched for garbage, which would take seconds."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `gpu` where there is none, and say why."""
    if torch.cuda.is_available():
        return
    why = "this PyTorch has no CUDA" if torch.version.cuda is None else "no CUDA GPU is visible"
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason=why))


MANY_MODULES = 100
"""Imported since garbage was last looked for, from which it pays to do that."""

_looked_at: tuple[str, int] = ("", 0)


@pytest.fixture(autouse=True)
def no_old_garbage(request: pytest.FixtureRequest) -> None:
    """What lives when a file's tests begin, or was imported since, is not searched for garbage again.

    Every training collects garbage before it measures memory: among all modules and all collected tests that would
    take longer than two steps.
    """
    global _looked_at
    file, modules = request.node.nodeid.partition("::")[0], len(sys.modules)
    if file != _looked_at[0] or modules > _looked_at[1] + MANY_MODULES:
        gc.collect()
        gc.freeze()
        _looked_at = file, modules


@pytest.fixture(autouse=True)
def global_state() -> Iterator[None]:
    """Every test begins with the same global state, and hands it on as it found it."""
    torch.manual_seed(0)
    yield
    torch.set_num_threads(1)
    if torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(False)
    GlobalHydra.instance().clear()
    # What the package never changes; a change would make other tests' numbers depend on their order.
    assert torch.get_default_dtype() is torch.float32
    assert torch.is_grad_enabled()


@pytest.fixture
def generator() -> torch.Generator:
    """A generator of the test's own, always in the same state."""
    return torch.Generator().manual_seed(1234)


@pytest.fixture(scope="session")
def real_mnist() -> Path:
    """The folder NODE_RUNNER_DATA, where it holds MNIST."""
    root = os.environ.get("NODE_RUNNER_DATA")
    if root is None:
        pytest.skip("NODE_RUNNER_DATA is not set")
    if not (Path(root) / "MNIST" / "raw").is_dir():
        pytest.skip(f"NODE_RUNNER_DATA={root} holds no MNIST/raw")
    return Path(root)


@pytest.fixture
def any_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with MNIST: the real one where NODE_RUNNER_DATA has it, else 80 images of noise that pass for it."""
    root = os.environ.get("NODE_RUNNER_DATA")
    if root is not None and (Path(root) / "MNIST" / "raw").is_dir():
        return Path(root)
    from tests.mnist import write_mnist

    write_mnist(tmp_path / "data" / "MNIST" / "raw", monkeypatch, training=60, testing=20)
    monkeypatch.setenv("NODE_RUNNER_DATA", str(tmp_path / "data"))
    return tmp_path / "data"
