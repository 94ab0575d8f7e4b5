"""torchdiffeq's own functions, whatever stands under its name.

    torchdiffeq.odeint = node_runner.odeint

makes a library that calls torchdiffeq call this package. What this package hands on would come back to it without end,
and therefore goes to the functions of the files that define them.
"""

from __future__ import annotations

import torchdiffeq


if not hasattr(torchdiffeq, "_impl"):
    raise ImportError(
        f"sys.modules['torchdiffeq'] is {torchdiffeq.__name__}, and node_runner needs torchdiffeq itself: leave it "
        "and replace its functions before others import them, torchdiffeq.odeint = node_runner.odeint"
    )

from torchdiffeq._impl.adjoint import odeint_adjoint as odeint_adjoint
from torchdiffeq._impl.odeint import odeint as odeint
from torchdiffeq._impl.odeint import odeint_event as odeint_event


SPEC = torchdiffeq.__spec__
"""Where torchdiffeq is."""
