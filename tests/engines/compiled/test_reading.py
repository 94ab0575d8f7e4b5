"""What is read of a function: every tensor, and whatever else its code depends on."""

from __future__ import annotations

import functools
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from node_runner.engines.compiled.reading import Unreadable, read
from tests.problems import SmallField


class Holder:
    """A plain object with a tensor in a list in a dictionary."""

    def __init__(self, tensor: Tensor, number: float = 1.0) -> None:
        self.parts: dict[str, Any] = {"inner": [tensor]}
        self.number = number

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        return y * self.parts["inner"][0] * self.number


def closure(tensor: Tensor, number: float = 1.0) -> Any:
    return lambda t, y: y * tensor * number


@pytest.mark.parametrize(
    "make", [Holder, closure, lambda *a: functools.partial(Holder(*a)), lambda *a: Holder(*a).__call__]
)
def test_tensors_are_found_wherever_they_are_and_can_be_replaced(make: Any):
    tensor, other = torch.ones(2), torch.full((2,), 3.0)
    f = make(tensor)
    reading = read(f)
    assert len(reading.tensors) == 1 and reading.tensors[0] is tensor
    with reading.holding([other]):
        assert torch.equal(f(torch.zeros(()), torch.ones(2)), other)
    assert torch.equal(f(torch.zeros(()), torch.ones(2)), tensor)


@pytest.mark.parametrize("make", [Holder, closure])
def test_the_key_is_that_of_the_code_and_not_of_the_numbers_in_tensors(make: Any):
    one = read(make(torch.ones(2))).key
    assert hash(one) == hash(read(make(torch.zeros(2))).key)
    assert one == read(make(torch.zeros(2))).key
    for different in (
        make(torch.ones(3)), make(torch.ones(2).double()), make(torch.ones(2), 2.0),
        make(torch.ones(2).requires_grad_(True)), make(torch.ones(2), 1),
    ):  # fmt: skip
        assert one != read(different).key


def test_training_and_evaluating_are_different_and_so_are_tied_and_untied_weights():
    field = SmallField()
    assert read(field).key != read(field.eval()).key
    assert read(SmallField()).key == read(SmallField()).key
    tied, untied = nn.ParameterList([torch.ones(2)]), nn.ParameterList([torch.ones(2), torch.ones(2)])
    tied.append(tied[0])
    assert len(read(tied).tensors) == 1
    assert len(read(tied).slots[0]) == 2
    assert read(tied).key != read(untied).key


RATE = 1.0


def test_global_numbers_are_part_of_the_key(monkeypatch: pytest.MonkeyPatch):
    class Field(nn.Module):
        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return RATE * y

    def plain(t: Tensor, y: Tensor) -> Tensor:
        return RATE * y

    field = Field()
    before = read(field).key, read(plain).key
    assert before == (read(field).key, read(plain).key)
    monkeypatch.setattr("tests.engines.compiled.test_reading.RATE", 2.0)
    assert read(field).key != before[0]
    assert read(plain).key != before[1]


SCALE = torch.ones(2)
TABLE = {"rate": 1.0}


def helper(y: Tensor) -> Tensor:
    return y * SCALE


def other_helper(y: Tensor) -> Tensor:
    return -y


class Helped(nn.Module):
    factor = 2.0

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return helper(self.inner(y)) * TABLE["rate"]

    def inner(self, y: Tensor) -> Tensor:
        return self.factor * y

    def beside(self) -> None:
        print("not a part of an evaluation")


def test_global_functions_tensors_and_containers_methods_and_attributes_of_classes_are_part_of_it(
    monkeypatch: pytest.MonkeyPatch,
):
    field = Helped()
    keys, tensors = [read(field).key], read(field).tensors
    assert len(tensors) == 1 and tensors[0] is SCALE
    with read(field).holding([torch.full((2,), 3.0)]):
        assert torch.equal(field(torch.zeros(()), torch.ones(2)), torch.full((2,), 6.0))
    assert torch.equal(field(torch.zeros(()), torch.ones(2)), torch.full((2,), 2.0))
    monkeypatch.setitem(TABLE, "rate", 3.0)
    keys.append(read(field).key)
    monkeypatch.setattr(Helped, "factor", 4.0)
    keys.append(read(field).key)
    monkeypatch.setattr(Helped, "inner", lambda self, y: y)
    keys.append(read(field).key)
    monkeypatch.setattr(sys.modules[__name__], "helper", other_helper)
    keys.append(read(field).key)
    assert len(set(keys)) == 5
    assert keys[-1] == read(field).key


def test_what_only_counts_is_no_part_of_it():
    class Counts(nn.Module):
        def __init__(self, field: nn.Module) -> None:
            super().__init__()
            self.field = field
            self.counted = ((field, "calls"),)

    field = SmallField()
    field.calls, field.other = 0, 0
    key = read(Counts(field)).key
    field.calls = 3
    assert read(Counts(field)).key == key
    field.other = 3
    assert read(Counts(field)).key != key


def test_rings_end():
    ring: list[Any] = []
    ring.append(ring)
    field = SmallField()
    field.ring = ring
    assert read(field).key == read(field).key


def test_what_calls_changed_is_undone():
    field = SmallField()
    field.calls = 0
    reading = read(field)
    field.calls = 7
    assert read(field).key != reading.key
    reading.restore()
    assert field.calls == 0


def test_what_calls_added_is_taken_away():
    field = SmallField()
    field.notes, field.table = [1], {}
    reading = read(field)
    field.notes.append(2)
    field.table["key"] = field.more = 3
    reading.restore()
    assert (field.notes, field.table, hasattr(field, "more")) == ([1], {}, False)


def test_tensors_that_cannot_be_replaced_are_refused():
    field = SmallField()
    field.pair = (torch.ones(1), torch.ones(1))
    with pytest.raises(Unreadable, match="keeps a tensor in a tuple"):
        read(field)


def test_a_field_that_reaches_everything_is_refused():
    field = SmallField()
    field.everything = [[i] for i in range(30_000)]
    with pytest.raises(Unreadable, match="reaches more than"):
        read(field)
