"""What a process answers about traces: see :mod:`socksproxy.admin.traces`."""

from __future__ import annotations

import json

from twisted.internet.testing import MemoryReactorClock

from socksproxy import SOCKSFactory
from socksproxy.admin.traces import BEGIN, END, TAKE, TraceAnswers

USER = {"filter": {"user": "bob"}, "seconds": 5.0}


def test_questions() -> None:
    """A trace that is over is so once its last lines are taken; one that is unknown is over."""
    reactor = MemoryReactorClock()
    factory = SOCKSFactory(reactor)
    answers = TraceAnswers(factory.sessions)
    ask = answers.questions
    assert ask[BEGIN]({"name": "a", **USER}, []) == {"why": None}
    assert ask[TAKE]({"name": "a"}, []) == {"over": False}
    assert ask[TAKE]({"name": "b"}, []) == {"over": True}
    trace = answers._traces["a"]
    for _ in range(3):
        trace.put(json.dumps({"x": "y" * (200 << 10)}).encode() + b"\n")
    reactor.advance(5.0)
    taken: list[int] = []
    while True:
        parts: list[bytes] = []
        over = ask[TAKE]({"name": "a"}, parts)["over"]
        taken.append(len(parts))
        assert not any(b"\n" in part for part in parts)
        if over:
            break
    assert taken == [1, 1, 1]
    assert ask[BEGIN]({"name": "c", **USER}, []) == {"why": None}
    assert "a" not in answers._traces
    assert ask[END]({"name": "c"}, []) == {}
    assert ask[END]({"name": "c"}, []) == {}
    assert reactor.getDelayedCalls() == []


def test_a_refusal() -> None:
    answers = TraceAnswers(SOCKSFactory(MemoryReactorClock()).sessions)
    told = answers.questions[BEGIN]({"name": "a", "filter": {"session": "1.2.3"}, "seconds": 5.0}, [])
    assert told == {"why": "there is no session 1.2.3"}
