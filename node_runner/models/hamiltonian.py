"""A neural ODE that conserves an energy by construction."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from node_runner.errors import ConfigError
from node_runner.learning import Regulariser
from node_runner.models import MODELS
from node_runner.models.parts.block import MakeField, ODEBlock
from node_runner.models.parts.declarations import learns_from
from node_runner.models.parts.energy import Hamiltonian, Separable
from node_runner.models.parts.trajectory import TrajectoryModel
from node_runner.types import Integrate
from node_runner.views import DataSpec, View


@MODELS.register("hamiltonian", "Hamiltonian network: the field is the symplectic gradient of a learned energy")
@learns_from(View.trajectories)
def hamiltonian(
    spec: DataSpec,
    make_field: MakeField,
    solve: Integrate,
    regularisers: Mapping[str, Regulariser],
    /,
    *,
    separable: bool = False,
) -> nn.Module:
    """dq/dt = dH/dp, dp/dt = -dH/dq on trajectories of states [q, p], positions first.

    The exact flow of such a field keeps H, whatever has been learned; a solver keeps it up to its own error, and
    solver=leapfrog with separable=true keeps it within bounds for ever.

    Source: Greydanus, Dzamba, Yosinski, Hamiltonian Neural Networks (2019); trained through the solve, as in
    Chen, Zhang, Arjovsky, Bottou, Symplectic Recurrent Neural Networks (2020).

    Args:
        spec: of the data.
        make_field: makes the network whose outputs are summed to the energy.
        solve: the differentiable solve.
        regularisers: integrated along the solve.
        separable: H = T(p) + V(q), a network each, as for most mechanical systems.

    Raises:
        ConfigError: a state without halves.
    """
    dim = spec.shape[0]
    if dim % 2:
        raise ConfigError(
            f"model=hamiltonian needs states [q, p] of even size, and dataset={spec.dataset} has {dim} axes: "
            "use model=node"
        )

    def conserving(shape: tuple[int, ...]) -> nn.Module:
        half = (shape[0] // 2,)
        network = Separable(make_field(half), make_field(half)) if separable else make_field(shape)
        return Hamiltonian(network, spec.std)

    return TrajectoryModel(spec, ODEBlock(conserving, solve, regularisers, spec.shape))
