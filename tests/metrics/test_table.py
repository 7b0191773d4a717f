"""The table of metrics."""

from __future__ import annotations

import re

import pytest

from socksproxy.metrics.table import BY_NAME, METRICS, Metric, MetricKind

#: Labels whose values a client could make up, as many as it likes.
_OF_CLIENTS = {"client", "destination", "host", "address", "port", "pid", "session", "id", "error"}


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names(metric: Metric) -> None:
    """A name is as Prometheus has them, and says what it counts."""
    assert re.fullmatch(r"socksproxy(_[a-z]+)+", metric.name)
    assert metric.name.endswith("_total") is (metric.kind is MetricKind.COUNTER)
    assert metric.kind is not MetricKind.HISTOGRAM or metric.name.endswith("_seconds")
    assert metric.help
    assert len(metric.buckets) <= 12
    assert list(metric.buckets) == sorted(metric.buckets)


def test_no_label_of_clients() -> None:
    """No client can make a value of a label, and so a series, but for users where the operator wants it."""
    labels = {label for metric in METRICS for label in metric.labels}
    assert not labels & _OF_CLIENTS
    assert {metric.name for metric in METRICS if "user" in metric.labels} == {
        "socksproxy_user_sessions",
        "socksproxy_user_bytes_total",
    }


def test_each_name_once() -> None:
    """A name belongs to one metric."""
    assert len(BY_NAME) == len(METRICS)
