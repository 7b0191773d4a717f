"""What one process answers to the status page: see :mod:`socksproxy.admin.busiest`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest_twisted
from twisted.internet.task import Clock

from socksproxy.admin.answers import Answers
from socksproxy.admin.busiest import ENDED, GROUPS, LIVE, BusiestAnswers
from socksproxy.admin.lines import lines_of

from ..conftest import Serve
from ..support.origin import Origin, echo
from ..support.proxy import Playing, Proxy, ask5, echoes
from .test_answers import Crowd


def told(answer: Any) -> dict[str, list[list[Any]]]:
    """The lines of an answer, by what they are."""
    found: dict[str, list[list[Any]]] = {kind: [] for kind in ("live", "ended", *GROUPS)}
    for kind, *rest in map(json.loads, lines_of(answer.parts)):
        found[kind].append(rest)
    return found


@pytest_twisted.inlineCallbacks
def test_sessions(serve_as: Serve, tmp_path: Path) -> Playing:
    """A session is told while it lives, and after its end, with what it has moved."""
    proxy: Proxy = yield serve_as()
    answers = Answers(proxy.factory)
    with Origin(echo) as origin:
        with proxy.connect() as client:
            yield proxy.play(ask5, client, "127.0.0.1", origin.port)
            yield proxy.play(echoes, client, b"12345")
            answer = yield answers.ask("page", {"rows": 10})
            assert (answer.value["live"], answer.value["phases"]) == (1, {"relaying": 1})
            lines = told(answer)
            live = dict(zip(LIVE, lines["live"][0], strict=True))
            assert (live["sent"], live["received"], live["phase"]) == (5, 5, "relaying")
            assert live["destination"] == f"127.0.0.1:{origin.port}"
            assert [row[:2] for row in lines["destination"]] == [["127.0.0.1", 1]]
            assert lines["destination"][0][3] == 10
        yield proxy.record(0)
    lines = told((yield answers.ask("page", {"rows": 10})))
    assert not lines["live"]
    ended = dict(zip(ENDED, lines["ended"][0], strict=True))
    assert (ended["id"], ended["end"], ended["sent"]) == (live["id"], "client", 5)


def test_nobody_looks(monkeypatch: Any) -> None:
    """When nothing asks any more, ends of sessions are not listened to."""
    crowd = Crowd(1)
    clock = Clock()
    monkeypatch.setattr(crowd.factory.context, "reactor", clock)
    answers = BusiestAnswers(crowd.factory.sessions, 1, lambda: iter(()))
    events = crowd.factory.context.events
    assert not events.wants("ended")
    answers.page({"rows": 1}, [])
    assert events.wants("ended")
    clock.advance(60)
    events.tell("ended", next(iter(crowd.factory.sessions.live)), None)
    assert not events.wants("ended")


def test_crowd() -> None:
    """The fastest sessions are told, those with the most bytes first among them; and groups of each kind."""
    crowd = Crowd(1000)
    lines = told(crowd.ask("page", rows=5))
    assert sorted(row[LIVE.index("sent")] for row in lines["live"]) == [995, 996, 997, 998, 999]
    assert lines["user"][0][0] == "user499"
    assert lines["user"][0][1:] == [2, lines["user"][0][2], 3 * (499 + 999)]
    assert ["one>two", 1000] in [row[:2] for row in lines["upstream"]]
    assert all(len(lines[kind]) <= 60 for kind in GROUPS)
