"""Snapshots of what is counted."""

from __future__ import annotations

from socksproxy.metrics.columns import HEARTBEAT, Columns, OwnColumn, new_columns
from socksproxy.metrics.snapshot import Metrics, Sample
from socksproxy.metrics.table import BYTES, DRAINING, HANDSHAKE_SECONDS, METRICS, REACTOR_LAG, RELOADS


def test_values() -> None:
    """Values of columns are added up, and chosen by their labels."""
    columns = Columns(new_columns(3), 3)
    for number, direction in ((0, "sent"), (1, "sent"), (1, "received")):
        own = OwnColumn(columns, number)
        place = own.place(BYTES, "CONNECT", direction)
        own.counts[place] += 10
        own.write()
    snapshot = Metrics(columns).snapshot()
    assert snapshot.value(BYTES.name) == 30
    assert snapshot.value(BYTES.name, direction="sent") == 20
    assert snapshot.value(BYTES.name, direction="sent", command="BIND") == 0
    assert snapshot.value(RELOADS.name) == 0
    assert snapshot.families[BYTES.name].labels == ("command", "direction")


def test_histogram() -> None:
    """A histogram's buckets count all that is not above them, over all processes."""
    columns = Columns(new_columns(3), 3)
    last = len(HANDSHAKE_SECONDS.buckets)
    for number in (0, 1):
        own = OwnColumn(columns, number)
        place = own.place(HANDSHAKE_SECONDS)
        own.counts[place] += 2
        own.counts[place + 3] += 1
        own.counts[place + last] += 1
        own.counts[place + last + 1] += 30.0
        own.write()
    (sample,) = Metrics(columns).snapshot().families[HANDSHAKE_SECONDS.name].samples
    assert sample == Sample((), 8, (4, 4, 4, *[6] * (last - 3), 8), 60.0)


def test_of_each_worker() -> None:
    """What each worker has for itself has its number, as long as the worker lives."""
    columns = Columns(new_columns(3), 3)
    own = OwnColumn(columns, 1)
    own.counts[own.place(REACTOR_LAG)] = 250_000
    own.counts[HEARTBEAT] = 1
    own.write()
    family = Metrics(columns).snapshot().families[REACTOR_LAG.name]
    assert family.labels == ("worker",)
    assert family.samples == [Sample(("2",), 0.25)]


def test_sources() -> None:
    """What no column has is asked for, and the order is that of the table."""
    columns = Columns(new_columns(2), 2)
    metrics = Metrics(columns)
    columns.place(BYTES, "CONNECT", "sent")
    metrics.register(DRAINING, lambda: [((), True)])
    families = metrics.snapshot().families
    assert families[DRAINING.name].samples == [Sample((), 1)]
    names = [metric.name for metric in METRICS if metric.name in families]
    assert list(families) == names
