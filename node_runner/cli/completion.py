"""Shell completion: Hydra's own, and the names of the commands."""

from __future__ import annotations

import os
from collections.abc import Sequence


def complete_commands(arguments: Sequence[str], commands: Sequence[str]) -> None:
    """Print the commands that fit the first word, ahead of the groups that Hydra prints.

    Hydra's script asks `node-run -sc query=bash` with the line typed so far in COMP_LINE.
    """
    words = os.environ.get("COMP_LINE", "").split(" ")
    if "query=bash" in arguments and len(words) == 2:
        print(*(name for name in commands if name.startswith(words[1])), end=" ")
