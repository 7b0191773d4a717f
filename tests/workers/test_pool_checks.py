"""What workers tell each other of pools."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

import pytest
from twisted.internet.task import Clock

from socksproxy.workers.pool_checks import WorkersChecks
from socksproxy.workers.shared_table import SharedTable, new_table

NAMES = [f"m{number}" for number in range(100)]


@pytest.fixture
def tables() -> Iterator[list[SharedTable]]:
    """The table, as two workers have it."""
    first = SharedTable(new_table(2), 2, b"secret")
    second = SharedTable(os.dup(first.fileno()), 2, b"secret")
    yield [first, second]
    first.close()
    second.close()


def test_one_leads(tables: list[SharedTable]) -> None:
    """e 28: one process of several checks."""
    workers = [WorkersChecks(table, number) for number, table in enumerate(tables)]
    assert [worker.leads for worker in workers] == [True, False]


def test_found_down(tables: list[SharedTable]) -> None:
    """What the first one tells reaches the second one, once, pool by pool."""
    first, second = (WorkersChecks(table, number) for number, table in enumerate(tables))
    assert second.found_down("eu", NAMES) is None
    first.tell("eu", [])
    assert second.found_down("eu", NAMES) is None
    first.tell("eu", NAMES[:3])
    assert second.found_down("us", NAMES) is None
    assert second.found_down("eu", NAMES) == frozenset(NAMES[:3])
    assert second.found_down("eu", NAMES) is None
    first.tell("eu", NAMES[2:4])
    assert second.found_down("eu", NAMES) == frozenset(NAMES[2:4])
    first.tell("eu", [])
    assert second.found_down("eu", NAMES) == frozenset()


def test_worker_that_dies(tables: list[SharedTable]) -> None:
    """It takes what it has told with it."""
    first, second = (WorkersChecks(table, number) for number, table in enumerate(tables))
    first.tell("eu", NAMES)
    assert second.found_down("eu", NAMES) == frozenset(NAMES)
    tables[1].clear(0)
    assert second.found_down("eu", NAMES) == frozenset()


def test_use(tables: list[SharedTable]) -> None:
    """The first one knows when any worker has used a pool."""
    clock = Clock()
    clock.advance(10000)
    first, second = (WorkersChecks(table, number, clock.seconds) for number, table in enumerate(tables))
    assert first.unused("eu") == math.inf
    second.use("eu")
    assert first.unused("eu") < 60
    clock.advance(600)
    assert 540 <= first.unused("eu") <= 660
    assert first.unused("us") == math.inf
