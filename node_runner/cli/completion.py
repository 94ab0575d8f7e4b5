"""Shell completion: Hydra's own, and the names of the commands.

Hydra's script asks `node-run -sc query=bash` with the line typed so far in COMP_LINE.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence


def is_query(arguments: Sequence[str]) -> bool:
    """Whether a shell is asking: then errors would land in the line that is being typed."""
    asked = "-sc" in arguments or "--shell-completion" in arguments
    return asked and any(argument.startswith("query=") for argument in arguments)


def complete_command(commands: Sequence[str]) -> bool:
    """Print the commands, or the groups and options of `list`, that complete the line.

    For the arguments of other commands the shell's own completion of files serves.

    Returns:
        Whether Hydra has nothing to add.
    """
    line = os.environ.get("COMP_LINE", "")
    words = line.split(" ")[1:]
    if len(words) < 2:
        print(*_fitting(commands, words), end=" ")
        return False
    if words[0] == "train":
        # Hydra knows no commands.
        os.environ["COMP_LINE"] = line.replace(" train ", " ", 1)
        os.environ["COMP_POINT"] = str(int(os.environ.get("COMP_POINT", len(line))) - len("train "))
        return False
    if words[0] == "list" and len(words) <= 3:
        from node_runner.cli.list.command import groups

        known = groups(None)
        print(*_fitting(known if len(words) == 2 else [option.name for option in known.get(words[1], [])], words))
    return words[0] in commands


def _fitting(names: Iterable[str], words: Sequence[str]) -> list[str]:
    return [name for name in names if name.startswith(words[-1] if words else "")]
