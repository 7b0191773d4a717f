"""Clients that connect and say nothing, as health checks and scanners do; and those that talk garbage."""

from __future__ import annotations

import os
import re
import socket
import ssl
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from socksproxy import Rule, RulePolicy
from socksproxy.limits import Limits, Rate, ServerLimits
from socksproxy.limits.account import Scope
from socksproxy.limits.claims import PATIENCE as TOLD
from socksproxy.logs.throttle import EVERY, MOST_KINDS, LogThrottleByKind

from ..conftest import Serve
from ..support.certificates import self_signed
from ..support.limits import had
from ..support.logs import heard
from ..support.origin import Origin, echo
from ..support.processes import PATIENCE, Program
from ..support.proxy import Playing, Proxy, ask5, until


@pytest.fixture
def lines() -> Iterator[list[str]]:
    with heard() as said:
        yield said


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(echo) as found:
        yield found


def probe(proxy: Proxy) -> None:
    """Connect, and go away."""
    with proxy.connect() as sock:
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""


def reset(proxy: Proxy) -> None:
    """Connect, and go away without a word of good-bye."""
    with proxy.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


@pytest_twisted.inlineCallbacks
def test_no_record(serve: Serve, origin: Origin) -> Playing:
    """A probe leaves nothing, whatever carries it; a client that is served does."""
    proxy: Proxy = yield serve(log_probes=False)
    for come_and_go in (probe, reset, probe):
        yield proxy.play(come_and_go, proxy)
        yield until(lambda: not proxy.sessions.live)
    with proxy.connect() as sock:
        assert (yield proxy.play(ask5, sock, "127.0.0.1", origin.port))[0] == 0
    record = yield proxy.record()
    assert record["reply"] == 0
    assert len(proxy.records) == 1


@pytest_twisted.inlineCallbacks
def test_one_byte(serve: Serve) -> Playing:
    """Who has said something is told of, however little it was."""
    proxy: Proxy = yield serve(log_probes=False)
    with proxy.connect() as sock:
        sock.sendall(b"\x05")
        sock.shutdown(socket.SHUT_WR)
        yield proxy.play(sock.recv, 1)
    record = yield proxy.record()
    assert record["ended"] == "client"


@pytest_twisted.inlineCallbacks
def test_one_that_waits(serve: Serve) -> Playing:
    """A scanner that stays until the time is up is a probe as well; it is a session while it stays."""
    clock = Clock()
    proxy: Proxy = yield serve(log_probes=False, clock=clock, limits=ServerLimits(client=Limits(sessions=1)))
    with proxy.connect() as sock:
        yield until(lambda: len(proxy.sessions.live) == 1)
        if proxy.kind != "wrapped":
            assert had(proxy.sessions.context.ledger, Scope.CLIENT, "127.0.0.1") == 1
        clock.advance(11)
        with pytest.raises(ConnectionResetError):
            yield proxy.play(sock.recv, 1)
    yield until(lambda: not proxy.sessions.live)
    assert proxy.records == []


@pytest_twisted.inlineCallbacks
def test_asked_for(serve: Serve) -> Playing:
    """The observer is told of probes where that is wanted, and from when on it is."""
    proxy: Proxy = yield serve(log_probes=True)
    yield proxy.play(probe, proxy)
    record = yield proxy.record()
    assert (record["version"], record["ended"]) == (None, "client")
    proxy.factory.reconfigure(log_probes=False)
    yield proxy.play(probe, proxy)
    yield until(lambda: not proxy.sessions.live)
    assert len(proxy.records) == 1


@pytest_twisted.inlineCallbacks
def test_no_rate(serve: Serve, origin: Origin) -> Playing:
    """Probes take nothing of a rate, while they are there and after it."""
    once = Limits(new_sessions=Rate(0.001, 1))
    proxy: Proxy = yield serve(log_probes=False, limits=ServerLimits(server=once, client=once))
    for _ in range(3):
        yield proxy.play(probe, proxy)
    with proxy.connect(), proxy.connect(), proxy.connect() as sock, proxy.connect() as late:
        assert (yield proxy.play(ask5, sock, "127.0.0.1", origin.port))[0] == 0
        assert (yield proxy.play(ask5, late, "127.0.0.1", origin.port))[0] == 2
    yield until(lambda: not proxy.sessions.live)
    assert sorted(record["reply"] for record in proxy.records) == [0, 2]


@pytest_twisted.inlineCallbacks
def test_flood(serve: Serve, origin: Origin) -> Playing:
    """Beyond those who are told, clients over a rate are closed at their first byte, without a line."""
    once = Limits(new_sessions=Rate(0.001, 1))
    proxy: Proxy = yield serve(log_probes=False, limits=ServerLimits(server=once))
    with proxy.connect() as sock:
        assert (yield proxy.play(ask5, sock, "127.0.0.1", origin.port))[0] == 0
    waiting = []
    try:
        for _ in range(TOLD):
            waiting.append(proxy.connect())
            waiting[-1].sendall(b"\x05")
        yield until(lambda: proxy.sessions.context.ledger.refusing == TOLD)
        with proxy.connect() as sock:
            sock.sendall(b"\x05")
            with pytest.raises(ConnectionResetError):
                yield proxy.play(sock.recv, 1)
        assert proxy.sessions.context.ledger.refusing == TOLD
    finally:
        for sock in waiting:
            sock.close()
    yield until(lambda: not proxy.sessions.live)
    assert proxy.sessions.context.ledger.refusing == 0
    assert [record["ended"] for record in proxy.records if record["version"] is None] == ["client"] * TOLD


