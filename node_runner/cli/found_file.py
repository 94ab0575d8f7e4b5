"""The file that a command leaves what it found in: JSON, and a picture beside it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from node_runner.cli.explain import shown
from node_runner.cli.figure_file import write_figure
from node_runner.errors import ConfigError
from node_runner.reporting.run_folder import RunFolder


def refuse_folder(option: str, file: Path | None) -> None:
    """Refuse a folder in the place of a file that is to be written, before any work.

    Raises:
        ConfigError: it is one, or a file stands where its folder is to be.
    """
    if file is not None and (file.is_dir() or file.parent.is_file()):
        raise ConfigError(f"{option} {file}: expected a file that can be written; use another name")


def refuse_other_kinds(out: Path | None) -> None:
    """Refuse a file that is not JSON.

    Raises:
        ConfigError: its name does not end in .json.
    """
    if out is not None and out.suffix != ".json":
        raise ConfigError(f"--out {out}: expected a file ending in .json; the picture goes beside it as .png")
    refuse_folder("--out", out)


def write_found(file: Path, content: Mapping[str, Any], figure: Figure) -> None:
    """Write both, in a folder that is made if need be, and say so."""
    file.parent.mkdir(parents=True, exist_ok=True)
    RunFolder(file.parent).write_json(file, content)
    write_figure(figure, file.with_suffix(".png"))
    print(f"wrote {shown(file)} and {shown(file.with_suffix('.png'))}", file=sys.stderr)
