"""Ctrl-C while modules are imported ends the program at once, with one line.

An exception in the middle of an import may be caught there or reworded, or leave a module half made, whose next use
fails with an error of its own.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType


class Leaving:
    """Within this block Ctrl-C ends the program, in which nothing has begun yet.

    Nothing is changed where Ctrl-C is ignored, as in programs that a shell starts in the background, or is another's.

    Args:
        tidy: called before the end.
    """

    def __init__(self, tidy: Callable[[], object] = lambda: None) -> None:
        self._tidy = tidy
        self._before: object = None

    def __enter__(self) -> None:
        self._before = signal.getsignal(signal.SIGINT)
        if self._before is signal.default_int_handler:
            try:
                signal.signal(signal.SIGINT, self._leave)
            except ValueError:  # not the main thread, which is where signals arrive
                self._before = None

    def _leave(self, number: int, frame: FrameType | None) -> None:
        self._tidy()
        os.write(2, b"node-run: interrupted\n")
        os._exit(130)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.default_int_handler)
