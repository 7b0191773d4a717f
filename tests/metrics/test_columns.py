"""The memory in which processes count."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from socksproxy.metrics import columns as columns_module
from socksproxy.metrics.columns import CELLS, HEARTBEAT, NOWHERE, Columns, OwnColumn, new_columns
from socksproxy.metrics.snapshot import Metrics
from socksproxy.metrics.table import (
    BYTES,
    CPU_SECONDS,
    DRAINING,
    ENDED,
    REACTOR_LAG,
    SESSION_SECONDS,
    SESSIONS,
    USER_SESSIONS,
)

from ..support.busy import processor_seconds


@pytest.fixture
def columns() -> Iterator[Columns]:
    """Columns of two workers, and the retired one."""
    made = Columns(new_columns(3), 3)
    yield made
    made.close()


def other(columns: Columns) -> Columns:
    """The same columns, as another process has them."""
    return Columns(os.dup(columns.fileno()), columns.count)


def test_places(columns: Columns) -> None:
    """Each series has cells of its own, which all processes know by the same number."""
    ended = columns.place(ENDED, "CONNECT", "client")
    life = columns.place(SESSION_SECONDS, "CONNECT")
    also = columns.place(ENDED, "BIND", "client")
    assert ended not in (NOWHERE, HEARTBEAT)
    assert life == ended + 1
    assert also == life + SESSION_SECONDS.cells
    elsewhere = other(columns)
    assert elsewhere.place(ENDED, "BIND", "client") == also
    assert columns.place(ENDED, "CONNECT", "client") == ended
    added = elsewhere.place(ENDED, "BIND", "idle")
    assert columns.place(ENDED, "BIND", "idle") == added
    assert [each.place for each in columns.series()] == [ended, life, also, added]


def test_labels_must_fit(columns: Columns) -> None:
    """A series has a value for each label."""
    with pytest.raises(ValueError, match="has the labels"):
        columns.place(ENDED, "CONNECT")


def test_hostile_labels(columns: Columns) -> None:
    """Whatever a user is called, its series can be shown."""
    for name in ('a"b\\c', "line\nbreak", "x" * 5000, "\udcff\udc80", "\u202etxt", "\x00"):
        columns.place(USER_SESSIONS, name)
    labels = [series.labels[0] for series in columns.series()]
    assert len(set(labels)) == 6
    assert all(label.isprintable() and len(label) <= 255 for label in labels)


def test_the_first_ones(columns: Columns) -> None:
    """A metric may have a limited number of series, over all processes."""
    elsewhere = other(columns)
    assert columns.place(USER_SESSIONS, "bob", most=2) != NOWHERE
    assert elsewhere.place(USER_SESSIONS, "eve", most=2) != NOWHERE
    assert columns.place(USER_SESSIONS, "joe", most=2) == NOWHERE
    assert columns.place(USER_SESSIONS, "eve", most=2) == elsewhere.place(USER_SESSIONS, "eve")


def test_no_room(columns: Columns, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has no room is counted nowhere, and nothing else suffers."""
    monkeypatch.setattr(columns_module, "CELLS", 4)
    place = columns.place(ENDED, "CONNECT", "client")
    assert columns.place(SESSION_SECONDS, "CONNECT") == NOWHERE
    assert columns.place(ENDED, "CONNECT", "idle") == place + 1
    assert columns.place(ENDED, "CONNECT", "auth") == NOWHERE
    column = columns.column(0)
    column[NOWHERE] += 1
    assert sum(map(sum, columns.values())) == 1
    assert [sample.value for sample in Metrics(columns).snapshot().families[ENDED.name].samples] == [0, 0]


