"""A field that is affine in the state."""

from __future__ import annotations

from torch import Tensor, nn

from node_runner.errors import ConfigError
from node_runner.fields import FIELDS


@FIELDS.register("affine", "dy/dt = A y + b: free fall, oscillators and whatever else is linear")
class Affine(nn.Module):
    """f(y) = A y + b, all of it learned.

    Args:
        shape: (D,) of one state.
        outputs: numbers that f gives (None: D).

    Raises:
        ConfigError: the state is not a vector.
    """

    state_ndim = 1
    time_dependent = False

    def __init__(self, shape: tuple[int, ...], outputs: int | None = None, /) -> None:
        super().__init__()
        if len(shape) != 1:
            raise ConfigError(f"field=affine needs a state that is a vector, got one of shape {shape}; use field=conv")
        self.linear = nn.Linear(shape[0], shape[0] if outputs is None else outputs)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """t: () or (B,), y: (B, D) -> (B, D or outputs)."""
        dy: Tensor = self.linear(y)
        return dy
