"""``GET /metrics``: see :mod:`socksproxy.admin.scrape`."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import pytest_twisted
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from twisted.internet import reactor
from twisted.internet.defer import gatherResults

from socksproxy.admin.errors import RequestRefused
from socksproxy.admin.routes import Asked
from socksproxy.admin.scrape import MetricsRoute
from socksproxy.admin.site import Response
from socksproxy.metrics.columns import Columns, new_columns
from socksproxy.metrics.snapshot import Metrics
from socksproxy.metrics.table import BYTES


def asked(accept: str = "") -> Asked:
    return Asked({}, {}, {}, "nobody", accept)


def some() -> Metrics:
    columns = Columns(new_columns(2), 2)
    columns.column(0)[columns.place(BYTES, "CONNECT", "sent")] = 7
    return Metrics(columns)


@pytest_twisted.inlineCallbacks
def test_formats() -> Any:
    """The client chooses between the text format and OpenMetrics."""
    route = MetricsRoute(reactor, some)
    made: Response = yield route.scrape(asked())
    assert made.kind.startswith("text/plain; version=0.0.4")
    assert b'socksproxy_bytes_total{command="CONNECT",direction="sent"} 7.0' in made.body
    made = yield route.scrape(asked("application/openmetrics-text"))
    assert made.kind.startswith("application/openmetrics-text")
    assert [family.name for family in text_string_to_metric_families(made.body.decode())] == [
        "socksproxy_bytes"
    ]


def test_nothing_counts() -> None:
    """A server without metrics says so."""
    with pytest.raises(RequestRefused) as caught:
        MetricsRoute(reactor, lambda: None).scrape(asked())
    assert caught.value.status == 404


def test_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the answer says what to install."""
    monkeypatch.delitem(sys.modules, "socksproxy.metrics.exposition", raising=False)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(RequestRefused) as caught:
        MetricsRoute(reactor, some).scrape(asked())
    assert caught.value.status == 501
    assert "pip install 'twisted-socksproxy[metrics]'" in caught.value.words


@pytest_twisted.inlineCallbacks
def test_too_many() -> Any:
    """Scrapes take turns, and do not pile up; another one has its turn later."""
    route = MetricsRoute(reactor, some)
    made = [route.scrape(asked()).addErrback(lambda failure: failure.value) for _ in range(12)]
    answers = yield gatherResults(made)
    refused = [answer for answer in answers if isinstance(answer, RequestRefused)]
    assert [answer.status for answer in refused] == [503] * 3
    assert len({answer.body for answer in answers if answer not in refused}) == 1
    assert (yield route.scrape(asked())).body
