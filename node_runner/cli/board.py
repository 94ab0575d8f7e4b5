"""`node-run board`: TensorBoard on a folder of runs."""

from __future__ import annotations

import contextlib
import io
import logging
import signal
import threading
from pathlib import Path

from node_runner.cli.runs import find_runs
from node_runner.errors import ConfigError


def board(folder: Path, port: int, host: str) -> None:
    """Serve until Ctrl-C.

    Args:
        folder: with runs below it.
        port: to listen on (0: the first free one from 6006).
        host: address to listen on.

    Raises:
        ConfigError: no TensorBoard, no such folder, a port that is taken, or no such host.
    """
    runs = find_runs([str(folder)])
    try:
        from tensorboard import program
    except ImportError as error:
        raise ConfigError(f"TensorBoard is not installed ({error}): pip install tensorboard") from error
    server = program.TensorBoard()
    # It logs to stderr what is said here in one line.
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    arguments = ["tensorboard", "--logdir", str(folder), "--host", host, *(["--port", str(port)] if port else [])]
    server.configure(argv=arguments)
    said = io.StringIO()  # notes on its ways of loading, and before it exits the reason
    try:
        with contextlib.redirect_stderr(said):
            address = server.launch()
    except (SystemExit, program.TensorBoardServerException) as error:
        reason = (said.getvalue().split("\n\n")[-1].strip() if isinstance(error, SystemExit) else "") or error
        raise ConfigError(
            f"TensorBoard cannot listen on {host}:{port or 6006}: {reason}; try another --port or --host"
        ) from error
    # A shell starts background programs with Ctrl-C ignored; this one is to be ended by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        print(f"{len(runs)} run{'s' * (len(runs) != 1)} below {folder}: {address}  (Ctrl-C ends)", flush=True)
        threading.Event().wait()
    except KeyboardInterrupt:
        print("TensorBoard has ended")
