"""
HTTP clients of Twisted through a proxy. Numbers such as "e 16" are those of known faults of other clients.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.web.client import readBody
from twisted.web.error import SchemeNotSupported

from socksproxy.client import Proxy, errors

from ..support.proxy import Playing
from ..support.scripted_proxy import SUCCESS5, Step

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
#: The greeting with a login, the login, the request for example.test:80, and the HTTP request's head.
ASKED = len(b"\x05\x01\x00\x03\x0cexample.test\x00\x50")
HEAD = len(b"GET / HTTP/1.1\r\nConnection: close\r\nHost: example.test\r\n\r\n")


def session(user: bytes) -> list[Step]:
    return [4, b"\x05\x02", 3 + len(user), b"\x01\x00", ASKED, SUCCESS5]


@pytest_twisted.inlineCallbacks
def test_two_logins_never_share_a_connection(scripted: Callable[..., Any]) -> Playing:
    """e 16: Twisted's pools tell connections apart by scheme, host and port alone."""
    head = HEAD - len(b"Connection: close\r\n")
    server: Any = yield scripted(*session(b"ann"), head, ANSWER, head, ANSWER)
    ann = Proxy.from_url(f"socks5://ann@127.0.0.1:{server.port}")
    bob = Proxy.from_url(f"socks5://bob@127.0.0.1:{server.port}")
    agents = [ann.agent(), bob.agent()]
    for agent in (*agents, *agents):
        response: Any = yield agent.request(b"GET", b"http://example.test/")
        assert (yield readBody(response)) == b"hi"
    assert [end.received[6:9] for end in server.ends] == [b"ann", b"bob"]
    for agent in agents:
        yield agent.close()


@pytest_twisted.inlineCallbacks
def test_names_and_errors(scripted: Callable[..., Any]) -> Playing:
    """e 14: the agent passes the name on; a refusal reaches the caller as our error."""
    server: Any = yield scripted(3, b"\x05\x00", ASKED, b"\x05\x05")
    proxy = Proxy.from_url(f"socks5h://127.0.0.1:{server.port}")
    resolver = reactor.nameResolver  # type: ignore[attr-defined]
    reactor.installNameResolver(None)  # type: ignore[attr-defined]
    try:
        with pytest.raises(errors.DestinationRefused):
            yield proxy.agent(persistent=False).request(b"GET", b"http://example.test/")
    finally:
        reactor.installNameResolver(resolver)  # type: ignore[attr-defined]
    assert b"\x0cexample.test\x00\x50" in server.ends[0].received


@pytest_twisted.inlineCallbacks
def test_other_schemes() -> Playing:
    """Neither ftp nor anything else goes round the proxy."""
    agent = Proxy.from_url("socks5://127.0.0.1:1").agent()
    with pytest.raises(SchemeNotSupported):
        yield agent.request(b"GET", b"ftp://example.test/")


def test_https_without_pyopenssl(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing extra is told with the way to install it."""
    monkeypatch.setitem(sys.modules, "twisted.internet.ssl", None)
    with pytest.raises(ImportError, match=r"twisted-socksproxy\[tls\]"):
        Proxy.from_url("socks5://127.0.0.1:1").agent().request(b"GET", b"https://example.test/")
