"""What a checkpoint keeps of a run in progress: enough to go on bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from node_runner.runtime import restore_rng, rng_state
from node_runner.training import checkpoint
from node_runner.training.trained import Trained


if TYPE_CHECKING:
    from node_runner.training.loop import Trainer


def state_of(trainer: Trainer) -> dict[str, Any]:
    """All that changes in training. The batches and the learning rate are functions of the step."""
    return {
        "model": trainer.model.state_dict(),
        "average": None if trainer.average is None else trainer.average.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "rng": rng_state(),
        "meter": trainer.meter.state_dict(),
        "pending": dict(trainer.pending),
        "seconds_of_line": trainer.seconds_of_line,
        "bad_evaluations": trainer.bad_evaluations,
        "peak_mb": trainer.peak_mb,
        "state": vars(trainer.state),
    }


def reinstate(trainer: Trainer, saved: dict[str, Any]) -> None:
    """Undo `state_of`, in a trainer of the same parts; its lengths and intervals may be others.

    Raises:
        ConfigError: a setting of the trainer brings parameters that the run has not had, or takes some away.
    """
    checkpoint.put(saved["model"], trainer.model, "keep trainer.first_states, shooting and residual as they were")
    if trainer.average is not None and saved["average"] is not None:
        trainer.average.load_state_dict(saved["average"])
    trainer.optimizer.load_state_dict(saved["optimizer"])
    restore_rng({name: _on_cpu(value) for name, value in saved["rng"].items()})
    trainer.meter.load_state_dict(saved["meter"], trainer.device)
    trainer.pending = saved["pending"]
    trainer.seconds_of_line = saved["seconds_of_line"]
    trainer.bad_evaluations = saved["bad_evaluations"]
    trainer.peak_mb = saved["peak_mb"]
    trainer.state = Trained(**{**saved["state"], "status": "completed", "reason": Trained.reason})


def _on_cpu(state: Any) -> Any:
    """Generator states live on the CPU, wherever the checkpoint was loaded to."""
    return [part.cpu() for part in state] if isinstance(state, list) else state.cpu()
