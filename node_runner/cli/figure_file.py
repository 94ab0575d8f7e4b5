"""Writes a figure to the file that the user named."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from node_runner.errors import ConfigError


def write_figure(figure: Figure, file: Path) -> None:
    """Write an image; the file's ending decides on the format.

    Raises:
        ConfigError: the ending is no image format.
    """
    kinds = figure.canvas.get_supported_filetypes()
    if file.suffix[1:].lower() not in kinds:
        raise ConfigError(f"{file}: expected an ending of an image format: {', '.join(sorted(kinds))}")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)
