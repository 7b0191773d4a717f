"""UDP, BIND and RESOLVE of our server through real proxies of others. "e 36" and such are known faults."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from ..conftest import Serve
from ..support.hosts import Hosts
from ..support.proxy import Playing, Proxy, ask5, reply5
from ..support.udp import Client, Echo, Refused
from ..support.upstreams import through
from .conftest import Proxy as Program
from .test_client_proxies import Started, _tor, start, stopped
from .test_udp import download

#: Those that carry datagrams.
CARRY = ["ours", "danted", "v2ray"]


@pytest.fixture(params=[*CARRY, "microsocks", "ssh -D"])
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Started]:
    """Each proxy in turn."""
    yield from stopped(start(request.param, tmp_path))


@pytest.mark.parametrize("kind", ["transports", "accepted"])
@pytest_twisted.inlineCallbacks
def test_udp(running: Started, serve_as: Serve, kind: str) -> Playing:
    """e 36, 42: danted wants zeros of the connection's family; microsocks says 7, and so do we."""
    proxy: Proxy = yield serve_as(kind, **through("socks5", running.port))

    def scenario() -> None:
        with Echo() as echo, Client(proxy) as client:
            for size in (5, 1400):  # v2ray passes on no empty datagram, and none of more than 2 KiB
                assert client.ask(bytes(size), echo.address) == bytes(size)
            batch = [bytes([number]) * 400 for number in range(30)]
            for payload in batch:
                client.send(payload, echo.address)
            assert [client.receive()[1] for _ in batch] == batch

    if running.kind in CARRY:
        yield proxy.play(scenario)
        record = yield proxy.record()
        assert (record["via"], record["datagrams_received"]) == ("one", 32)
        return
    with pytest.raises(Refused) as caught:
        yield proxy.play(scenario)
    assert caught.value.args == (7 if running.kind == "microsocks" else 1,)


@pytest.mark.parametrize(("first", "second"), [("danted", "v2ray"), ("v2ray", "danted")])
def test_quic_through_two(first: str, second: str, tmp_path: Path) -> None:
    """e 41: QUIC through two proxies of others, with one header in the other."""
    for name in (first, second):
        (tmp_path / name).mkdir()
    for one in stopped(start(first, tmp_path / first)):
        for two in stopped(start(second, tmp_path / second)):
            config = tmp_path / "socks.toml"
            config.write_text(
                f'[upstreams.one]\ntype = "socks5"\naddress = "127.0.0.1:{one.port}"\n'
                f'[upstreams.two]\ntype = "socks5"\naddress = "127.0.0.1:{two.port}"\nvia = "one"\n'
                '[outgoing]\nvia = "two"\n'
            )
            proxy = Program(tmp_path, "--config", str(config))
            try:
                download(proxy)
                assert proxy.record_after(0)["via"] == "one>two"
            finally:
                proxy.stop()


@pytest.mark.parametrize("kind", ["transports", "accepted"])
@pytest_twisted.inlineCallbacks
def test_bind(serve_as: Serve, tmp_path: Path, kind: str) -> Playing:
    """Danted listens, and its two replies are ours."""
    for danted in stopped(start("danted", tmp_path)):
        proxy: Proxy = yield serve_as(kind, **through("socks5", danted.port, bind=True))

        def scenario(proxy: Proxy = proxy) -> None:
            with proxy.connect() as sock:
                reply, told = ask5(sock, "127.0.0.1", 0, 2)
                assert reply == 0
                with socket.create_connection((told.host, told.port), 20) as peer:
                    own = peer.getsockname()
                    reply, came = reply5(sock)
                    assert (reply, came.host, came.port) == (0, *own)
                    peer.sendall(b"220 hello")
                    assert sock.recv(100) == b"220 hello"

        yield proxy.play(scenario)


@pytest_twisted.inlineCallbacks
def test_resolve_by_tor(serve_as: Serve, tmp_path: Path) -> Playing:
    """Tor without a network serves RESOLVE, and has no answer; ours is not asked (e 39)."""
    hosts = Hosts({"www.example.org": ["127.0.0.1"]})
    for tor in stopped(start("tor", tmp_path, {"tor": ("socks5", _tor)})):
        options: Any = through("socks5", tor.port, resolve_commands=True)
        proxy: Proxy = yield serve_as(**options, resolver=hosts)

        def scenario(proxy: Proxy = proxy) -> int:
            with proxy.connect() as sock:
                return ask5(sock, "a" * 56 + ".onion", 0, 0xF0)[0]

        assert (yield proxy.play(scenario)) == 4
        assert hosts.asked == []
        record = yield proxy.record()
        assert record["upstream_reply"] in (4, 0xF6)
