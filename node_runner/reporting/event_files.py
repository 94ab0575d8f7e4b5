"""TensorBoard's event files of a run that begins anew or goes on."""

from __future__ import annotations

import os
from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter


def forget_after(folder: Path, step: int, written_once: tuple[str, ...]) -> None:
    """Drop from the event files in `folder` what a run that is resumed at `step` will write again.

    TensorBoard keeps the first of what it takes for a property of the run, such as its row in the
    HParams table: without this a run that was interrupted and then completed would stay "interrupted".

    Args:
        folder: of the run.
        step: of its checkpoint; later points of the curves go.
        written_once: prefixes of tags that go at any step.
    """
    for file in sorted(folder.glob("events.out.tfevents.*")):
        partial = file.with_name(f"partial.{file.name}")
        with partial.open("wb") as out:
            writer = RecordWriter(out)
            for record in RawEventFileLoader(str(file)).Load():
                event = Event.FromString(record)
                tags = [value.tag for value in event.summary.value]
                if event.step <= step and not any(tag.startswith(written_once) for tag in tags):
                    writer.write(record)
        os.replace(partial, file)
