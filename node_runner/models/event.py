"""The neural ODE with events: a field, an event function and a jump, all of them learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, NamedTuple

import torch
from torch import Tensor

from node_runner.batches import TrajectoryBatch
from node_runner.errors import ConfigError, SolveFailed
from node_runner.learning import ModelOutput, Regulariser
from node_runner.models import MODELS
from node_runner.models.parts.block import MakeField
from node_runner.models.parts.declarations import learns_from
from node_runner.models.parts.dynamics import UnitTime
from node_runner.models.parts.jumps import EventFunction, Jump
from node_runner.models.parts.matching import Matching
from node_runner.models.parts.standardised import Standardised
from node_runner.models.parts.unregularised import refuse_regularisers
from node_runner.settings import Between, CountOrZero, Depth, Positive, WidthOrZero
from node_runner.types import Integrate, SolveStats
from node_runner.views import DataSpec, View


TRIALS = 50
"""Trials at an event's time: two or three of Newton's method, or at worst as many bisections."""

GRAZING = 1e-6
"""Least speed at which the surface is crossed: at zero the time of an event has no derivative."""


class Segment(NamedTuple):
    """Samples on their way from one event to the next, or to the end.

    Attributes:
        rows: (n,) which samples of the batch.
        begin: (n,) time since the sample's start, without gradient.
        z: (n, D) standardised states there.
        end: (n,) time of the next event, infinite where there is none.
    """

    rows: Tensor
    begin: Tensor
    z: Tensor
    end: Tensor


@MODELS.register("event", "neural ODE with events: learned field, event function and jump, as of a ball that bounces")
@learns_from(View.trajectories)
class EventODE(Standardised):
    """dz/dt = f(t, z) until g(z) falls through zero; there z+ = h(z-), and on it goes.

    Every sample has events at times of its own. One solve serves them all in unit time, dz/ds = T f, with
    the duration T of each: first one that only looks where g changes its sign, then one to the event with the gradient
    of the run's adjoint, and at the end one for all observations, each from the start of its segment.

    The time t of an event is differentiated by the implicit function theorem, dt = -dg / (dg/dt), by one step
    of Newton's method, t = t* - g / (dg/dt), from the time t* that was found without gradient. The state after the
    jump is then carried back to t*, along the field: value and gradient are those at a fixed time (the gradient is
    the saltation matrix, dz+ = dh dz- + (dh f- - f+) dt), so no solve needs a gradient of its times.

    Works in standardised coordinates as `TrajectoryModel` does. Engines solve a field in unit time, which is no
    plain network. A fixed step is a share of a segment: solver.step_size=0.1 makes ten steps between two events.

    No gradient leads to an event that is not predicted, nor to a jump that changes nothing: learn without a solve
    first (`Matching`, trainer.warm_start).

    Source: Chen, Amos, Nickel, Learning neural event functions for ordinary differential equations (2021).

    Args:
        spec: of the trajectories.
        make_field: makes the field for a state shape.
        solve: the differentiable solve.
        regularisers: none.
        max_events: most events in one trajectory.
        scan: intervals in which a change of sign of g is looked for, at least as many as the observed times make. Two
            changes in one interval are not seen, nor is an event within one interval of the last.
        event_axis: axis of the state along which the surface of g is looked for at first.
        event_hidden: width of a network added to the linear g (0: none, the surface is a plane).
        jump_hidden: width of a network added to the affine h (0: none).
        least_jump: in the warm start, what is taken for a jump between two observations, in standard deviations of the
            data: more than the field moves a state from one to the next, and more than the noise.

    Raises:
        ConfigError: an axis that the data lack, or a regulariser.
    """

    view = View.trajectories

    def __init__(
        self,
        spec: DataSpec,
        make_field: MakeField,
        solve: Integrate,
        regularisers: Mapping[str, Regulariser],
        /,
        *,
        max_events: Depth = 32,
        scan: Annotated[int, Between(2, 10_000)] = 16,
        event_axis: CountOrZero = 0,
        event_hidden: WidthOrZero = 0,
        jump_hidden: WidthOrZero = 0,
        least_jump: Positive = 0.3,
    ) -> None:
        super().__init__(spec.mean, spec.std)
        refuse_regularisers("event", "has no integral along its pieces", regularisers)
        (dim,) = spec.shape
        if event_axis >= dim:
            raise ConfigError(f"model.event_axis={event_axis}: the state has {dim} axes; use one from 0 to {dim - 1}")
        self.max_events = max_events
        self.scan = scan
        self.solve = solve
        self.field = make_field(spec.shape)
        self.event = EventFunction(dim, event_axis, event_hidden)
        self.jump = Jump(dim, jump_hidden)
        self.matching = Matching(self.field, self.event, self.jump, least_jump)

    def forward(self, y0: Tensor, ts: Tensor, t0: Tensor | None = None) -> ModelOutput:
        """y0: (B, D), ts: (T,) from the start, t0: (B,) or None -> states (T, B, D) and times of events (B, K).

        Raises:
            SolveFailed: more than `max_events` events.
        """
        t0 = ts.new_zeros(len(y0)) if t0 is None else t0
        z0 = self.standardise(y0)
        costs: list[SolveStats] = []
        segments, events = self._segments(z0, ts, t0, costs)
        zs = self._observe(segments, z0, ts, t0, costs)
        happened = torch.stack(events, dim=1) if events else ts.new_zeros(len(y0), 0)
        scalars = {"events": (happened >= 0).sum() / z0.new_tensor(len(y0))}
        return ModelOutput(self.restore(zs), costs, {}, scalars=scalars, events=happened.detach())

    def event_times(self, y0: Tensor, ts: Tensor, t0: Tensor | None = None) -> Tensor:
        """Times (B, K) of the events until ts[-1], in order, then -1, with their gradient; arguments as above."""
        t0 = ts.new_zeros(len(y0)) if t0 is None else t0
        _, events = self._segments(self.standardise(y0), ts, t0, [])
        return torch.stack(events, dim=1) if events else ts.new_zeros(len(y0), 0)

    def mismatch(self, batch: TrajectoryBatch) -> Tensor:
        """How far the model's parts are from pairs of neighbouring observations, (), without a solve."""
        parts = self.matching(batch.ts[:, None] + batch.t0, self.standardise(batch.ys), batch.mask)
        return parts.field + parts.event + parts.jump

    def vector_field(self, t: Tensor, y: Tensor) -> Tensor:
        """dy/dt between events in the data's units at t () for y (B, D) -> (B, D)."""
        dy: Tensor = self.field(t, self.standardise(y)) * self.std
        return dy

    def _segments(
        self, z: Tensor, ts: Tensor, t0: Tensor, costs: list[SolveStats]
    ) -> tuple[list[Segment], list[Tensor]]:
        """The pieces of every trajectory, and the times (B,) of the first, second ... event."""
        rows, begin = torch.arange(len(z), device=z.device), torch.zeros_like(t0)
        segments: list[Segment] = []
        events: list[Tensor] = []
        while True:
            end = self._next_event(z, begin, ts, t0[rows], costs, after_event=bool(events))
            segments.append(Segment(rows, begin, z, end))
            hit = end.isfinite()
            if not hit.any():
                return segments, events
            if len(events) == self.max_events:
                raise SolveFailed(
                    f"model=event: more than model.max_events={self.max_events} events until t={float(ts[-1]):g}; "
                    "use a larger model.max_events, or shorter trajectories"
                )
            rows, begin, z, end = rows[hit], begin[hit], z[hit], end[hit]
            z, time = self._pass_event(z, begin, end, t0[rows], costs)
            events.append(torch.full_like(t0, -1.0).index_put((rows,), t0[rows] + time))
            begin = end

    @torch.no_grad()
    def _next_event(
        self, z: Tensor, begin: Tensor, ts: Tensor, t0: Tensor, costs: list[SolveStats], *, after_event: bool
    ) -> Tensor:
        """Time (n,) of the first event after `begin`, infinite where there is none until ts[-1]."""
        left = (ts[-1] - begin).clamp(min=0)
        count = max(self.scan, len(ts) - 1)
        zs = self._flow(z, t0 + begin, left, costs, count)
        g = self.event(zs)
        positive = g > 0
        if after_event:
            positive[0] = False  # g is zero, up to rounding, where an event has just been
        falls = positive[:-1] & (g[1:] <= 0)
        hit = falls.any(dim=0)
        end = torch.full_like(begin, torch.inf)
        if hit.any():
            first = falls[:, hit].to(torch.uint8).argmax(dim=0)
            rows = hit.nonzero().squeeze(1)
            width = left[hit] / count
            low = first * width
            bracket = g[first, rows], g[first + 1, rows]
            end[hit] = begin[hit] + low + self._root(zs[first, rows], (t0 + begin)[hit] + low, width, bracket, costs)
        return end

    def _root(self, z: Tensor, t: Tensor, width: Tensor, g: tuple[Tensor, Tensor], costs: list[SolveStats]) -> Tensor:
        """Time (n,) from t in [0, width] at which g is zero, given z (n, D) at t and g at both ends.

        Newton's method within a bracket, to half of the digits: `_pass_event` takes the last step.
        """
        low, high = torch.zeros_like(width), width
        x = width * g[0] / (g[0] - g[1])
        close = torch.finfo(z.dtype).eps ** 0.5
        for _ in range(TRIALS):
            there = self._flow(z, t, x, costs)[-1]
            value = self.event(there)
            newton = x - value / self.event.slope(there, self._rate(t + x, there, costs))
            low, high = torch.where(value > 0, x, low), torch.where(value > 0, high, x)
            # Not a number fails both comparisons.
            inside = (newton >= low) & (newton <= high)
            best = torch.where(inside, newton, (low + high) / 2)
            if ((best - x).abs() <= close * width).all():
                break
            x = best
        return x

    def _pass_event(
        self, z: Tensor, begin: Tensor, end: Tensor, t0: Tensor, costs: list[SolveStats]
    ) -> tuple[Tensor, Tensor]:
        """State (n, D) after the event, as if it had been at `end`, and the event's time (n,), with gradient."""
        before = self._flow(z, t0 + begin, end - begin, costs)[-1]
        rate = self._rate(t0 + end, before, costs)
        slope = self.event.slope(before, rate).clamp(max=-GRAZING)
        late = -self.event(before) / slope  # about zero, but for its gradient
        after = self.jump(before + rate * late[:, None])
        return after - self._rate(t0 + end, after, costs) * late[:, None], end + late

    def _observe(self, segments: list[Segment], z0: Tensor, ts: Tensor, t0: Tensor, costs: list[SolveStats]) -> Tensor:
        """Standardised states (T, B, D) at ts: each observation is a sample of one solve."""
        starts, times, durations, places = [], [], [], []
        for rows, begin, z, end in segments:
            since = ts[1:, None]
            index, row = ((since >= begin) & (since < end)).nonzero(as_tuple=True)
            starts.append(z.index_select(0, row))
            times.append((t0[rows] + begin)[row])
            durations.append(ts[1:][index] - begin[row])
            places.append(index * len(z0) + rows[row])
        if len(ts) == 1:
            return z0[None]
        # Every observation lies in one segment: to put them in order is to sort them.
        order = torch.cat(places).argsort()
        z, t, duration = (torch.cat(parts).index_select(0, order) for parts in (starts, times, durations))
        return torch.cat((z0[None], self._flow(z, t, duration, costs)[-1].reshape(len(ts) - 1, *z0.shape)))

    def _flow(
        self, z: Tensor, t: Tensor, duration: Tensor, costs: list[SolveStats], points: int | None = None
    ) -> Tensor:
        """States (points + 1, n, D) on the way of each sample from t (n,) to t + duration (n,)."""
        grid = torch.linspace(0, 1, (points or self.scan) + 1, dtype=t.dtype, device=t.device)
        solution = self.solve(UnitTime(self.field, duration, t), z, grid)
        costs.append(solution.stats)
        return solution.ys

    @torch.no_grad()
    def _rate(self, t: Tensor, z: Tensor, costs: list[SolveStats]) -> Tensor:
        """f(t, z), (n, D), without gradient and counted."""
        costs.append(SolveStats(nfe_forward=1))
        rate: Tensor = self.field(t, z)
        return rate