def test_long_directory(columns: Columns, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory ends before the cells begin."""
    monkeypatch.setattr(columns_module, "_DIRECTORY", 150)
    places = [columns.place(ENDED, "CONNECT", str(number)) for number in range(9)]
    assert places[0] != NOWHERE
    assert places[-1] == NOWHERE


def test_own_column(columns: Columns) -> None:
    """A process counts in a list, which others see when it is written."""
    own = OwnColumn(columns, 1)
    place = own.place(ENDED, "CONNECT", "client")
    own.counts[place] += 2
    metrics = Metrics(other(columns))
    assert metrics.snapshot().value(ENDED.name) == 0
    own.write()
    assert metrics.snapshot().value(ENDED.name) == 2
    late = own.place(SESSION_SECONDS, "CONNECT")
    own.counts[late] += 1
    total = late + SESSION_SECONDS.cells - 1
    own.counts[total] += 0.000_017
    own.write()
    assert metrics.snapshot().value(SESSION_SECONDS.name) == 1
    # A second list on the same column begins with the same numbers.
    again = OwnColumn(columns, 1)
    again.place(SESSION_SECONDS, "CONNECT")
    again.write()
    assert columns.column(1)[total] == 17


def test_retire(columns: Columns) -> None:
    """Of a worker that has died counters stay, gauges go, and its next process begins at 0."""
    metrics = Metrics(columns)
    own, beside = OwnColumn(columns, 0), OwnColumn(columns, 1)
    for each in (own, beside):
        each.counts[HEARTBEAT] = 1
        for metric in (ENDED, SESSIONS):
            place = each.place(metric, "CONNECT", "relaying")
            each.counts[place] = 3
        place = each.place(SESSION_SECONDS, "CONNECT")
        each.counts[place] += 1
        each.counts[place + SESSION_SECONDS.cells - 1] += 2.0
        place = each.place(CPU_SECONDS)
        each.counts[place] = 5_000_000
        place = each.place(REACTOR_LAG)
        each.counts[place] = 7
        each.write()
    before = metrics.snapshot()
    assert before.value(SESSIONS.name) == 6
    columns.retire(0)
    after = metrics.snapshot()
    assert after.value(ENDED.name) == before.value(ENDED.name) == 6
    assert after.value(SESSIONS.name) == 3
    (life,) = after.families[SESSION_SECONDS.name].samples
    assert (life.value, life.sum) == (2, 4)
    assert [sample.labels for sample in after.families[REACTOR_LAG.name].samples] == [("2",)]
    # The time of worker 1 goes on with its next process.
    assert after.value(CPU_SECONDS.name, worker="1") == 5
    again = OwnColumn(columns, 0)
    assert again.counts[again.place(ENDED, "CONNECT", "relaying")] == 0
    again.counts[again.place(CPU_SECONDS)] += 1_000_000
    again.write()
    assert metrics.snapshot().value(CPU_SECONDS.name, worker="1") == 6


_COUNTER = """
import sys
from socksproxy.metrics.columns import Columns, OwnColumn
from socksproxy.metrics.table import BYTES, SESSIONS
own = OwnColumn(Columns(int(sys.argv[1]), 3), 0)
sent, live = own.place(BYTES, "CONNECT", "sent"), own.place(SESSIONS, "CONNECT", "relaying")
own.counts[live] = 1
number = 0
while True:
    own.counts[sent] += 1
    own.place(BYTES, str(int(sys.argv[2]) % 10), str(number % 10))
    number += 1
    own.write()
    if number == 1:
        print("counts", flush=True)
"""


def test_killed(columns: Columns) -> None:
    """Processes are killed while they count and add series: no counter goes back, nothing is left."""
    metrics = Metrics(columns)
    before, shortest = 0.0, []
    for number in range(200 if os.environ.get("SOCKSPROXY_LONG") else 4):
        process = subprocess.Popen(
            [sys.executable, "-c", _COUNTER, str(columns.fileno()), str(number)],
            pass_fds=[columns.fileno()],
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            process.stdout.readline()
            took = []
            for _ in range(20):
                begun = time.process_time()
                now = metrics.snapshot().value(BYTES.name, direction="sent")
                took.append(time.process_time() - begun)
                assert now >= before
                before = now
            # A collection of garbage may make one of them slow.
            shortest.append(min(took))
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        columns.retire(0)
        snapshot = metrics.snapshot()
        assert snapshot.value(BYTES.name, direction="sent") >= before > 0
        assert snapshot.value(SESSIONS.name) == 0
    assert max(shortest) < processor_seconds(0.05)


def test_all_of_it(columns: Columns) -> None:
    """A snapshot of everything that can be counted takes less than 50 ms."""
    for number in range((CELLS - 10) // ENDED.cells):
        columns.place(ENDED, "CONNECT", f"{number:04x}")
    metrics = Metrics(columns)
    metrics.snapshot()
    begun = time.process_time()
    snapshot = metrics.snapshot()
    assert time.process_time() - begun < 0.5
    assert len(snapshot.families[ENDED.name].samples) > 30_000


def test_unknown_series(columns: Columns) -> None:
    """A series of a later version is left out, and what comes behind it has its place."""
    elsewhere = other(columns)
    strange = type(DRAINING)(name="socksproxy_of_tomorrow", help="?")
    elsewhere.place(strange)
    place = elsewhere.place(ENDED, "CONNECT", "client")
    assert columns.place(ENDED, "CONNECT", "client") == place
    assert "socksproxy_of_tomorrow" not in Metrics(columns).snapshot().families
