"""
Connections without Twisted transports, as the relay engine makes them.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
import sys
from collections.abc import Generator, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from ..support.relay import Owner, an_engine, open_descriptors, raw, reactor, read_exactly, socket_pair

if sys.platform != "linux":
    pytest.skip("the engine is Linux's", allow_module_level=True)

from socksproxy.net.dial import as_deferred
from socksproxy.relay.engine import RelayEngine

Playing = Generator[Any, Any, None]


@pytest.fixture
def engine() -> Iterator[RelayEngine]:
    with an_engine() as engine:
        yield engine


def connect(engine: RelayEngine, *arguments: Any, **options: Any) -> Deferred[Any]:
    """An attempt of the engine's, as tests wait for it."""
    return as_deferred(engine.connect(*arguments, **options))


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
@pytest_twisted.inlineCallbacks
def test_connected(engine: RelayEngine, family: int, host: str) -> Playing:
    with socket.socket(family) as listening:
        listening.bind((host, 0))
        listening.listen(1)
        address = listening.getsockname()[:2]
        link = yield connect(engine, address, family)
        accepted, peer = listening.accept()
    assert link.getsockname()[:2] == peer[:2]
    assert link.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert link.gettimeout() == 0
    engine.drop(link.fileno())
    link.close()
    accepted.close()


@pytest.mark.parametrize("fails", [False, True])
@pytest_twisted.inlineCallbacks
def test_made(engine: RelayEngine, fails: bool) -> Playing:
    """The result is what the caller makes of the socket. If the caller fails, the socket is closed."""
    before = open_descriptors()

    def made(link: socket.SocketType) -> Any:
        if fails:
            raise ValueError("nothing to be made of it")
        return link, "made"

    with socket.create_server(("127.0.0.1", 0)) as listening:
        attempt = connect(engine, listening.getsockname(), socket.AF_INET, made=made)
        if fails:
            with pytest.raises(ValueError, match="nothing"):
                yield attempt
        else:
            link, word = yield attempt
            assert word == "made"
            engine.drop(link.fileno())
            link.close()
    assert open_descriptors() == before
    assert engine._registered == 0


@pytest.mark.parametrize("when", ["before", "after"])
@pytest_twisted.inlineCallbacks
def test_without_a_deferred(engine: RelayEngine, when: str) -> Playing:
    """The one who waits is called once, with arguments, whether the attempt has ended already or not."""
    told: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        attempt = engine.connect(listening.getsockname(), socket.AF_INET)
        if when == "before":
            attempt.addBoth(lambda *outcome: told.append(outcome), "more")
        while attempt.link is not None:
            yield deferLater(reactor, 0)
        if when == "after":
            attempt.addBoth(lambda *outcome: told.append(outcome), "more")
        attempt.cancel()  # too late: the socket is the caller's
    ((link, more),) = told
    assert more == "more"
    assert link.fileno() >= 0
    engine.drop(link.fileno())
    link.close()


def test_refused_without_a_deferred(engine: RelayEngine) -> None:
    told: list[Any] = []
    engine.connect(("127.0.0.1", 9), socket.AF_INET, ("192.0.2.77", 0)).addBoth(told.append)
    assert told[0].check(OSError)


@pytest.mark.parametrize("how", ["cancel", "close"])
def test_ended_without_a_deferred(how: str) -> None:
    """One who cancels hears nothing; where the engine closes, the attempt fails."""
    told: list[Any] = []
    with an_engine() as engine, socket.create_server(("127.0.0.1", 0)) as listening:
        attempt = engine.connect(listening.getsockname(), socket.AF_INET)
        attempt.addBoth(told.append)
        if how == "cancel":
            attempt.cancel()
        else:
            engine.close()
        assert attempt.link is None
    assert [failure.type for failure in told] == ([] if how == "cancel" else [CancelledError])


@pytest_twisted.inlineCallbacks
def test_source(engine: RelayEngine) -> Playing:
    """``--outgoing``: the destination sees the address that was asked for."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        link = yield connect(engine, listening.getsockname(), socket.AF_INET, ("127.0.0.9", 0))
        accepted, peer = listening.accept()
    assert peer[0] == "127.0.0.9"
    engine.drop(link.fileno())
    link.close()
    accepted.close()


@pytest_twisted.inlineCallbacks
def test_refused(engine: RelayEngine) -> Playing:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = closed.getsockname()
        before = open_descriptors()
        with pytest.raises(ConnectionRefusedError):
            yield connect(engine, address, socket.AF_INET)
        assert open_descriptors() == before


@pytest_twisted.inlineCallbacks
def test_source_that_is_not_ours(engine: RelayEngine) -> Playing:
    before = open_descriptors()
    with pytest.raises(OSError, match="assign") as caught:
        yield connect(engine, ("127.0.0.1", 9), socket.AF_INET, ("192.0.2.77", 0))
    assert caught.value.errno == errno.EADDRNOTAVAIL
    assert open_descriptors() == before


@pytest_twisted.inlineCallbacks
def test_cancelled(engine: RelayEngine) -> Playing:
    """A client that goes away while we dial leaves no half-open socket."""
    with socket.socket() as full:
        # No program accepts: with the queue full, a further connection stays in SYN-SENT.
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
            fillers.append(filler)
        yield deferLater(reactor, 0.05, lambda: None)
        before = open_descriptors()
        attempt = connect(engine, full.getsockname(), socket.AF_INET)
        assert not attempt.called
        attempt.cancel()
        with pytest.raises(CancelledError):
            yield attempt
        assert open_descriptors() == before
        for filler in fillers:
            filler.close()


@pytest_twisted.inlineCallbacks
def test_out_of_descriptors(engine: RelayEngine) -> Playing:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        highest = max(int(entry.split()[0]) for entry in open_descriptors())
        spare = [os.dup(0) for _ in range(highest + 1 - len(open_descriptors()))]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))), hard))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                yield connect(engine, listening.getsockname(), socket.AF_INET)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for descriptor in spare:
                os.close(descriptor)


@pytest_twisted.inlineCallbacks
def test_destination_that_speaks_first(engine: RelayEngine) -> Playing:
    """An SSH or SMTP banner may come in the very event that tells of the connection."""
    mine, relays = socket_pair()
    ended: Deferred[Any] = Deferred()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet() -> socket.socket:
            accepted, _ = listening.accept()
            accepted.sendall(b"220 ready\r\n")
            return accepted

        greeting = deferToThread(greet)
        attempt = connect(engine, listening.getsockname(), socket.AF_INET)
        accepted = yield greeting
        # The event is due and holds both: that it is connected, and the banner.
        link = yield attempt
        engine.relay(raw(relays), link, Owner(ended.callback))
        assert (yield deferToThread(read_exactly, mine, 11)) == b"220 ready\r\n"
    mine.close()
    accepted.close()
    yield ended
