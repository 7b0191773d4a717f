"""Upstreams that are reached by an endpoint with TLS, over real loopback sockets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from socksproxy.values.pools import UpstreamPool
from socksproxy.values.upstreams import Upstream

from ..conftest import Serve
from ..support.authority import Authority
from ..support.origin import Origin
from ..support.proxy import Playing, Proxy, echoes, greet, request5, until
from ..support.scripted_proxy import SUCCESS4, SUCCESS5, SUCCESS_HTTP, Step, close, forward_to, open5
from ..support.upstreams import upstream
from .test_upstream import authority, context_of, origin, scripted, sent_and_heard

assert all((authority, origin, scripted))  # fixtures

#: Bytes of a request of SOCKS4 for an address, without a userid.
REQUEST4 = 9


@pytest.fixture
def trusted(authority: Authority, tmp_path: Path) -> str:
    """Words of an endpoint: the authority is trusted."""
    (tmp_path / "trusted").mkdir()
    (tmp_path / "trusted" / "one.pem").write_bytes(authority.ca_file.read_bytes())
    return str(tmp_path / "trusted")


#: Endpoints with TLS; the second one leads through a proxy of SOCKS5, which is within TLS.
ENDPOINTS = {
    "tls": "tls:127.0.0.1:{port}:trustRoots={trusted}",
    "ssl": "ssl:127.0.0.1:{port}:caCertsDir={trusted}",
    "socks5": r"socks5:127.0.0.1:{port}:proxy=tls\:127.0.0.1\:{port}\:trustRoots={trusted}",
}


@pytest.mark.parametrize("words", ENDPOINTS.values(), ids=ENDPOINTS)
@pytest_twisted.inlineCallbacks
def test_endpoint_with_tls(
    serve: Serve, scripted: Any, origin: Origin, authority: Authority, trusted: str, words: str
) -> Playing:
    """The handshake of SOCKS4 goes through TLS, and a banner comes with the reply."""
    steps: list[Step] = [REQUEST4, forward_to(origin.port), SUCCESS4 + b"hello"]
    if words.startswith("socks5"):
        steps = open5(SUCCESS5, *steps)
    there = yield scripted(*steps, context=context_of(authority))
    ways = {"one": Upstream(type="socks4", endpoint=words.format(port=there.port, trusted=trusted))}
    proxy: Proxy = yield serve(upstreams=ways, via="one")

    def scenario() -> None:
        with proxy.connect() as sock:
            greet(sock)
            sock.sendall(request5("127.0.0.1", origin.port))
            data = b""
            while not data.endswith(b"hello"):
                data += sock.recv(1000) or pytest.fail(f"the end after {data!r}")
            echoes(sock, bytes(100000))

    yield proxy.play(scenario)


@pytest.mark.parametrize("kind", ["http", "socks4", "socks5"])
@pytest.mark.parametrize("words", ["tls", "ssl"])
@pytest.mark.parametrize("how", ["silent", "closes", "another certificate"])
@pytest_twisted.inlineCallbacks
def test_endpoint_without_tls(
    serve_as: Serve,
    scripted: Any,
    origin: Origin,
    authority: Authority,
    trusted: str,
    how: str,
    words: str,
    kind: str,
) -> Playing:
    """Before TLS stands the proxy has no request: its own failure, and the pool takes the next member."""
    if how == "another certificate":
        there = yield scripted(1, SUCCESS_HTTP, context=context_of(Authority(Path(trusted).parent, "other")))
    else:
        there = yield scripted(*([1, close] if how == "closes" else [100000]))
    good = yield scripted(*open5(forward_to(origin.port), SUCCESS5))
    endpoint = ENDPOINTS[words].format(port=there.port, trusted=trusted)
    ways = {
        "one": Upstream(type=kind, endpoint=endpoint, try_timeout=0.5),
        "two": upstream("socks5", good.port),
    }
    proxy: Proxy = yield serve_as(
        upstreams=ways, pools={"all": UpstreamPool(members=["one", "two"])}, via="all"
    )
    yield proxy.play(sent_and_heard, proxy, "127.0.0.1", origin.port)
    record = yield proxy.record()
    assert (record["via"], record["tries"]) == ("two", 2)
    counters = proxy.sessions.context.ways.counters["one"]
    assert (counters.own_failures, counters.sessions) == (1, 0)
    yield until(lambda: there.ends[0].ended is not None)
