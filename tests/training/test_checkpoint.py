"""Checkpoints: whole or not at all, and a sentence for every file that is none."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from node_runner.errors import DataError
from node_runner.training import checkpoint


CPU = torch.device("cpu")
STATE = {"weights": {"w": torch.arange(1000.0)}, "step": 7, "metrics": {"val/loss": 0.5}, "nothing": None}


def test_what_was_saved_is_loaded(tmp_path: Path):
    file = tmp_path / "deep" / "last.pt"
    checkpoint.save(file, STATE)
    loaded = checkpoint.load(file, CPU)
    assert torch.equal(loaded["weights"]["w"], STATE["weights"]["w"])
    assert {key: loaded[key] for key in ("step", "metrics", "nothing")} == {
        key: STATE[key] for key in ("step", "metrics", "nothing")
    }


def test_saving_leaves_one_file_and_replaces_the_old_one(tmp_path: Path):
    file = tmp_path / "last.pt"
    checkpoint.save(file, STATE)
    checkpoint.save(file, {**STATE, "step": 8})
    assert [each.name for each in tmp_path.iterdir()] == ["last.pt"]
    assert checkpoint.load(file, CPU)["step"] == 8


def test_a_save_that_fails_leaves_the_old_checkpoint(tmp_path: Path):
    file = tmp_path / "last.pt"
    checkpoint.save(file, STATE)
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        checkpoint.save(file, {"step": 8, "function": lambda: None})
    assert checkpoint.load(file, CPU)["step"] == 7


def test_a_missing_checkpoint_is_named(tmp_path: Path):
    with pytest.raises(DataError, match="no such checkpoint"):
        checkpoint.load(tmp_path / "last.pt", CPU)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_checkpoint_is_told_from_a_whole_one(tmp_path: Path, share: float):
    file = tmp_path / "last.pt"
    checkpoint.save(file, STATE)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=r"last\.pt: cannot be read as a checkpoint .* is it truncated\?"):
        checkpoint.load(file, CPU)


def test_a_file_of_something_else_is_refused(tmp_path: Path):
    file = tmp_path / "last.pt"
    file.write_text("hello")
    with pytest.raises(DataError, match="cannot be read as a checkpoint"):
        checkpoint.load(file, CPU)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path):
    file, trace = tmp_path / "last.pt", tmp_path / "was-run"

    class Bad:
        def __reduce__(self):
            return Path.touch, (trace,)

    torch.save({"format": checkpoint.FORMAT, "bad": Bad()}, file)
    with pytest.raises(DataError, match="cannot be read as a checkpoint"):
        checkpoint.load(file, CPU)
    assert not trace.exists()


@pytest.mark.parametrize("content", [{"format": 99}, {"step": 1}], ids=["newer", "none"])
def test_another_format_is_refused(tmp_path: Path, content: dict[str, int]):
    file = tmp_path / "last.pt"
    torch.save(content, file)
    with pytest.raises(DataError, match=r"a checkpoint of format (99|None), and this version reads 2"):
        checkpoint.load(file, CPU)
