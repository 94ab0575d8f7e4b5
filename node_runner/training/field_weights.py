"""What is done to a field's weights beside the gradient: decay, and limits that fields set themselves."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from node_runner.errors import ConfigError


class FieldDecay:
    """Decoupled weight decay of the fields alone: w -= lr rate w, before the optimiser takes its step.

    With Adam that is AdamW (Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019) for these parameters.

    Args:
        fields: whose parameters decay.
        rate: of the decay.
    """

    def __init__(self, fields: Sequence[nn.Module], rate: float) -> None:
        self.rate = rate
        self._weights = [p.detach() for field in fields for p in field.parameters() if p.requires_grad]

    @classmethod
    def of(cls, fields: Sequence[nn.Module], rate: float, optimizer: str) -> FieldDecay | None:
        """The decay of a run, None where the rate is 0.

        Raises:
            ConfigError: the model has no field, or the optimiser evaluates several gradients in a step.
        """
        if not rate:
            return None
        if not fields:
            raise ConfigError(f"trainer.field_weight_decay={rate:g}: this model has no field; use optimizer=adamw")
        if optimizer == "lbfgs":
            raise ConfigError(
                f"trainer.field_weight_decay={rate:g} would change weights within a step of optimizer=lbfgs: "
                "use optimizer=adam, or trainer.field_weight_decay=0"
            )
        return cls(fields, rate)

    def shrink(self, lr: float) -> None:
        """Decay once, at a learning rate."""
        torch._foreach_mul_(self._weights, 1 - lr * self.rate)

    def scalars(self) -> dict[str, float]:
        """The norm of all that decays."""
        return {"field/weight_norm": float(torch.stack(torch._foreach_norm(self._weights)).norm())}


class Limits:
    """The limits that modules of a model set on their weights: those whose `spectral_norm` is not None.

    Each has `constrain()`, which brings the weights within the limit, and `scalars()`, {name: ()} of their sizes.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = [m for m in model.modules() if getattr(m, "spectral_norm", None) is not None]

    def impose(self) -> None:
        """Bring the weights back within them, after an optimiser step."""
        for module in self._modules:
            module.constrain()  # type: ignore[operator]

    def scalars(self) -> dict[str, float]:
        """What the first of these modules says of its weights, as field/NAME."""
        first = self._modules[:1]
        return {f"field/{k}": float(v) for module in first for k, v in module.scalars().items()}  # type: ignore[operator]
