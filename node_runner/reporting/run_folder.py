"""The folder of one run: its files, their names, and how they are written and read."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from node_runner.errors import DataError


class RunFolder:
    """Writes and reads `outputs/<date>/<time>_<dataset>_<model>/` or a job's folder of a sweep.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.environment = path / "environment.json"
        self.metrics = path / "metrics.jsonl"
        self.table = path / "metrics.csv"
        self.result = path / "result.json"
        self.checkpoints = path / "checkpoints"
        self.figures = path / "figures"

    def write_json(self, path: Path, content: Mapping[str, Any]) -> None:
        """Write a JSON file whole or not at all. Numbers that are not finite become null."""
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(_plain(content), indent=2) + "\n", encoding="utf-8")
        os.replace(partial, path)

    def read_result(self) -> dict[str, Any]:
        """The content of result.json.

        Raises:
            DataError: there is none, or it is no JSON.
        """
        if not self.result.is_file():
            raise DataError(f"{self.path}: no result.json; the run has not ended, or this is not a run's folder")
        try:
            content: dict[str, Any] = json.loads(self.result.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise DataError(f"{self.result}: not JSON ({error})") from error
        return content

    def completed(self) -> bool:
        """Whether the run came to its end."""
        return self.result.is_file() and self.read_result()["status"] == "completed"

    def read_metrics(self) -> Iterator[dict[str, float]]:
        """The lines of metrics.jsonl, in the order of writing. A last line cut short is left out."""
        if not self.metrics.is_file():
            return
        with self.metrics.open(encoding="utf-8") as lines:
            for line in lines:
                if line.endswith("\n"):
                    yield json.loads(line)

    def clear(self) -> None:
        """Remove what a run left here, so that another can take its place. Files of other kinds stay."""
        for file in (self.config, self.environment, self.metrics, self.table, self.result):
            file.unlink(missing_ok=True)
        (self.path / "traceback.txt").unlink(missing_ok=True)
        for events in self.path.glob("events.out.tfevents.*"):
            events.unlink()
        for folder in (self.checkpoints, self.figures):
            shutil.rmtree(folder, ignore_errors=True)

    def forget_after(self, step: int) -> None:
        """Drop result.json, figures and traceback of an earlier end, and the lines of metrics.jsonl that a resumed run
        from `step` will write again: those after it, and those of the tests where it was stopped between them and its
        end.
        """
        complete = self.completed()
        self.result.unlink(missing_ok=True)
        (self.path / "traceback.txt").unlink(missing_ok=True)
        shutil.rmtree(self.figures, ignore_errors=True)
        kept = [
            json.dumps(line)
            for line in self.read_metrics()
            if line["step"] <= step and (complete or not any(name.startswith("test") for name in line))
        ]
        partial = self.metrics.with_suffix(".partial")
        partial.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        os.replace(partial, self.metrics)


class MetricsFile:
    """Appends to metrics.jsonl: one object a line of metrics.

    Args:
        path: the file.
        fresh: a new run, whose file must not exist yet.

    Raises:
        FileExistsError: another run writes here.
    """

    def __init__(self, path: Path, *, fresh: bool) -> None:
        self._file = path.open("x" if fresh else "a", encoding="utf-8")

    def begin(self, step: int, total: int) -> None:
        """Nothing to do."""

    def step(self, step: int) -> None:
        """Nothing to do."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write one line, and give it to the operating system at once."""
        self._file.write(json.dumps({"step": step, **_plain(values)}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _plain(value: Any) -> Any:
    """JSON has no NaN or infinity: null stands for them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
