"""Sessions of a proxy that asks a DNS server: from a client's request to the reply."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred

from socksproxy.net import hosts_file
from socksproxy.net.resolve import make_resolver
from socksproxy.wire.words import Reply

from ..support.names import NameServer
from ..support.origin import Origin, echo
from ..support.proxy import Proxy

reactor: Any = _reactor
Playing = Generator[Any, Any, None]
Serve = Callable[..., Deferred[Proxy]]


@pytest.fixture
def server() -> Iterator[NameServer]:
    hosts = {"-odd-.test": ["127.0.0.1"], "123456789012": ["127.0.0.1"], "xn--strae-oqa.test": ["127.0.0.1"]}
    # Whoever asks for these has sent what is another's name, or no name.
    lies = ["localhost", "a.localhost", "127.1", "2130706433", "strasse.test", "here.test"]
    with NameServer(hosts | {name: ["127.0.0.2"] for name in lies}) as server:
        yield server


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(echo) as origin:
        yield origin


def ask(proxy: Proxy, name: str, port: int) -> tuple[int, bytes]:
    """CONNECT to *name*: the reply, and the echo."""
    with proxy.connect() as sock:
        raw = name.encode()
        sock.sendall(b"\5\1\0\5\1\0\3" + bytes([len(raw)]) + raw + port.to_bytes(2, "big"))
        reply = sock.recv(12)
        reply += sock.recv(12) if len(reply) < 3 else b""
        if reply[3]:
            return reply[3], b""
        sock.sendall(b"hello")
        return reply[3], sock.recv(5)


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("localhost", None),
        ("LocalHost.", None),
        ("a.localhost", None),
        ("here.test", None),
        ("127.1", None),
        ("-odd-.test", "-odd-.test"),
        ("123456789012", "123456789012"),
        ("stra\u00dfe.test", "xn--strae-oqa.test"),
    ],
)
@pytest_twisted.inlineCallbacks
def test_found(
    serve_as: Serve,
    server: NameServer,
    origin: Origin,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    asked: str | None,
) -> Playing:
    """Names of the hosts file, and localhost, are not asked for; others are asked for as they are."""
    path = tmp_path / "hosts"
    path.write_text("127.0.0.1 here.test 127.1\n")
    monkeypatch.setattr(hosts_file, "PATH", str(path))
    proxy: Proxy = yield serve_as(resolver=make_resolver(f"dns:127.0.0.1:{server.port}", reactor))
    assert (yield proxy.play(ask, proxy, name, origin.port)) == (0, b"hello")
    assert {found for found, _ in server.asked} == ({asked} if asked else set())


@pytest.mark.parametrize(
    "name", ["nowhere.test", "2130706433", "0x7f000001", "127.2", "127.0.0.1.", "\u2603.test"]
)
@pytest_twisted.inlineCallbacks
def test_not_found(serve_as: Serve, server: NameServer, origin: Origin, name: str) -> Playing:
    """What a C library reads as an address never gets there."""
    proxy: Proxy = yield serve_as(resolver=make_resolver(f"dns:127.0.0.1:{server.port}", reactor))
    assert (yield proxy.play(ask, proxy, name, origin.port)) == (Reply.HOST_UNREACHABLE, b"")
    assert {found for found, _ in server.asked} <= {"nowhere.test"}
