"""The program `node-run`, and `python -m node_runner` for where its folder is not on the path.

Ctrl-C is heard before anything else is imported. What comes earlier, in the first hundredths of a second, is Python's
own start.
"""

from __future__ import annotations

import signal

from node_runner.cli.leaving import Leaving


def main() -> None:
    """Entry point of the program."""
    with Leaving():
        from node_runner.cli.main import main as run
    try:
        run()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done and said: what is left is Python's own end


if __name__ == "__main__":
    main()
