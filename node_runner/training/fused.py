"""Adam for small networks: torch's fused kernel with nothing around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class FusedAdam(torch.optim.Adam):
    """`torch.optim.Adam(fused=True)` to the bit, in a third of the time where parameters are few.

    torch gathers parameters, moments and settings anew in every step and surrounds that with hooks and
    switches, which takes longer than the kernel. The lists that the kernel wants stay the same between two
    steps, so they are kept here. Whatever is out of the ordinary (the first step, a checkpoint just loaded, a
    parameter without a gradient) is torch's own step.

    Args:
        parameters: to be optimised, in one group.
        lr, betas, eps, weight_decay: as torch's.
        decoupled: weight decay apart from the gradient, as AdamW.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float = 0.0,
        decoupled: bool = False,
    ) -> None:
        super().__init__(
            parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, decoupled_weight_decay=decoupled,
            fused=True,
        )  # fmt: skip
        self._kernel = torch._fused_adamw_ if decoupled else torch._fused_adam_
        self._kept: tuple[list[Tensor], ...] | None = None

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step, after `closure` has computed loss and gradient; returns what it returns."""
        loss = None if closure is None else closure()
        (group,) = self.param_groups
        gradients = [parameter.grad for parameter in group["params"]]
        if self._kept is None or any(gradient is None for gradient in gradients):
            super().step()
            self._kept = self._lists(group["params"])
            return loss
        parameters, means, squares, steps = self._kept
        torch._foreach_add_(steps, 1)
        self._kernel(
            parameters, gradients, means, squares, [], steps,
            lr=group["lr"], beta1=group["betas"][0], beta2=group["betas"][1], weight_decay=group["weight_decay"],
            eps=group["eps"], amsgrad=False, maximize=False,
        )  # fmt: skip
        return loss

    step.hooked = True  # type: ignore[attr-defined]  # or torch wraps it, for hooks that nobody registers

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's."""
        super().load_state_dict(state_dict)
        self._kept = None

    def _lists(self, parameters: Sequence[nn.Parameter]) -> tuple[list[Tensor], ...] | None:
        """Parameters, first and second moments and step counts; None if some are not there yet."""
        states = [self.state[parameter] for parameter in parameters if parameter in self.state]
        if len(states) < len(parameters):
            return None
        names = ("exp_avg", "exp_avg_sq", "step")
        return [parameter.detach() for parameter in parameters], *([state[name] for state in states] for name in names)
