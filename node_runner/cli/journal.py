"""How the jobs of a sweep ended: a line each in the sweep's folder, whichever process ran them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from node_runner.errors import DataError


FILE = "jobs.jsonl"


@dataclass
class Job:
    """One job.

    Attributes:
        number: its place in the sweep.
        overrides: that make it.
        folder: name of its folder within the sweep's.
        status: done, skipped (it was done before), interrupted, failed, or refused (and then it has no folder).
        reason: why it failed or was refused.
    """

    number: int
    overrides: list[str]
    folder: str
    status: str = "done"
    reason: str = ""


def begin(sweep: Path) -> None:
    """Forget how the jobs of an earlier sweep into this folder ended."""
    (sweep / FILE).unlink(missing_ok=True)


def note(sweep: Path, job: Job) -> None:
    """Write down how a job ended."""
    with (sweep / FILE).open("a", encoding="utf-8") as jobs:
        jobs.write(json.dumps(asdict(job)) + "\n")


def read(sweep: Path) -> list[Job]:
    """The jobs that have ended, by their number; none where this is no sweep.

    Raises:
        DataError: the file was altered.
    """
    file = sweep / FILE
    if not file.is_file():
        return []
    try:
        jobs = [Job(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]
    except (json.JSONDecodeError, TypeError) as error:
        raise DataError(f"{file}: not a journal of jobs ({error})") from error
    return sorted(jobs, key=lambda job: job.number)


def names(jobs: Sequence[Job]) -> list[str]:
    """What tells the jobs apart: their overrides, but for those that all have."""
    common = set[str]().union(*(job.overrides for job in jobs)) if len(jobs) > 1 else set()
    common = common.intersection(*(job.overrides for job in jobs))
    return [" ".join(item for item in job.overrides if item not in common) or f"job {job.number}" for job in jobs]
