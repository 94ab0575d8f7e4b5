"""Part (c) of gpu_check.py: every solver with every adjoint, by every engine."""

from __future__ import annotations

import argparse
from typing import Any

import torch
from gpu_part import Part
from torch import Tensor

from node_runner.adjoints import ADJOINTS
from node_runner.engines import ENGINES
from node_runner.errors import ConfigError
from node_runner.fields import FIELDS
from node_runner.settings import ToleranceConfig
from node_runner.solvers import SOLVERS
from node_runner.solving import Solve, Tolerances


def solve_once(engine: str, solver: str, adjoint: str, device: str, outputs: int, rtol: float) -> Tensor:
    """Final state and gradient of one solve, flat, on the CPU."""
    torch.manual_seed(0)
    method = SOLVERS.build(SOLVERS.schema(solver)(), solver)
    tolerances = Tolerances(ToleranceConfig(rtol=rtol, atol=rtol / 100))
    solve = Solve(
        ENGINES.build(ENGINES.schema(engine)()), method, ADJOINTS.build(ADJOINTS.schema(adjoint)()), tolerances
    )
    network = FIELDS.build(FIELDS.schema("mlp")(width=16), (2,)).double().to(device)
    y0 = torch.randn(8, 2, dtype=torch.float64).to(device).requires_grad_()
    ts = torch.linspace(0, 1, outputs, dtype=torch.float64, device=device)
    ys = solve(network, y0, ts).ys
    ys.pow(2).mean().backward()
    parts = [ys[-1], y0.grad, *(p.grad for p in network.parameters())]
    return torch.cat([part.detach().reshape(-1).cpu() for part in parts if part is not None])


def check_solvers(options: argparse.Namespace) -> Part:
    """(c)."""
    rows = []
    for engine in ENGINES.names():
        if options.quick and engine == "compiled":
            continue  # it would compile hundreds of steps
        for solver in SOLVERS.names():
            for adjoint in ADJOINTS.names():
                row: dict[str, Any] = {"engine": engine, "solver": solver, "adjoint": adjoint}
                try:
                    here = solve_once(engine, solver, adjoint, "cpu", *options.solves)
                    there = solve_once(engine, solver, adjoint, options.device, *options.solves)
                    difference = float((there - here).norm() / here.norm())
                    row |= {"result": "same" if difference <= 1e-8 else "different", "difference": difference}
                except ConfigError as refusal:
                    row |= {"result": "refused", "difference": None, "reason": str(refusal)}
                except Exception as error:
                    row |= {"result": "broken", "difference": None, "reason": f"{type(error).__name__}: {error}"}
                rows.append({"reason": "", **row})
    counts = {result: sum(row["result"] == result for row in rows) for result in ("same", "refused")}
    wrong = [f"{r['engine']} {r['solver']} {r['adjoint']}" for r in rows if r["result"] not in counts]
    summary = f"{counts['same']} the same on the CPU and on {options.device}, {counts['refused']} refused"
    if wrong:
        summary += f"; different or broken: {', '.join(wrong)}"
    columns = ("engine", "solver", "adjoint", "result", "difference", "reason")
    ordered = [{key: row[key] for key in columns} for row in rows]
    return Part("failed" if wrong else "passed", f"{summary}.", ordered)
