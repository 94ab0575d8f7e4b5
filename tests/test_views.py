import pytest
import torch

from node_runner.views import Points, Splits


def test_a_part_is_known_by_its_name_and_changes_with_all_others():
    parts = Splits(1, 2, 3, {"test_long": 4})
    assert parts.tests == {"test": 3, "test_long": 4}
    assert [parts[name] for name, _ in parts.items()] == [1, 2, 3, 4]
    assert parts.map(str) == Splits("1", "2", "3", {"test_long": "4"})
    with pytest.raises(KeyError):
        parts["tests"]


def test_the_rows_of_a_part_are_all_or_the_first_of_them_where_its_data_are():
    part = Points(torch.zeros(3, 2, device="meta"))
    assert part.device == part.rows().device == torch.device("meta")
    assert [len(part.rows(most)) for most in (None, 2, 5)] == [3, 2, 3]
