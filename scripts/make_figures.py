"""Draw the figures of runs again, from their best checkpoints.

    python scripts/make_figures.py                                # every run below outputs/
    python scripts/make_figures.py outputs/2026-01-31/12-00-00-000000 outputs/sweeps/solvers
    python scripts/make_figures.py --place cpu --formats pdf,svg

For a change of style, or a run that was copied from another machine: config.yaml says how to build the run and
checkpoints/best.pt holds its weights; figures/ is written anew. A folder that holds runs stands for all of them.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from node_runner.assemble import assemble
from node_runner.errors import NodeRunnerError
from node_runner.reporting.run_folder import RunFolder
from node_runner.runs.config_file import load_run
from node_runner.runs.run import draw_figures
from node_runner.training import checkpoint


def runs_below(paths: Sequence[Path]) -> Iterator[Path]:
    """Every folder at or below `paths` that holds a run with a best checkpoint, once."""
    seen = set()
    for path in paths:
        for file in sorted(path.rglob("checkpoints/best.pt")):
            folder = file.parent.parent
            if folder.resolve() not in seen:
                seen.add(folder.resolve())
                yield folder


def redraw(path: Path, place: str, formats: str | None) -> list[str]:
    """Draw one run, in its own formats if none are given; the names of its figures.

    Raises:
        NodeRunnerError: the run cannot be built here, or a file of it cannot be read.
    """
    folder = RunFolder(path)
    overrides = [f"device.place={place}", *([f"figures=[{formats}]"] if formats else [])]
    experiment = assemble(load_run(folder.config, overrides))
    best = checkpoint.load(folder.checkpoints / "best.pt", experiment.device)
    experiment.model.load_state_dict(best["model"])
    experiment.model.eval()
    metrics = folder.read_result()["metrics"] if folder.result.is_file() else {}
    return draw_figures(experiment, folder, metrics)


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw; 0 where every run could be drawn."""
    parser = argparse.ArgumentParser(
        description=inspect.cleandoc(__doc__ or ""), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="*", type=Path, default=[Path("outputs")], help="folders (default: outputs)")
    parser.add_argument("--place", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="device to solve on")
    parser.add_argument("--formats", help="such as pdf,svg (default: those of the run)")
    options = parser.parse_args(arguments)
    folders = list(runs_below(options.runs))
    if not folders:
        print(f"make_figures: no run with checkpoints/best.pt at or below {', '.join(map(str, options.runs))}",
              file=sys.stderr)  # fmt: skip
        return 1
    failed = 0
    for folder in folders:
        try:
            names = redraw(folder, options.place, options.formats)
        except NodeRunnerError as error:
            print(f"make_figures: {folder}: {error}", file=sys.stderr)
            failed += 1
            continue
        print(f"{folder / 'figures'}: {', '.join(names) or 'nothing to draw'}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
