"""Many attempts at a step as one graph, and the gradient of many steps as one graph: pure functions of tensors.

A loop makes the decisions that `walk.Adaptive` makes on the host, in the same arithmetic of 64 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from node_runner.engines.compiled.programs import Source, gradients


ROWS = 32
"""Accepted steps that one run of a loop can record."""

Tensors = Sequence[Tensor]


class Loop(NamedTuple):
    """A loop over tensors: as long as `ahead` is true, `body` makes the next `carried` tensors of those before.

    ahead: (carried, fixed) -> () bool. body: (carried, fixed, tensors of the field) -> carried; where `ahead` is
    false it returns what it was given, so that it may be run more often than needed.
    once: (carried, fixed) -> the same, changed so that the body runs exactly once. about: the loop in words.
    """

    ahead: Callable[[Tensors, Tensors], Tensor]
    body: Callable[[Tensors, Tensors, Tensors], list[Tensor]]
    once: Callable[[list[Tensor], list[Tensor]], tuple[list[Tensor], list[Tensor]]]
    about: str


# --- forward: carried are
#   state (2, ...): y and its slope;
#   clock (5,) of 64 bits: t, size of the next attempt, accepted, rejected, whether the state is finite;
#   rows (ROWS, 3, ...): y, slope and middle that each accepted step gave;
#   scalars (ROWS, 5): with which each was computed;
#   times (ROWS, 2) of 64 bits: its start and its end.
# Fixed are the limits (10,) of 64 bits.


def limits(
    end: float, direction: int, rtol: float, atol: float, budget: int, options: Mapping[str, Any]
) -> list[float]:
    """The fixed numbers of a loop of attempts, in the order in which its body takes them apart."""
    control = [float(options[name]) for name in ("min_step", "max_step", "safety", "ifactor", "dfactor")]
    return [end, direction, rtol, atol, budget, *control]


def _attempt_ahead(carried: Tensors, fixed: Tensors) -> tuple[Tensor, Tensor, Tensor]:
    """The size of the next attempt, its end, and whether it is to be made."""
    t, h, accepted, rejected, finite = carried[1].unbind(0)
    end, _, _, _, budget, smallest, largest, *_ = fixed[0].unbind(0)
    h = torch.minimum(torch.maximum(torch.where(torch.isfinite(h), h, smallest), smallest), largest)
    after = t + h
    going = (t < end) & (accepted < ROWS) & (accepted + rejected < budget) & (finite > 0) & (after > t)
    return h, after, going


def attempts(source: Source, order: int) -> Loop:
    """Attempts until the end is reached, the rows are full, the budget is spent, or the next cannot be made."""

    def body(carried: Tensors, fixed: Tensors, tensors: Tensors) -> list[Tensor]:
        """Make one attempt, and write its row if it is accepted."""
        state, clock, rows, scalars, times = carried
        t, before, accepted, rejected, finite = clock.unbind(0)
        _, direction, rtol, atol, _, smallest, largest, safety, ifactor, dfactor = fixed[0].unbind(0)
        h, after, going = _attempt_ahead(carried, fixed)
        last = after.to(state.dtype)
        last = direction.to(state.dtype) * torch.nextafter(last, last - 1)
        now = torch.stack([direction * t, direction * h, last.to(t.dtype), rtol, atol]).to(state.dtype)
        with torch.no_grad():
            result = source.call([now, state[0], state[1]], source.watched(tensors))
        row = torch.stack(result.outputs)
        ratio, zero = result.report[0].to(t.dtype).unbind(0)
        taken = going & ((ratio <= 1) | (h <= smallest))
        grown = torch.maximum(safety / ratio ** (1 / order), torch.where(ratio < 1, torch.ones_like(dfactor), dfactor))
        factor = torch.where(ratio == 0, ifactor, torch.minimum(ifactor, grown))
        following = torch.minimum(torch.maximum(h * factor, smallest), largest)
        here = (torch.arange(ROWS, device=t.device) == accepted) & taken
        return [
            torch.where(taken, row[:2], state),
            torch.stack([
                torch.where(taken, after, t), torch.where(going, following, before), accepted + taken,
                rejected + (going & ~taken), torch.where(taken, (zero == 0).to(t.dtype), finite),
            ]),
            torch.where(here.view(-1, *[1] * row.ndim), row, rows),
            torch.where(here[:, None], now, scalars),
            torch.where(here[:, None], torch.stack([t, after]), times),
        ]  # fmt: skip

    def once(carried: list[Tensor], fixed: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        one = fixed[0].clone()
        one[4] = carried[1][2] + carried[1][3] + 1
        return carried, [one]

    return Loop(lambda carried, fixed: _attempt_ahead(carried, fixed)[2], body, once, f"loop of {source.about}")


def marching(source: Source) -> Loop:
    """Steps of given sizes: carried are state (1, ...), rows (ROWS, n, ...) as above, and number (1,) of them so far.

    Fixed are scalars (ROWS, 5), and how many of them are steps, (1,).
    """

    def body(carried: Tensors, fixed: Tensors, tensors: Tensors) -> list[Tensor]:
        """Take one step, and write its row."""
        state, rows, number = carried
        scalars, count = fixed
        going = number < count
        now = scalars.index_select(0, number.clamp(max=ROWS - 1)).squeeze(0)
        with torch.no_grad():
            row = torch.stack(source.call([now, state[0]], source.watched(tensors)).outputs)
        here = (torch.arange(ROWS, device=number.device) == number) & going
        return [
            torch.where(going.view(-1, *[1] * (row.ndim - 1)), row[:1], state),
            torch.where(here.view(-1, *[1] * row.ndim), row, rows),
            number + going,
        ]

    def once(carried: list[Tensor], fixed: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        return carried, [fixed[0], carried[2] + 1]

    return Loop(lambda carried, fixed: (carried[2] < fixed[1])[0], body, once, f"loop of {source.about}")


# --- gradient: carried are
#   number (1,): how many rows are ahead; gradient (m, ...) that has reached the states after them which a step takes
#   (y, and an adaptive one its slope), and then that of each tensor of the field.
# Fixed are scalars (ROWS, 5); before (ROWS, m, ...): the states that each step began with; and
# given (ROWS, n, ...): the gradient that reaches what each step gave, of which the first m are taken by the next one,
# from the outputs.


def undoing(source: Source) -> Loop:
    """The gradient of recorded steps, from the last to the first, each computed again."""

    def body(carried: Tensors, fixed: Tensors, tensors: Tensors) -> list[Tensor]:
        number, gradient, *sums = carried
        left = (number - 1).clamp(min=0)
        scalars, before, given = (x.index_select(0, left).squeeze(0) for x in fixed)
        taken = len(gradient)
        result, leaves = source.tracked([scalars, *before.unbind(0)], tensors)
        tangents = torch.cat([gradient + given[:taken], given[taken:]])
        tangents = torch.where(number > 0, tangents, torch.zeros_like(tangents))
        found = gradients(result.outputs, leaves, tangents.unbind(0))
        pulled = torch.where(number > 0, torch.stack(found[:taken]), gradient)
        return [left, pulled, *(a + b for a, b in zip(sums, found[taken:], strict=True))]

    def once(carried: list[Tensor], fixed: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        return [torch.ones_like(carried[0]), *carried[1:]], fixed

    return Loop(lambda carried, fixed: carried[0][0] > 0, body, once, f"loop of gradients of {source.about}")


def pull_one(source: Source) -> Callable[..., list[Tensor]]:
    """(states, tensors, tangents) -> gradients of one step, to be traced."""

    def pull(states: Tensors, tensors: Tensors, tangents: Tensors) -> list[Tensor]:
        result, leaves = source.tracked(states, tensors)
        return gradients(result.outputs, leaves, tangents)

    return pull


def at_once(pull: fx.GraphModule) -> Callable[[Tensors, Tensors, Tensors], list[Tensor]]:
    """The gradient of recorded steps, all of them together: (carried, fixed, tensors) -> carried, as `undoing` gives.

    The Jacobian J_n of each step by what it takes is computed as a matrix, which makes the recursion
    u_n = J_n' u_{n+1} + b_n one of small matrices that `_recursion` solves.

    Args:
        pull: graph of the gradients of one step, with no autograd left in it, so that it can be batched.
    """

    def compute(carried: Tensors, fixed: Tensors, tensors: Tensors) -> list[Tensor]:
        """Undo every row that holds a step."""
        number, gradient, *sums = carried
        scalars, before, given = fixed
        taken = len(gradient)

        def one(scalars: Tensor, before: Tensor, tangents: Tensor) -> Sequence[Tensor]:
            found: Sequence[Tensor] = pull(scalars, *before.unbind(0), *tensors, *tangents.unbind(0))
            return found

        def by_state(scalars: Tensor, before: Tensor, tangents: Tensor) -> Tensor:
            return torch.stack(list(one(scalars, before, tangents)[:taken]))

        # Rows that hold nothing compute what the first one does, and their result is left out.
        real = torch.arange(ROWS, device=number.device) < number
        each = real.view(-1, *[1] * gradient.ndim)
        scalars = torch.where(real[:, None], scalars, scalars[:1])
        before = torch.where(each, before, before[:1])
        # One product for each unit vector gives the Jacobian, and one more what reaches the step from the outputs.
        size = gradient.numel()
        unit = torch.eye(size, dtype=gradient.dtype, device=gradient.device)
        units = unit.view(size, *gradient.shape)
        units = torch.cat([units, units.new_zeros(size, len(given[0]) - taken, *gradient.shape[1:])], 1)
        tangents = torch.cat([units.expand(ROWS, *units.shape), given[:, None]], 1)
        pulled = torch.vmap(torch.vmap(by_state, (None, None, 0)))(scalars, before, tangents).view(ROWS, size + 1, size)
        matrix = torch.where(real[:, None, None], pulled[:, :size].transpose(1, 2), unit)
        offset = torch.where(real[:, None], pulled[:, size], torch.zeros_like(pulled[:, size]))
        reached = _recursion(matrix, offset, gradient.reshape(1, size)).view(ROWS, *gradient.shape)
        after = torch.cat([reached[1:], gradient[None]])
        tangents = torch.cat([after + given[:, :taken], given[:, taken:]], 1)
        found = torch.vmap(one)(scalars, before, torch.where(each, tangents, torch.zeros_like(tangents)))[taken:]
        return [number * 0, reached[0], *(a + b.sum(0) for a, b in zip(sums, found, strict=True))]

    return compute


def _recursion(matrix: Tensor, offset: Tensor, last: Tensor) -> Tensor:
    """The u_n (ROWS, m) of u_n = matrix_n u_{n+1} + offset_n, where `last` (1, m) follows the last of them.

    Solved by doubling, in log2(ROWS) rounds (Blelloch 1990, Prefix sums and their applications): after a round each
    row's matrix (ROWS, m, m) and offset (ROWS, m) lead twice as many rows on as before it.
    """
    step = 1
    while step < ROWS:
        offset = torch.cat([
            offset[:-step] + (matrix[:-step] * offset[step:].unsqueeze(1)).sum(2), offset[-step:]
        ])  # fmt: skip
        product = (matrix[:-step].unsqueeze(3) * matrix[step:].unsqueeze(1)).sum(2)
        matrix = torch.cat([product, matrix[-step:]])
        step *= 2
    return offset + (matrix * last.unsqueeze(1)).sum(2)
