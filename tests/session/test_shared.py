"""What subscribers are told of sessions."""

from __future__ import annotations

from typing import Any

import pytest_twisted

from socksproxy.events import AccessRecord, End, Ended, IServerEvents, ServerEvents, Subject
from socksproxy.session.shared import Events

from ..conftest import Serve
from ..support.logs import heard
from ..support.origin import Origin, echo
from ..support.proxy import Playing, Proxy, ask5, closed_port, until


class Everything(ServerEvents):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def began(self, session: Subject) -> None:
        self.told.append("began")

    def refused(self, session: Subject, ended: Ended) -> None:
        self.told.append(("refused", ended.end))

    def granted(self, session: Subject) -> None:
        self.told.append("granted")

    def ended(self, session: Subject, record: AccessRecord | None) -> None:
        assert record is not None
        self.told.append(("ended", record.end, record.id == session.id))


class Broken(ServerEvents):
    """Raises."""

    def dropped(self) -> None:
        raise ValueError("a subscriber's fault")


class Counting(ServerEvents):
    """Counts one kind of events."""

    count = 0

    def dropped(self) -> None:
        self.count += 1


@pytest_twisted.inlineCallbacks
def test_sessions(serve: Serve) -> Playing:
    """One session that is granted and one that is refused, from the beginning to the end."""
    proxy: Proxy = yield serve()
    subscriber = Everything()
    proxy.factory.context.events.subscribe(subscriber)
    with Origin(echo) as origin:
        with proxy.connect() as sock:
            assert (yield proxy.play(ask5, sock, "127.0.0.1", origin.port))[0] == 0
        yield until(lambda: not proxy.sessions.live)
        assert subscriber.told == ["began", "granted", ("ended", "client", True)]
    del subscriber.told[:]
    with proxy.connect() as sock:
        assert (yield proxy.play(ask5, sock, "127.0.0.1", closed_port()))[0] == 5
    yield until(lambda: not proxy.sessions.live)
    assert subscriber.told == ["began", ("refused", End.REFUSED), ("ended", "refused", True)]
    proxy.factory.context.events.unsubscribe(subscriber)
    with proxy.connect() as sock:
        yield until(lambda: proxy.sessions.live)
    yield until(lambda: not proxy.sessions.live)
    assert len(subscriber.told) == 3


def test_a_fault_costs_one_event() -> None:
    """The others hear of it all the same, and the log does, too."""
    events, counting = Events(), Counting()
    for subscriber in (Broken(), counting):
        events.subscribe(subscriber)
    with heard() as lines:
        events.tell("dropped")
    assert counting.count == 1
    assert "an event is lost" in lines[0]


def test_only_what_is_defined_is_called() -> None:
    """An event that no subscriber's class defines costs nothing."""
    events = Events()
    assert not any(map(events.wants, IServerEvents.names()))
    events.subscribe(Counting())
    assert [name for name in IServerEvents.names() if events.wants(name)] == ["dropped"]
