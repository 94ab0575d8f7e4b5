"""Spectral normalisation by projection: weights whose singular values stay below a limit.

After each optimiser step a weight that stretches by more than the limit is scaled down to it, and others stay as they
are. Between steps the field is a plain network, the same at every evaluation of a solve, so that every engine serves
it; and since such weights form a convex set, a moving average of them keeps the limit too.

Sources: Miyato, Kataoka, Koyama, Yoshida, Spectral Normalization for Generative Adversarial Networks (2018), whose
scaling is part of the network; as a projection Gouk, Frank, Pfahringer, Cree, Regularisation of neural networks by
enforcing Lipschitz continuity (2021).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


@torch.no_grad()
def cap(weights: Sequence[Tensor], largest: float | None) -> None:
    """Scale each weight (m, n...) so that its largest singular value, as a matrix (m, n), is at most `largest`."""
    if largest is None:
        return
    for weight in weights:
        weight.mul_((largest / stretch(weight)).clamp(max=1.0))


@torch.no_grad()
def bounds(weights: Sequence[Tensor], slope: float) -> dict[str, Tensor]:
    """The largest singular value, and a bound on the Lipschitz constant of a network with activations of a slope."""
    values = torch.stack([stretch(weight) for weight in weights])
    return {"singular_value": values.max(), "lipschitz": values.prod() * slope ** (len(weights) - 1)}


def stretch(weight: Tensor) -> Tensor:
    """Largest singular value of a weight (m, n...) as a matrix (m, n), ()."""
    return torch.linalg.matrix_norm(weight.flatten(1), ord=2)
