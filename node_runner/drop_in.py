"""torchdiffeq's two functions under this package's name, so that a script changes one import.

Signature, semantics and return values are torchdiffeq's; today the calls pass through to it.
"""

from torchdiffeq import odeint as odeint
from torchdiffeq import odeint_adjoint as odeint_adjoint


__all__ = ["odeint", "odeint_adjoint"]
