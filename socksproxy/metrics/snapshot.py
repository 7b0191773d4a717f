"""
What is counted, at one moment: plain values, for Prometheus, the control socket and the status page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

from .columns import HEARTBEAT, Columns
from .table import METRICS, Metric, MetricKind

#: What tells values that no column has: the values of the metric's labels, and the value.
Source = Callable[[], Iterable[tuple[tuple[str, ...], float]]]


class Sample(NamedTuple):
    """
    One value.

    :ivar labels: the values of the family's labels.
    :ivar value: the value; of a histogram, how many there are.
    :ivar buckets: of a histogram, how many there are up to each bound, and up to infinity.
    :ivar sum: of a histogram, all values together.
    """

    labels: tuple[str, ...]
    value: float
    buckets: tuple[int, ...] = ()
    sum: float = 0.0


class Family(NamedTuple):
    """
    A metric and its values.

    :ivar metric: the metric.
    :ivar labels: the names of its labels; those of each worker have ``worker`` first.
    :ivar samples: a value for each set of values of the labels.
    """

    metric: Metric
    labels: tuple[str, ...]
    samples: Sequence[Sample]


class Snapshot(NamedTuple):
    """
    All values of one moment.

    :ivar families: by the names of the metrics, in the order of the table.
    """

    families: dict[str, Family]

    def value(self, name: str, **labels: str) -> float:
        """
        The sum of the values of the metric *name* that have these *labels*.

        :returns: 0 where there are none.
        """
        family = self.families.get(name)
        if family is None:
            return 0.0
        wanted = [(family.labels.index(label), value) for label, value in labels.items()]
        return sum(
            sample.value
            for sample in family.samples
            if all(sample.labels[place] == value for place, value in wanted)
        )


class Metrics:
    """
    Where the values are.

    :param columns: of all processes; the last one is the retired one.
    """

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        self._sources: dict[str, Source] = {}

    def register(self, metric: Metric, source: Source) -> None:
        """
        Ask *source* for the values of *metric* in each snapshot, in place of the columns.

        It is called in the reactor's thread and must not take long.

        :param metric: of the table.
        """
        self._sources[metric.name] = source

    def snapshot(self) -> Snapshot:
        """The values of this moment. It takes a millisecond, or a few."""
        found = self._of_columns()
        families = {}
        for metric in METRICS:
            labels = ("worker", *metric.labels) if metric.per_worker else metric.labels
            source = self._sources.get(metric.name)
            samples = found.get(metric.name, [])
            if source is not None:
                samples = [Sample(values, value) for values, value in source()]
            if samples:
                families[metric.name] = Family(metric, labels, samples)
        return Snapshot(families)

    def _of_columns(self) -> dict[str, list[Sample]]:
        columns = self.columns
        # First: other processes may add some meanwhile.
        series = list(columns.series())
        values = columns.values()
        totals = [sum(each) for each in zip(*values, strict=True)]
        found: dict[str, list[Sample]] = {}
        for metric, labels, place in series:
            samples = found.setdefault(metric.name, [])
            if metric.per_worker:
                samples += [
                    Sample((str(number), *labels), column[place] * metric.scale)
                    for number, column in enumerate(values[:-1], 1)
                    if column[HEARTBEAT] or (metric.kind is MetricKind.COUNTER and column[place])
                ]
            elif metric.kind is MetricKind.HISTOGRAM:
                *counts, total = totals[place : place + metric.cells]
                buckets = tuple(accumulate(counts))
                samples.append(Sample(labels, buckets[-1], buckets, total * metric.scale))
            else:
                samples.append(Sample(labels, totals[place] * metric.scale))
        return found
