"""Which samples make a batch: a pure function of seed and step."""

from __future__ import annotations

import pytest
import torch

from node_runner.tasks.parts.batches import Ahead, Shuffled, Windows, generator


CPU = torch.device("cpu")


@pytest.mark.parametrize(("count", "size"), [(10, 3), (10, 5), (10, 10), (10, 99), (10, None), (1, 1)])
def test_each_sample_comes_once_an_epoch(count: int, size: int | None):
    batches = Shuffled(count, size, 0, CPU)
    for epoch in range(3):
        first = epoch * batches.steps_per_epoch
        rows = torch.cat([batches(step) for step in range(first, first + batches.steps_per_epoch)])
        assert sorted(rows.tolist()) == list(range(count))


def test_the_last_batch_of_an_epoch_may_be_smaller():
    batches = Shuffled(10, 4, 0, CPU)
    assert batches.steps_per_epoch == 3
    assert [len(batches(step)) for step in range(6)] == [4, 4, 2, 4, 4, 2]


def test_each_epoch_has_an_order_of_its_own():
    batches = Shuffled(50, 25, 0, CPU)
    orders = [torch.cat([batches(step), batches(step + 1)]) for step in (0, 2)]
    assert not torch.equal(*orders)


def test_a_batch_of_everything_is_not_shuffled():
    batches = Shuffled(50, None, 0, CPU)
    assert batches(0).tolist() == batches(1).tolist() == list(range(50))


@pytest.mark.parametrize("order", [[7, 0, 3, 3, 12, 1], [12, 11, 10]], ids=["jumping", "back"])
def test_a_shuffled_batch_does_not_depend_on_what_was_asked_before(order: list[int]):
    asked = Shuffled(20, 3, 5, CPU)
    for step in order:
        assert torch.equal(asked(step), Shuffled(20, 3, 5, CPU)(step))


def test_a_shuffled_batch_depends_on_the_seed_and_not_on_the_global_generator():
    torch.manual_seed(1)
    first = Shuffled(20, 10, 5, CPU)(0)
    torch.manual_seed(2)
    assert torch.equal(Shuffled(20, 10, 5, CPU)(0), first)
    assert not torch.equal(Shuffled(20, 10, 6, CPU)(0), first)


def test_seeds_do_not_share_their_epochs():
    # Seed 0's second epoch must not be seed 1's first.
    draws = {tuple(torch.randperm(30, generator=generator(s, e)).tolist()) for s in range(4) for e in range(4)}
    assert len(draws) == 16


def windows(lengths: list[int], *, size: int = 64, full: int = 5, seed: int = 0, shared: bool = False) -> Windows:
    return Windows(torch.tensor(lengths), size, full, seed, CPU, shared_start=shared)


def at(drawn: Windows, step: int, window: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The batch of one step."""
    rows, first = drawn(step, 1, window)
    return rows[0], first[0]


def test_a_window_lies_inside_its_trajectory_wherever_it_begins():
    lengths = [5, 8, 20]
    drawn = windows(lengths, size=500)
    rows, first = at(drawn, 0, 5)
    ends = torch.tensor(lengths)[rows]
    assert bool((first >= 0).all())
    assert bool((first + 5 <= ends).all())
    for row, length in enumerate(lengths):
        assert set(first[rows == row].tolist()) == set(range(length - 5 + 1))


def test_a_trajectory_shorter_than_the_window_is_taken_from_its_start():
    rows, first = at(windows([3, 3], size=20), 0, 5)
    assert set(first.tolist()) == {0}
    assert set(rows.tolist()) == {0, 1}


def test_windows_for_a_shared_start_begin_together_and_inside_the_shortest_trajectory():
    drawn = windows([9, 30], size=200, shared=True)
    starts = set()
    for step in range(20):
        _, first = at(drawn, step, 5)
        assert len(set(first.tolist())) == 1
        starts.add(int(first[0]))
    assert starts <= set(range(9 - 5 + 1))
    assert len(starts) > 1


def test_an_epoch_of_windows_has_as_many_points_as_the_data():
    assert windows([100] * 8, size=4, full=10).steps_per_epoch == 20
    assert windows([10], size=64, full=10).steps_per_epoch == 1


@pytest.mark.parametrize("shared", [False, True], ids=["own-start", "shared-start"])
def test_a_batch_of_windows_is_a_pure_function_of_seed_and_step(shared: bool):
    asked = windows([30] * 4, size=4, seed=3, shared=shared)
    for step in (9, 0, 40, 9):
        torch.manual_seed(step)
        again = at(windows([30] * 4, size=4, seed=3, shared=shared), step, 5)
        assert all(torch.equal(mine, other) for mine, other in zip(at(asked, step, 5), again, strict=True))
    other = at(windows([30] * 4, size=4, seed=4, shared=shared), 9, 5)
    assert not all(torch.equal(mine, theirs) for mine, theirs in zip(at(asked, 9, 5), other, strict=True))


def test_batches_of_windows_drawn_together_are_those_drawn_alone():
    together = windows([30] * 4, size=4)
    step = 5
    assert together.left(step) == Windows.BLOCK - 5
    rows, first = together(step, together.left(step), 6)
    for i, (mine, begin) in enumerate(zip(rows, first, strict=True)):
        alone = at(windows([30] * 4, size=4), step + i, 6)
        assert torch.equal(mine, alone[0])
        assert torch.equal(begin, alone[1])
    assert together.left(Windows.BLOCK) == Windows.BLOCK


def test_batches_are_made_when_the_first_of_them_is_asked_for():
    made = []

    def make(step: int) -> dict[int, str]:
        made.append(step)
        return {step + i: f"batch {step + i}" for i in range(3)}

    batches = Ahead(make)
    assert [batches(step) for step in (0, 1, 1, 2, 3, 9)] == [f"batch {i}" for i in (0, 1, 1, 2, 3, 9)]
    assert made == [0, 3, 9]
