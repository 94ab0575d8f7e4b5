"""What settings are made of: ranges of numbers, choices of words, and the groups that belong to no component.

Nothing here imports torch: the command line reads these classes to check what was typed.
"""

from node_runner.settings.choices import *  # noqa: F403
from node_runner.settings.groups import *  # noqa: F403
from node_runner.settings.ranges import *  # noqa: F403
