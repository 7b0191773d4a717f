"""The memory that workers share: see :mod:`socksproxy.workers.shared_table`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from socksproxy.workers import shared_table
from socksproxy.workers.shared_table import ASIDE, EACH, FULL, SharedTable, new_table

SECRET = b"0123456789abcdef"


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[SharedTable]:
    """A table of one part with two rows, for two workers."""
    for name, value in (("_WAYS", 2), ("_PARTS", 1), ("ROWS", 2), ("RATES", 2)):
        monkeypatch.setattr(shared_table, name, value)
    table = SharedTable(new_table(2), 2, SECRET)
    yield table
    table.close()


def test_rows(table: SharedTable) -> None:
    """A row is a name's while one is counted there; then another name gets it."""
    first, second, third = map(table.key, ("a", "b", "c"))
    places = []
    for key in (first, second):
        place = table.row(key)
        assert place is not None
        assert table.add(place, 0) == 1
        places.append(place)
    assert table.add(places[0], 1) == 2
    assert table.row(first) == places[0]
    assert table.row(third) is None
    table.remove(places[1], 0)
    assert table.row(third) == places[1]


def test_rates(table: SharedTable) -> None:
    """Tokens are a name's until all of them are there again."""
    key, other, third = map(table.key, ("a", "b", "c"))
    place, new = table.rate(key, 0.0) or (-1, False)
    assert new
    table.tokens[place + FULL] = 10.0
    assert table.rate(key, 0.0) == (place, False)
    assert table.has(key, place)
    elsewhere, _ = table.rate(other, 0.0) or (-1, False)
    table.tokens[elsewhere + FULL] = 20.0
    assert table.rate(third, 5.0) is None
    assert table.rate(third, 15.0) == (place, True)
    assert not table.has(key, place)


def test_clear(table: SharedTable) -> None:
    """What a worker that has ended had is nobody's; what another one has stays."""
    place = table.row(table.key("a"))
    assert place is not None
    table.add(place, 0)
    table.add(place, 1)
    tokens, _ = table.rate(table.key("a"), 0.0) or (-1, False)
    for column in (0, 1):
        table.tokens[tokens + ASIDE + EACH * column] = 5.0
    table.clear(0)
    assert list(table.cells[place : place + 2]) == [0, 1]
    assert [table.tokens[tokens + ASIDE + EACH * column] for column in (0, 1)] == [0.0, 5.0]


def test_secret() -> None:
    """No client can choose its part of the table."""
    keys = set()
    for secret in (SECRET, b"another secret"):
        table = SharedTable(new_table(1), 1, secret)
        keys.add(table.key("a"))
        table.close()
    assert len(keys) == 2