@pytest_twisted.inlineCallbacks
def test_tls(serve_as: Serve, tmp_path: Path) -> Playing:
    """Behind TLS it is what SOCKS hears that counts: nothing, after a handshake or half of one."""
    pem = tmp_path / "proxy.pem"
    pem.write_bytes(self_signed())
    proxy: Proxy = yield serve_as(
        "detached",
        log_probes=False,
        listen=f"ssl:0:interface=127.0.0.1:privateKey={pem}",
        limits=ServerLimits(server=Limits(new_sessions=Rate(0.001, 1))),
    )
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def handshake(data: bytes) -> bytes:
        with proxy.connect() as plain, context.wrap_socket(plain) as client:
            client.sendall(data)
            return client.recv(2) if data else b""

    def half() -> None:
        with proxy.connect() as plain:
            plain.sendall(b"\x16\x03\x01")

    for scenario, arguments in ((handshake, (b"",)), (half, ()), (reset, (proxy,))):
        yield proxy.play(scenario, *arguments)
        yield until(lambda: not proxy.sessions.live)
    assert proxy.records == []
    assert (yield proxy.play(handshake, b"\x05\x01\x00")) == b"\x05\x00"
    yield proxy.record()


@pytest_twisted.inlineCallbacks
def test_rules_are_not_asked(serve_as: Serve) -> Playing:
    """A probe is nobody's under rules either, and no rule's ``log`` brings a line for it."""
    rule = Rule(name="all", allow=True, limits=Limits(sessions=1))
    proxy: Proxy = yield serve_as("accepted", log_probes=False, policy=RulePolicy([rule]))
    for _ in range(3):
        yield proxy.play(probe, proxy)
    yield until(lambda: not proxy.sessions.live)
    assert proxy.records == []


@pytest.mark.parametrize("workers", [(), ("--workers=2",)])
@pytest.mark.parametrize("wanted", [False, True])
def test_access_log(
    wanted: bool, workers: tuple[str, ...], tmp_path: Path, twistd: Callable[..., Program]
) -> None:
    """The option, and the file's key after SIGHUP, in every process."""
    log, config = tmp_path / "access.log", tmp_path / "socks.toml"
    config.write_text(f'[listeners]\nport = 0\n[log]\nlog = "{log}"\n')
    option = ("--log-probes",) if wanted else ()
    program = twistd("socks", f"--config={config}", *option, *workers)
    port = int(program.wait_for(r"listening on tcp:127\.0\.0\.1:(\d+)")[1])
    _several(port, b"")
    _several(port, b"\x05\x01\xff")
    assert _lines_when_told(log, "version=5", 4).count("version=-") == (4 if wanted else 0)
    if not wanted:
        config.write_text(config.read_text() + "log-probes = true\n")
        os.kill(program.process.pid, 1)
        program.wait_for(r"\breloaded")
        _several(port, b"")
        _lines_when_told(log, "version=-", 4)


def _several(port: int, data: bytes) -> None:
    for _ in range(4):
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            sock.recv(1)


def _lines_when_told(log: Path, word: str, number: int) -> str:
    """What the log holds when *word* is in it so often."""
    deadline = time.monotonic() + PATIENCE
    while log.read_text().count(word) < number:
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
    return log.read_text()


# Garbage.


@pytest_twisted.inlineCallbacks
def test_garbage(serve: Serve, lines: list[str]) -> Playing:
    """One line at once, then one a minute that says how many there were; kinds do not hide each other."""
    clock = Clock()
    proxy: Proxy = yield serve(clock=clock)

    def say(data: bytes, times: int) -> Generator[Any, Any, None]:
        for _ in range(times):
            with proxy.connect() as sock:
                sock.sendall(data)
                yield proxy.play(sock.recv, 1000)
        yield until(lambda: not proxy.sessions.live or clock.advance(3))

    yield from say(b"GET / HTTP/1.1\r\n\r\n", 5)
    yield from say(b"\x16\x03\x01\x02\x00\x01", 5)
    assert [re.sub(r"[\d.]+:\d+", "CLIENT", line) for line in lines] == [
        "CLIENT: the client speaks HTTP, not SOCKS",
        "CLIENT: the client speaks TLS, not SOCKS",
    ]
    clock.advance(EVERY)
    yield from say(b"GET / HTTP/1.1\r\n\r\n", 1)
    assert lines[2].endswith("speaks HTTP, not SOCKS (5 such clients since the last such line)")
    assert len(lines) == 3
    assert len(proxy.records) == 11


def test_kinds() -> None:
    """Numbers make no kind of its own, and there are never too many kinds."""
    clock = Clock()
    seldom = LogThrottleByKind(clock)
    assert [seldom.due(f"version {number} where 1 was due") for number in range(256)] == [1] + [0] * 255
    assert seldom.due("something else") == 1
    words = [seldom.due("x" * number) for number in range(1, 1000)]
    # Two kinds were there before, and the further ones have one line together.
    assert words == [1] * (MOST_KINDS - 1) + [0] * (1000 - MOST_KINDS)
    clock.advance(EVERY)
    assert seldom.due("version 7 where 1 was due") == 256
