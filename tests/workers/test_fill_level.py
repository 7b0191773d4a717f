"""How full the table is that workers share."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from socksproxy.workers import fill_level, shared_table
from socksproxy.workers.fill_level import EVERY, FillLevel
from socksproxy.workers.shared_table import SharedTable, new_table
from tests.support.logs import heard


def test_level() -> None:
    """A look a second covers a part of the rows; names in use count, and those that are gone do not."""
    table = SharedTable(new_table(2), 2, b"secret")
    clock = Clock()
    now = 100.0
    level = FillLevel(clock, table, lambda: now)
    places = []
    for number in range(500):
        place = table.row(table.key(str(number)))
        assert place is not None
        table.add(place, number % 2)
        places.append(place)
    for number in range(300):
        found = table.rate(table.key(str(number)), now)
        assert found is not None
        table.tokens[found[0]] = now + 60
    level.start()
    for _ in range(16):
        clock.advance(EVERY)
    assert level.rows() == [(("counts",), 500), (("rates",), 300)]
    assert level.most() == [(("counts",), 65536), (("rates",), 65536)]
    for number, place in enumerate(places):
        table.remove(place, number % 2)
    now = 200.0
    for _ in range(16):
        clock.advance(EVERY)
    assert level.rows() == [(("counts",), 0), (("rates",), 0)]
    level.stop()
    assert not clock.getDelayedCalls()
    table.close()


def test_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 80 % there is a warning, once until there has been room again."""
    for name, value in (("_WAYS", 20), ("_PARTS", 1), ("ROWS", 20), ("RATES", 20)):
        monkeypatch.setattr(shared_table, name, value)
    for name, value in (("_PARTS", 1), ("ROWS", 20), ("RATES", 20)):
        monkeypatch.setattr(fill_level, name, value)
    table = SharedTable(new_table(1), 1, b"secret")
    level = FillLevel(Clock(), table)
    places = [table.row(table.key("0"))]
    table.add(places[0] or 0, 0)

    def fill(to: int) -> None:
        while len(places) < to:
            place = table.row(table.key(str(len(places))))
            assert place is not None
            table.add(place, 0)
            places.append(place)
        while len(places) > to:
            table.remove(places.pop() or 0, 0)
        level.look()

    with heard() as lines:
        fill(15)
        assert lines == []
        fill(16)
        fill(20)
        assert len(lines) == 1
        assert lines[0].startswith("16 of 20 rows of the table that workers share are in use (counts)")
        fill(10)
        fill(17)
        assert len(lines) == 2
    table.close()
