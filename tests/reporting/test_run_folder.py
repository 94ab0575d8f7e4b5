"""What a run leaves, when it is taken up again."""

from __future__ import annotations

import json
from pathlib import Path

from node_runner.reporting.run_folder import RunFolder


def test_a_resumed_run_forgets_what_it_will_write_again_tests_of_its_last_step_too(tmp_path: Path):
    folder = RunFolder(tmp_path)
    lines = [{"step": 10, "train/loss": 1.0}, {"step": 20, "val/loss": 0.5}, {"step": 20, "test_long/loss": 0.6},
             {"step": 30, "train/loss": 0.4}]  # fmt: skip
    folder.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    folder.forget_after(20)
    assert list(folder.read_metrics()) == lines[:2]
