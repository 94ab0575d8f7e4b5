import pytest

from node_runner.views import Splits


def test_a_part_is_known_by_its_name_and_changes_with_all_others():
    parts = Splits(1, 2, 3, {"test_long": 4})
    assert parts.tests == {"test": 3, "test_long": 4}
    assert [parts[name] for name, _ in parts.items()] == [1, 2, 3, 4]
    assert parts.map(str) == Splits("1", "2", "3", {"test_long": "4"})
    with pytest.raises(KeyError):
        parts["tests"]
