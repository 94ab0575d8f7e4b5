"""Recognises a user's own module or function as a chain of linear layers and activations, without being told.

The chain is found by running the module on a small batch and looking at what it called (`recording`), which says what
it computes. Whether it does anything beside that, which would be lost where the network is written out instead of
called, is read from its source (`definition`, `purity`). Where either is in doubt the module is not recognised. One
that counts its calls, `self.nfe += 1`, is by those alone who count for it. A function is taken for a module whose parts
are the modules that it names (`closed`).
"""

from __future__ import annotations

from node_runner.tracing.chains import Chain as Chain
from node_runner.tracing.chains import chain_of as chain_of
from node_runner.tracing.closed import as_module as as_module
from node_runner.tracing.recording import SLOPE as SLOPE
