"""Before a field is compiled: is its graph all that it does?"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from node_runner.engines.compiled.reading import Reading, Unreadable, read
from node_runner.engines.compiled.tracing import Untraceable, fake_mode, trace
from node_runner.types import Dynamics, Norm


TIME = 0.25
"""At which graph and field are compared."""


def trial(f: Dynamics, norm: Norm | None, reading: Reading, y0: Tensor) -> str | None:
    """What speaks against compiling a field, in words that complete "the field ...", or None.

    It is traced without numbers, which shows random draws and writes before they happen; then its graph and the
    field itself are evaluated once and compared.
    """
    draws, more_draws = random.getstate(), np.random.get_state()  # noqa: NPY002 - fields of users may use it
    try:
        reason = _tried(f, norm, reading, y0)
        drew = random.getstate() != draws or str(np.random.get_state()) != str(more_draws)  # noqa: NPY002
        return "draws random numbers when it is called" if drew else reason
    finally:
        random.setstate(draws)
        np.random.set_state(more_draws)  # noqa: NPY002


def _tried(f: Dynamics, norm: Norm | None, reading: Reading, y0: Tensor) -> str | None:
    y0 = y0.detach().contiguous()
    clock = torch.full((1,), TIME, dtype=y0.dtype, device=y0.device)

    def evaluate(states: Sequence[Tensor], tensors: Sequence[Tensor]) -> list[Tensor]:
        with torch.no_grad(), reading.holding(tensors):
            result = [f(states[0][0], states[1])]
            if not reading.holds(tensors):
                raise Untraceable("puts a tensor of its own in another's place with every call")
        return result

    try:
        graph = trace(evaluate, [[clock, y0], list(reading.tensors)], fake_mode())
        if read(f, norm).key != reading.key:
            return "changes something of its own with every call, such as a counter, which compiled code would not"
    except (Untraceable, Unreadable) as reason:
        return str(reason)
    except Exception as error:  # whatever a user's code does with a tensor that has no numbers
        first = next(iter(str(error).splitlines()), type(error).__name__)
        return f"cannot be written down as a graph ({first[:200]})"
    finally:
        reading.restore()
    with torch.no_grad():
        expected: Tensor = f(clock[0], y0)
        (got,) = graph(clock, y0, *(tensor.detach() for tensor in reading.tensors))
    reading.restore()
    if expected.shape != y0.shape:
        return f"gives {tuple(expected.shape)} for a state of {tuple(y0.shape)}"
    finite = expected[expected.isfinite()]
    size = float(finite.abs().max()) if finite.numel() else 0.0
    tolerance = 1e-3 if y0.dtype is torch.float32 else 1e-8
    if not torch.allclose(got, expected, rtol=tolerance, atol=tolerance * size, equal_nan=True):
        return "gives other numbers when it is run again as a graph of operations"
    return None
