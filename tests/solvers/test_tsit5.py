"""The coefficients of tsit5 are ours: they meet the order conditions, and so does what is made from them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torchdiffeq

from node_runner.engines.extended import functions as extended
from node_runner.tableaux import IMPLICIT, TSIT5
from node_runner.types import Tableau
from tests.problems import METHODS, CountingField, SmallField, differentiable, make_method, nonlinear, solve


def residuals(tableau: Tableau, order: int) -> list[float]:
    """What is left of the order conditions of one order (Hairer, Norsett and Wanner, table II.2.2)."""
    a = torch.tensor(tableau.a, dtype=torch.float64)
    b, c = torch.tensor(tableau.b, dtype=torch.float64), torch.tensor(tableau.c, dtype=torch.float64)
    ac, ac2, aac = a @ c, a @ c**2, a @ a @ c
    conditions = {
        1: [(torch.ones_like(c), 1)],
        2: [(c, 2)],
        3: [(c**2, 3), (ac, 6)],
        4: [(c**3, 4), (c * ac, 8), (ac2, 12), (aac, 24)],
        5: [
            (c**4, 5), (c**2 * ac, 10), (c * ac2, 15), (c * aac, 30), (ac**2, 20), (a @ c**3, 20),
            (a @ (c * ac), 40), (a @ ac2, 60), (a @ aac, 120),
        ],
    }  # fmt: skip
    return [abs(float(b @ vector) - 1 / divisor) for vector, divisor in conditions[order]]


def holds(tableau: Tableau, order: int) -> bool:
    return all(residual < 1e-14 for p in range(1, order + 1) for residual in residuals(tableau, p))


def test_the_solution_is_of_order_five_and_the_embedded_one_of_order_four():
    assert holds(TSIT5, 5)
    embedded = replace(TSIT5, b=tuple(b + e for b, e in zip(TSIT5.b, TSIT5.error, strict=True)))
    assert holds(embedded, 4)
    assert max(residuals(embedded, 5)) > 1e-4


def test_the_middle_of_a_step_is_of_order_four():
    twice = Tableau(
        tuple(2 * c for c in TSIT5.c),
        tuple(tuple(2 * a for a in row) for row in TSIT5.a),
        tuple(2 * b for b in TSIT5.middle),
    )
    assert holds(twice, 4)


@pytest.mark.parametrize("name", IMPLICIT)
def test_the_coefficients_of_an_implicit_method_meet_the_conditions_of_its_order(name: str):
    order = METHODS[name].order
    assert order is not None
    assert holds(IMPLICIT[name], min(order, 5))
    for node, row in zip(IMPLICIT[name].c, IMPLICIT[name].a, strict=True):
        assert node == pytest.approx(sum(row), abs=1e-15)


def test_the_last_stage_is_the_new_solution_so_that_a_step_costs_six_evaluations():
    assert TSIT5.ends_in_solution
    field, y0, exact = nonlinear()
    ts = torch.tensor([0.0, 2.0], dtype=torch.float64)
    solution = solve(make_method("tsit5", first_step=0.1), field, y0, ts, rtol=1e-8, atol=1e-8)
    assert solution.stats.nfe_forward == 1 + 6 * (solution.stats.accepted + solution.stats.rejected)
    torch.testing.assert_close(solution.ys[-1], exact(ts)[-1], rtol=0, atol=1e-6)


def test_torchdiffeq_s_own_table_is_left_alone():
    from torchdiffeq._impl.odeint import SOLVERS

    before = dict(SOLVERS)
    assert extended.METHODS <= extended.methods()
    assert before == SOLVERS
    assert torchdiffeq.odeint is not extended.package().odeint


@pytest.mark.parametrize("name", ["dopri5", "bosh3", "rk4", "implicit_adams"])
def test_the_copy_answers_as_torchdiffeq_does(name: str):
    y0 = torch.randn(3, 3, dtype=torch.float64)
    ts = torch.tensor([1.0, 0.4, 0.0], dtype=torch.float64)
    fields = CountingField(SmallField()), CountingField(SmallField())
    ours, theirs = (
        function(field, y0, ts, rtol=1e-4, atol=1e-5, method=name)
        for function, field in zip((extended.odeint, torchdiffeq.odeint), fields, strict=True)
    )
    assert torch.equal(ours, theirs)
    assert fields[0].calls == fields[1].calls


def test_its_gradients_agree_with_those_of_dopri5():
    gradients = []
    for name in ("tsit5", "dopri5"):
        field, y0 = SmallField(), torch.linspace(-1, 1, 6, dtype=torch.float64).view(2, 3).requires_grad_(True)
        ts = torch.tensor([0.0, 1.0], dtype=torch.float64)
        ys = differentiable(make_method(name), "on", rtol=1e-9, atol=1e-9)(field, y0, ts).ys
        gradients.append(torch.autograd.grad(ys.sin().sum(), [y0, *field.parameters()]))
    for mine, other in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)
