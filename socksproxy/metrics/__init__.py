"""
Counters and gauges of a server, of all its processes together, and how they are shown.

:mod:`~socksproxy.metrics.table` has the names. :mod:`~socksproxy.metrics.columns` keeps the numbers, in
memory that processes share. :mod:`~socksproxy.metrics.snapshot` reads them, and
:mod:`~socksproxy.metrics.exposition` writes them for Prometheus.
"""
