"""Networks of every kind are tested as users get them compiled; variants as all tests have them, in half the time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from node_runner.engines.native.plan import library


@pytest.fixture
def as_shipped(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The compiler's flags are the package's alone."""
    monkeypatch.delenv("NODE_RUNNER_CXXFLAGS", raising=False)
    library.cache_clear()  # this process may have the same network compiled otherwise
    yield
    library.cache_clear()
