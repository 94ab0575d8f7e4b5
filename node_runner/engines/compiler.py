"""The machine's C++ compiler, which two engines need."""

from __future__ import annotations

import functools
import os
import shutil


LOOKED_FOR = "looked for $CXX, g++ and clang++"


@functools.cache
def compiler() -> str | None:
    """The C++ compiler: $CXX, g++ or clang++, the first that is there."""
    named = (os.environ.get("CXX"), "g++", "clang++")
    return next((path for name in named if name and (path := shutil.which(name))), None)
