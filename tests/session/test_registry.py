"""The live sessions: what an operator sees of them, and which ones end where descriptors are short."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import pytest_twisted
from twisted.internet.task import Clock

from socksproxy.service.server import SOCKSService
from socksproxy.session import registry
from socksproxy.wire.words import Address

from ..conftest import Serve
from ..support.logs import heard
from ..support.origin import Origin, echo
from ..support.proxy import Playing, Proxy, ask5, echoes, greet, until
from ..support.service import parsed


def fields_of(line: str) -> dict[str, str]:
    """The fields of a line."""
    return dict(word.split("=", 1) for word in line.split()[1:])


@pytest_twisted.inlineCallbacks
def test_fields(serve_as: Serve) -> Playing:
    """A line has the id of the access log, and what the session is at and has moved."""
    proxy: Proxy = yield serve_as()
    with Origin(echo) as origin, proxy.connect() as first, proxy.connect() as second:
        yield proxy.play(ask5, first, "127.0.0.1", origin.port)
        yield proxy.play(echoes, first, b"12345")
        yield proxy.play(greet, second)
        with heard() as lines:
            proxy.sessions.dump()
        texts = list(lines)
    assert texts[0] == "2 live sessions, 2 of them follow"
    relaying, negotiating = map(fields_of, texts[1:])
    assert relaying["phase"] == "relaying"
    assert (relaying["command"], relaying["destination"]) == ("CONNECT", f"127.0.0.1:{origin.port}")
    assert (relaying["sent"], relaying["received"], relaying["user"]) == ("5", "5", "-")
    assert float(relaying["age"]) >= 0
    assert (negotiating["phase"], negotiating["command"]) == ("negotiating", "-")
    yield proxy.record(1)
    assert {record["id"] for record in proxy.records} == {relaying["id"], negotiating["id"]}


@pytest_twisted.inlineCallbacks
def test_bounded(serve_as: Serve, monkeypatch: pytest.MonkeyPatch) -> Playing:
    """A crowd does not fill the log, and is written in several turns; who has gone meanwhile has no line."""
    monkeypatch.setattr(registry, "MOST_DUMPED", 3)
    monkeypatch.setattr(registry, "_DUMPED_AT_ONCE", 2)
    proxy: Proxy = yield serve_as()
    sockets = [proxy.connect() for _ in range(5)]
    yield until(lambda: len(proxy.sessions.live) == 5)
    with heard() as lines:
        proxy.sessions.dump()
        assert [text.split()[0] for text in lines] == ["5", "session", "session"]
        yield until(lambda: len(lines) == 4)
    ids = [fields_of(text)["id"] for text in lines[1:]]
    assert ids == sorted(ids, key=lambda id: int(id.rpartition(".")[2]))
    for sock in sockets:
        sock.close()


@pytest_twisted.inlineCallbacks
def test_signal(serve_as: Serve) -> Playing:
    """SIGUSR2 does it while the service runs, and what handled it before is called, too."""
    proxy: Proxy = yield serve_as()
    seen: list[int] = []

    def ours(number: int, frame: object) -> None:
        seen.append(number)

    before = signal.signal(signal.SIGUSR2, ours)
    options = parsed(reactor=proxy.factory.reactor)
    options.plan = attrs.evolve(options.plan, listeners=[])
    service = SOCKSService(options, proxy.factory)
    try:
        service.startService()
        with heard() as lines:
            os.kill(os.getpid(), signal.SIGUSR2)
            yield until(lambda: lines)
        assert lines[0] == "0 live sessions, 0 of them follow"
        assert seen == [signal.SIGUSR2]
        yield service.stopService()
        assert signal.getsignal(signal.SIGUSR2) is ours
    finally:
        signal.signal(signal.SIGUSR2, before)


@pytest_twisted.inlineCallbacks
def test_end_waiting(serve_as: Serve) -> Playing:
    """The oldest sessions of the client that has most without a granted request end, and no others."""
    clock = Clock()
    proxy: Proxy = yield serve_as("wrapped", clock=clock)
    sockets = []
    with Origin(echo) as origin:
        for client in ["192.0.2.1"] * 2 + ["192.0.2.2"] * 4 + ["192.0.2.3"]:
            sockets.append(proxy.connect(client))
            yield proxy.play(greet, sockets[-1])
            clock.advance(0.1)
        for _ in range(6):  # these have what they asked for
            sockets.append(proxy.connect("127.0.0.1"))
            yield proxy.play(ask5, sockets[-1], "127.0.0.1", origin.port)
        assert proxy.sessions.end_waiting(8) == 0  # none has waited for long
        clock.advance(registry.WAITED)
        assert proxy.sessions.end_waiting(1) == 1
        assert proxy.sessions.end_waiting(8) == 1
        yield until(lambda: len(proxy.records) == 2)
        assert {record["client"].partition(":")[0] for record in proxy.records} == {"192.0.2.2"}
        for ended in sockets[2:4]:
            with pytest.raises(ConnectionResetError):
                yield proxy.play(ended.recv, 1)
        assert len(proxy.sessions.live) == 11
    for sock in sockets:
        sock.close()


@pytest_twisted.inlineCallbacks
def test_single_sessions_are_left_alone(serve_as: Serve) -> Playing:
    """Where each client has one session, none ends: they wait for their turn."""
    clock = Clock()
    proxy: Proxy = yield serve_as("wrapped", clock=clock)
    sockets = [proxy.connect(f"192.0.2.{number}") for number in range(3)]
    for sock in sockets:
        yield proxy.play(greet, sock)
    clock.advance(registry.WAITED)
    assert proxy.sessions.end_waiting(8) == 0
    for sock in sockets:
        sock.close()


@pytest_twisted.inlineCallbacks
def test_closed_while_sessions_follow(serve_as: Serve, monkeypatch: pytest.MonkeyPatch) -> Playing:
    """What the end of a session leads to may close the factory, and with it the others."""
    proxy: Proxy = yield serve_as("wrapped", clock=Clock())
    monkeypatch.setattr(type(proxy.sessions), "_follow", lambda sessions, session: sessions.close())
    sockets = [proxy.connect(f"192.0.2.{number}") for number in range(3)]
    for sock in sockets:
        yield proxy.play(greet, sock)
    proxy.sessions._go_over(True, False)
    yield until(lambda: not proxy.sessions.live)
    for sock in sockets:
        sock.close()


@pytest.mark.parametrize(
    ("asked", "known"),
    [
        ("b\u00fccher.example", "xn--bcher-kva.example"),
        ("A.Example", "a.example"),
        ("2130706433", "2130706433"),
    ],
)
def test_names_of_destinations(asked: str, known: str) -> None:
    """A BIND finds the session of its client with the same destination, however its name is written."""
    session: Any = SimpleNamespace(request=SimpleNamespace(destination=Address.of(asked, 80)))
    assert registry._name_of(session) == known
