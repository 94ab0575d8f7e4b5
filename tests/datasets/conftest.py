from pathlib import Path

import pytest

from tests.mnist import write_mnist


@pytest.fixture
def miniature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root folder with four small files, which pass for the official ones while the test runs."""
    write_mnist(tmp_path / "MNIST" / "raw", monkeypatch, training=30, testing=12)
    return tmp_path
