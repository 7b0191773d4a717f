"""
HTTP CONNECT without input and output. Numbers such as "e 10" are those of known faults of other clients.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, strategies as st
from twisted.internet.task import Clock

from socksproxy.client import HandshakeFailed, HTTPConnectClientEndpoint, Problem, UsernamePassword
from socksproxy.client.http_connect import HTTPHandshake
from socksproxy.wire.words import Address, Reply

from ..support.scripted_proxy import MemoryProxy

BANNER = b"SSH-2.0-x\r\nHTTP/1.1 200 no\r\n\r\n"


def answered(*pieces: bytes, login: UsernamePassword | None = None) -> HTTPHandshake:
    handshake = HTTPHandshake(Address.of("example.org", 80), login)
    handshake.begin()
    for piece in pieces:
        handshake.receive(piece)
    return handshake


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 Connection established\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nVia: x\r\nServer: y\r\n\r\n",
        b"HTTP/1.1 200 \r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 299 Why\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 102 P\r\nX: 1\r\n\r\nHTTP/1.1 103 E\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\n\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
    ],
)
def test_success(head: bytes) -> None:
    """e 10: every form of success, cut anywhere; what stands behind the head is the destination's."""
    stream = head + BANNER
    for cut in range(1, len(stream)):
        handshake = answered(stream[:cut], *([stream[cut:]] if not cut > len(head) else []))
        assert handshake.done
        assert (handshake.rest if cut <= len(head) else BANNER) == BANNER
    handshake = answered(*(stream[at : at + 1] for at in range(len(head))))
    assert handshake.done
    assert handshake.rest == b""


@pytest.mark.parametrize(
    ("pieces", "problem"),
    [
        ([b"\x05\xff\r\n\r\n"], Problem.PROTOCOL),
        ([b"\x15\x03\x01\x00\x02\x02\x46\r\n\r\n"], Problem.PROTOCOL),
        ([b"SSH-2.0-OpenSSH\r\n\r\n"], Problem.PROTOCOL),
        ([b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 4000], Problem.PROTOCOL),
        ([b"HTTP/1.1 20x OK\r\n\r\n"], Problem.PROTOCOL),
        ([b"HTTP/1.1 400 Bad\r\n\r\n"], Problem.PROTOCOL),
        ([b"HTTP/1.1 101 Switch\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"], Problem.PROTOCOL),
        ([b"HTTP/1.1 407 Login\r\n\r\n"], Problem.NO_METHOD),
        ([b"HTTP/1.1 503 Down\r\nContent-Length: 9\r\n\r\n<html>..."], Problem.REFUSED),
        ([b""], Problem.CLOSED),
        ([b"HTTP/1.1 200", b""], Problem.CLOSED),
    ],
)
def test_failures(pieces: list[bytes], problem: Problem) -> None:
    """
    e 10: another protocol, an endless head, no head: each is one failure, and no page is taken for data.
    """
    with pytest.raises(HandshakeFailed) as caught:
        answered(*pieces)
    assert caught.value.problem is problem


@pytest.mark.parametrize("status", [401, 407])
def test_login_that_is_refused(status: int) -> None:
    """407 after a login is a refused login; tinyproxy says 401."""
    with pytest.raises(HandshakeFailed) as caught:
        answered(b"HTTP/1.1 %d Login\r\n\r\n" % status, login=UsernamePassword("me", "x"))
    assert caught.value.problem is Problem.LOGIN


@pytest.mark.parametrize(
    ("headers", "meaning"),
    [
        (b"", Reply.GENERAL_FAILURE),
        (b"Proxy-Status: p; error=connection_refused\r\n", Reply.CONNECTION_REFUSED),
        (b"Proxy-Status: a, b; error=dns_error; rcode=NXDOMAIN\r\n", Reply.HOST_UNREACHABLE),
        (b"Proxy-Status: p;error=connection_timeout\r\n", Reply.TTL_EXPIRED),
        (b"Proxy-Status: p; error=destination_ip_prohibited\r\n", Reply.NOT_ALLOWED),
        (b"Proxy-Status: p; error=something\r\n", Reply.GENERAL_FAILURE),
        (b"X-Squid-Error: ERR_CONNECT_FAIL 111\r\n", Reply.CONNECTION_REFUSED),
        (b"X-Squid-Error: ERR_DNS_FAIL 0\r\n", Reply.HOST_UNREACHABLE),
        (b"X-Squid-Error: \xff\r\n", Reply.GENERAL_FAILURE),
    ],
)
def test_what_a_proxy_says_of_the_destination(headers: bytes, meaning: Reply) -> None:
    """RFC 9209 and Squid tell why."""
    with pytest.raises(HandshakeFailed) as caught:
        answered(b"HTTP/1.1 502 Bad Gateway\r\n" + headers + b"\r\n")
    assert caught.value.meaning == meaning
    assert caught.value.reply == 502


def outcome(pieces: Sequence[bytes]) -> object:
    try:
        handshake = answered(*pieces)
    except HandshakeFailed as problem:
        return problem.problem, problem.reply
    return handshake.done


@given(
    st.one_of(
        st.binary(max_size=200),
        st.builds(
            lambda status, more: b"HTTP/1.1 %d x\r\nA: b\r\n\r\n" % status + more,
            st.integers(100, 999),
            st.binary(max_size=50),
        ),
    ),
    st.lists(st.integers(0, 200)),
)
def test_any_stream_however_it_is_cut(stream: bytes, cuts: list[int]) -> None:
    """e 6, 10: any bytes end in an answer, a wait or one failure."""
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    whole = outcome([stream] if stream else [])
    cut = outcome([stream[start:end] for start, end in pairwise(places)])
    # h11 sees by the first bytes that something is not HTTP, or at the end of the line.
    assert (whole is True) == (cut is True)


def test_without_h11(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing extra is told with the way to install it."""
    monkeypatch.setitem(sys.modules, "h11", None)
    monkeypatch.delitem(sys.modules, "socksproxy.client.http_connect")
    with pytest.raises(ImportError, match=r"twisted-socksproxy\[http\]"):
        HTTPConnectClientEndpoint(MemoryProxy(), "example.org", 80, reactor=Clock())


@pytest.mark.parametrize("login", [UsernamePassword("a:b", "c"), object()])
def test_login_that_basic_does_not_carry(login: Any) -> None:
    """RFC 7617, section 2: the first colon ends the username. Nothing is sent."""
    with pytest.raises(ValueError, match=r"^login="):
        HTTPConnectClientEndpoint(MemoryProxy(), "example.org", 80, login=login, reactor=Clock())
