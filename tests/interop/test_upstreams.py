"""Our server through real proxies of others. Numbers such as "e 24" are those of known faults."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted

from ..conftest import Serve
from ..support.origin import Origin, echo
from ..support.proxy import Playing, Proxy, ask5, closed_port, echoes, greet, request5
from ..support.upstreams import upstream
from .test_client_proxies import KINDS, Started, speaks_first, start, stopped


@pytest.fixture(scope="module", params=list(KINDS))
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """Each proxy in turn."""
    yield from stopped(start(request.param, tmp_path_factory.mktemp("upstream")))


def ways(running: Started, **more: Any) -> dict[str, Any]:
    """The options of a server whose connections leave through the proxy."""
    kind = KINDS[running.kind][0]
    return {"upstreams": {"one": upstream(kind, running.port, **more)}, "via": "one"}


@pytest.mark.parametrize("carried", ["accepted", "transports"])
@pytest_twisted.inlineCallbacks
def test_banner_and_bulk(running: Started, serve_as: Serve, carried: str) -> Playing:
    """e 26, 45: a destination that speaks first, and a megabyte both ways."""
    with Origin(speaks_first) as origin:
        proxy: Proxy = yield serve_as(carried, **ways(running))

        def scenario() -> None:
            with proxy.connect() as sock:
                greet(sock)
                sock.sendall(request5("127.0.0.1", origin.port))
                data = b""
                while not data.endswith(b"220 hello\r\n"):
                    data += sock.recv(1000) or pytest.fail(f"the end after {data!r}")
                assert data[:2] == b"\x05\x00"
                for _ in range(16):
                    echoes(sock, os.urandom(65536))

        yield proxy.play(scenario)
        record = yield proxy.record()
        assert (record["via"], record["tries"]) == ("one", 1)
        assert record["received"] == (1 << 20) + 11


#: The reply for a destination that refuses. Some proxies tell success first, some only close or say 500.
REFUSED = {
    "ours": 5,
    "danted": 5,
    "microsocks": 5,
    "squid": 5,
    "ssh -D": 1,
    "tinyproxy": 1,
    "ncat": 6,  # it says 504
    "ours, SOCKS4a": 1,
    "danted, SOCKS4": 1,
    "ssh -D, SOCKS4a": 1,
}


@pytest_twisted.inlineCallbacks
def test_refused(running: Started, serve_as: Serve) -> Playing:
    """e 22, 25: the proxy's own answer, as far as it gives one; v2ray says success before it dials (e 21)."""
    proxy: Proxy = yield serve_as(**ways(running))
    port = closed_port()

    def scenario() -> int:
        with proxy.connect() as sock:
            return ask5(sock, "127.0.0.1", port)[0]

    reply = yield proxy.play(scenario)
    assert reply == REFUSED.get(running.kind, 0 if running.kind.startswith("v2ray") else reply)


@pytest_twisted.inlineCallbacks
def test_missing_name(running: Started, serve_as: Serve) -> Playing:
    """e 24: a name that there is not; danted tells that with a name as BND."""
    if KINDS[running.kind][0] == "socks4" or running.kind.startswith("v2ray"):
        pytest.skip("SOCKS4 has no names, and v2ray tells success before it looks them up")
    proxy: Proxy = yield serve_as(**ways(running))

    def scenario() -> int:
        with proxy.connect() as sock:
            return ask5(sock, "nowhere.invalid", 80)[0]

    reply = yield proxy.play(scenario)
    assert reply in ((4,) if running.kind in ("danted", "ours") else (1, 4, 6))


@pytest_twisted.inlineCallbacks
def test_two_hops(running: Started, serve_as: Serve) -> Playing:
    """A chain of mixed kinds: the proxy leads to one of ours, and that one to the destination."""
    exit_: Proxy = yield serve_as()
    options = ways(running)
    options["upstreams"]["two"] = upstream("socks5", exit_.address[1], via="one")
    options["via"] = "two"
    with Origin(echo) as origin:
        proxy: Proxy = yield serve_as(**options)

        def scenario() -> None:
            with proxy.connect() as sock:
                assert ask5(sock, "127.0.0.1", origin.port)[0] == 0
                echoes(sock)

        yield proxy.play(scenario)
    record = yield proxy.record()
    assert record["via"] == "one>two"
