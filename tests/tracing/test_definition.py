"""Which functions are found as they are written."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from node_runner.tracing.definition import definition_of


def forward_of(file: Path, signature: str) -> Any:
    """A function with a signature, imported from a file."""
    file.write_text(f"def forward{signature}:\n    return y\n")
    spec = importlib.util.spec_from_file_location("written", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.forward


@pytest.mark.parametrize(
    "signature",
    [
        "(t, y)",
        "(t, y, act=lambda x: x)",
        *(
            pytest.param(generic, marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="new in Python 3.12"))
            for generic in ("[T](t: T, y: T) -> T", "[T: float](t: T, y: T, act=lambda x: x) -> T")
        ),
    ],
)
def test_a_function_is_found_whatever_its_signature_holds(signature: str, tmp_path: Path):
    assert definition_of(forward_of(tmp_path / "written.py", signature)).name == "forward"
