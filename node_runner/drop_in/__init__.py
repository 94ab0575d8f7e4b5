"""torchdiffeq's functions under this package's name, so that a script changes one import.

    from node_runner import odeint, odeint_adjoint, odeint_event

Signature, semantics and return values are those of torchdiffeq's development version, with its newer methods (tsit5
and the implicit ones) whatever the version that is installed. A call that an engine of ours can serve goes there,
any other to torchdiffeq unchanged; `node_runner.explain` says which and why, and `node_runner.fast_path(False)`, or
NODE_RUNNER_FAST=0 in the environment, sends every call to torchdiffeq.

A library that calls torchdiffeq is served by them too, where they are put in its place before the library is imported:
`torchdiffeq.odeint = node_runner.odeint`.

engine=native serves a call whose state is one real tensor (..., D), whose method is an explicit Runge-Kutta method,
whose field is a chain of linear layers and activations, of the state or a power of it, with the time or without, a
number times that and a number times the state beside it (see `node_runner.tracing`), and whose options, norms and
tolerances are plain. The field is a module, or a function, method or other callable that names its modules.
After `node_runner.fast_path("compiled")` engine=compiled serves the others of such calls, if their field is a graph of
operations; their state may be of any shape, or a tuple. Then:

- values are torchdiffeq's to rounding, and steps the same; in float32 rounding moves the step sizes a little, and
  with them the values, by far less than the tolerance;
- the gradient of `odeint` is that of the computed numbers with the step sizes as constants. torchdiffeq differentiates
  its estimate of the first step too; with options={"first_step": ...} the two are the same;
- the field's forward is not called, so that a field that has hooks or callbacks, or does anything else beside
  computing, is never served; but one that counts its calls, `self.nfe += 1`, is, and counts as ever;
- what a field or function is made of is looked at before every call: what was replaced since is seen;
- with `create_graph=True` the gradient of `odeint` is torchdiffeq's, which then solves again; that of
  `odeint_adjoint` cannot be differentiated again, as torchdiffeq's cannot;
- a solve that an engine gives up goes to torchdiffeq, whose error the script knows.
"""

from __future__ import annotations

from node_runner.drop_in.functions import explain as explain
from node_runner.drop_in.functions import odeint as odeint
from node_runner.drop_in.functions import odeint_adjoint as odeint_adjoint
from node_runner.drop_in.functions import odeint_event as odeint_event
from node_runner.drop_in.switch import fast_path as fast_path
