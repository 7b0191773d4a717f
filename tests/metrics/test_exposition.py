"""Metrics as Prometheus reads them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable

import pytest
from prometheus_client import Metric as Parsed
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as text

from socksproxy.metrics.columns import HEARTBEAT, Columns, OwnColumn, new_columns
from socksproxy.metrics.exposition import OPENMETRICS, TEXT, Exposition, exposition
from socksproxy.metrics.snapshot import Metrics, Snapshot
from socksproxy.metrics.table import BUILD_INFO, BY_NAME, METRICS, SESSION_SECONDS, USER_BYTES

#: Names that users can have.
HOSTILE = (
    'qu"ote',
    "back\\slash",
    "line\nbreak",
    "x" * 255,
    "\udcff",
    "<img onerror>",
    "\u202eevil",
    "{}",
    " ",
)

#: More names than one step formats.
MANY = tuple(f"user {number}" for number in range(70))


def everything() -> Snapshot:
    """Every metric of the table, with values."""
    columns = Columns(new_columns(3), 3)
    own = OwnColumn(columns, 0)
    for metric in METRICS:
        place = own.place(metric, *(f"some {label}" for label in metric.labels))
        for cell in range(place, place + metric.cells):
            own.counts[cell] = cell
    for name in (*HOSTILE, *MANY):
        own.place(USER_BYTES, name, "sent")
    own.counts[HEARTBEAT] = 1
    own.write()
    metrics = Metrics(columns)
    metrics.register(BUILD_INFO, lambda: [(("1.0", "3.13", "26.10"), 1)])
    return metrics.snapshot()


def values(families: Iterable[Parsed]) -> dict[str, list[float]]:
    """The values of each name of a sample."""
    found: dict[str, list[float]] = {}
    for family in families:
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.value)
    return found


@pytest.mark.parametrize(
    "accept", ["", "*/*", "text/plain;version=0.0.4", "application/openmetrics-text;q=0"]
)
def test_text(accept: str) -> None:
    """The text format is what every Prometheus reads."""
    snapshot = everything()
    kind, data = exposition(snapshot, accept)
    assert kind == TEXT
    found = values(text(data.decode()))
    for name, family in snapshot.families.items():
        shown = f"{name}_count" if family.metric is SESSION_SECONDS else name
        assert shown in found or f"{name}_count" in found
    assert not [name for name in found if name.endswith("_created")]


def test_openmetrics() -> None:
    """A client that asks for OpenMetrics gets it, and it is right to the letter."""
    accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"
    kind, data = exposition(everything(), accept)
    assert kind == OPENMETRICS
    assert data.endswith(b"# EOF\n")
    families = list(openmetrics(data.decode()))
    assert {family.name for family in families} == {name.removesuffix("_total") for name in BY_NAME}
    assert all(family.documentation for family in families)
    assert not [sample for family in families for sample in family.samples if "_created" in sample.name]


def test_hostile_names() -> None:
    """A user's name stays one value of one label."""
    for accept, parse in (("", text), ("application/openmetrics-text", openmetrics)):
        _, data = exposition(everything(), accept)
        (family,) = (each for each in parse(data.decode()) if each.name == "socksproxy_user_bytes")
        names = [sample.labels["user"] for sample in family.samples]
        assert len(set(names)) == len(HOSTILE) + len(MANY) + 1
        assert {'qu"ote', "back\\slash", "line\\nbreak", "\\udcff", "<img onerror>"} <= set(names)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool here")
def test_promtool() -> None:
    """Prometheus's own tool has nothing to say against names, help and values."""
    for accept in ("",):
        _, data = exposition(everything(), accept)
        checked = subprocess.run(
            ["promtool", "check", "metrics"], input=data, capture_output=True, timeout=30, check=False
        )
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


def test_steps() -> None:
    """
    A snapshot is formatted in short steps, with the same text as in one; heads come once.

    What has not changed since the last time takes no step, and what has changed is told.
    """
    columns = Columns(new_columns(2), 2)
    own = OwnColumn(columns, 0)
    places = [own.place(USER_BYTES, name, "sent") for name in MANY]
    metrics, formatted = Metrics(columns), Exposition()

    def told(accept: str) -> tuple[int, bytes]:
        work, steps = formatted.text(metrics.snapshot(), accept), 0
        while True:
            try:
                next(work)
            except StopIteration as end:
                return steps, end.value[1]
            steps += 1

    for accept in ("", "application/openmetrics-text"):
        steps, data = told(accept)
        assert steps >= 5
        assert (data.count(b"# HELP"), data.count(b"# TYPE")) == (1, 1)
        assert data.count(b"\nsocksproxy_user_bytes_total") == len(MANY)
        again, same = told(accept)
        assert (again, same) == (0, data)
        own.counts[places[-1]] += 1
        own.write()
        fresh, changed = told(accept)
        assert fresh == 1
        assert changed == exposition(metrics.snapshot(), accept)[1] != data
