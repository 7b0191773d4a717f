"""
Metrics as Prometheus reads them, in its text format or as OpenMetrics.

``prometheus_client`` (extra ``metrics``) only formats: what it is given is a snapshot.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from itertools import count

from prometheus_client import exposition as text_format
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from .snapshot import Family, Sample, Snapshot
from .table import MetricKind

#: The text format, of the version that every Prometheus reads.
TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


#: Samples that are formatted in one step; one of a histogram has many lines.
_SAMPLES = 16
#: Parts in one step that are known from before.
_KNOWN = 64
_END = b"# EOF\n"


class Exposition:
    """
    Formats snapshots.

    Strategy: the work is done in steps, in the reactor's thread. A thread of its own would hold the
    interpreter for some milliseconds, and sessions would wait. A part whose values are those of the last
    time has the text of the last time: most parts have, because processes write their numbers down once a
    second.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, int], tuple[Sequence[Sample], bytes]] = {}

    def text(self, snapshot: Snapshot, accept: str = "") -> Generator[None, None, tuple[str, bytes]]:
        """
        The metrics of *snapshot*, in steps of less than a millisecond.

        :param accept: the request's ``Accept``.
        :returns: the content type and the text.
        """
        kind = OPENMETRICS if _wants_openmetrics(accept) else TEXT
        parts = []
        known = count(1)
        for name, family in snapshot.families.items():
            for start in range(0, len(family.samples), _SAMPLES):
                samples = family.samples[start : start + _SAMPLES]
                before = self._known.get((kind, name, start))
                if before is not None and before[0] == samples:
                    parts.append(before[1])
                    if next(known) % _KNOWN == 0:
                        yield
                    continue
                text = _formatted(kind, family._replace(samples=samples), start == 0)
                self._known[kind, name, start] = samples, text
                parts.append(text)
                yield
        if kind is OPENMETRICS:
            parts.append(_END)
        return kind, b"".join(parts)


def exposition(snapshot: Snapshot, accept: str = "") -> tuple[str, bytes]:
    """
    The metrics of *snapshot* at once. To be called in a thread: it takes some milliseconds.

    :param accept: the request's ``Accept``.
    :returns: the content type and the text.
    """
    work = Exposition().text(snapshot, accept)
    while True:
        try:
            next(work)
        except StopIteration as end:
            made: tuple[str, bytes] = end.value
            return made


class _OneFamily(Collector):
    def __init__(self, family: Family) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        """See :meth:`prometheus_client.registry.Collector.collect`."""
        return (_family(self._family),)


def _formatted(kind: str, family: Family, first: bool) -> bytes:
    """
    The lines of *family*.

    :param first: whether no lines of the family have gone before: then it has a head.
    """
    if kind is OPENMETRICS:
        text: bytes = openmetrics.generate_latest(_OneFamily(family)).removesuffix(_END)
    else:
        text = text_format.generate_latest(_OneFamily(family))
    while not first and text.startswith(b"# "):
        text = text.partition(b"\n")[2]
    return text


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
