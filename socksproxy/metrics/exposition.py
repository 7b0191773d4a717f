"""
Metrics as Prometheus reads them, in its text format or as OpenMetrics.

``prometheus_client`` (extra ``metrics``) only formats: what it is given is a snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import exposition as text_format
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from .snapshot import Family, Snapshot
from .table import MetricKind

#: The text format, of the version that every Prometheus reads.
TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class SnapshotCollector(Collector):
    """
    Gives the values of *snapshot* to ``prometheus_client``.

    :param snapshot: the values.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """See :class:`prometheus_client.registry.Collector`."""
        return map(_family, self._snapshot.families.values())


def exposition(snapshot: Snapshot, accept: str = "") -> tuple[str, bytes]:
    """
    The metrics of *snapshot* as text. To be called in a thread: it takes some milliseconds.

    :param accept: the request's ``Accept``.
    :returns: the content type and the text.
    """
    collector = SnapshotCollector(snapshot)
    if _wants_openmetrics(accept):
        return OPENMETRICS, openmetrics.generate_latest(collector)
    return TEXT, text_format.generate_latest(collector)


def _wants_openmetrics(accept: str) -> bool:
    for choice in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in choice.split(";"))
        if kind == "application/openmetrics-text":
            return not any(part.replace(" ", "") in ("q=0", "q=0.0") for part in parameters)
    return False


def _family(family: Family) -> Metric:
    metric, labels = family.metric, family.labels
    if metric.kind is MetricKind.HISTOGRAM:
        bounds = [*map(_bound, metric.buckets), "+Inf"]
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=labels)
        for sample in family.samples:
            histogram.add_metric(
                sample.labels, list(zip(bounds, sample.buckets, strict=True)), sum_value=sample.sum
            )
        return histogram
    made: CounterMetricFamily | GaugeMetricFamily
    if metric.kind is MetricKind.COUNTER:
        made = CounterMetricFamily(metric.name, metric.help, labels=labels)
    else:
        made = GaugeMetricFamily(metric.name, metric.help, labels=labels)
    for sample in family.samples:
        made.add_metric(sample.labels, sample.value)
    return made


def _bound(seconds: float) -> str:
    return str(float(seconds))
