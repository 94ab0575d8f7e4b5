"""What is tested here is the code that users get."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def as_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler's flags are the package's alone."""
    monkeypatch.delenv("NODE_RUNNER_CXXFLAGS", raising=False)


@pytest.fixture
def quickly_built(as_shipped: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """In half the time: for other formulas in code whose shipped build another test looks at."""
    monkeypatch.setenv("NODE_RUNNER_CXXFLAGS", "-O1")
