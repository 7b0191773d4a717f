"""Debug lines on a topic: see :mod:`socksproxy.logs.debug`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel

from socksproxy.logs.debug import ALL, TOPICS, DebugTopic, topics_of

from ..support.logs import log_publisher


@pytest.fixture
def events() -> Iterator[list[LogEvent]]:
    """What is logged."""
    found: list[LogEvent] = []
    log_publisher.addObserver(found.append)
    yield found
    log_publisher.removeObserver(found.append)


def test_for_a_while(events: list[LogEvent]) -> None:
    """A topic speaks for so many seconds, anew with each order, and can be silenced."""
    clock, topic = Clock(), DebugTopic("things")
    assert (topic.on, topic.left) == (False, 0)
    topic.speak(clock, 10)
    clock.advance(9)
    assert (topic.on, topic.left) == (True, 1)
    topic.speak(clock, 10)
    clock.advance(9)
    assert topic.on
    topic("{what} happens", what="it")
    (event,) = (event for event in events if event["log_namespace"] == "socksproxy.things")
    assert (event["log_level"], event["what"]) == (LogLevel.debug, "it")
    clock.advance(1)
    assert (topic.on, topic.left) == (False, 0)
    topic.speak(clock, 10)
    topic.speak(clock, 0)
    assert not topic.on
    assert not clock.getDelayedCalls()


def test_names() -> None:
    """A topic has its name, and that of its logger; there is a name for all."""
    (topic,) = topics_of("pools")
    assert [topic] == list(topics_of("socksproxy.pools"))
    assert list(topics_of(ALL)) == list(TOPICS.values())
    for wrong in ("", "pool", "socksproxy.", "Pools"):
        with pytest.raises(KeyError):
            topics_of(wrong)
