"""Our server through real proxies of others. Numbers such as "e 24" are those of known faults."""

from __future__ import annotations

import ipaddress
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from cryptography import x509

from socksproxy.values.upstreams import Upstream

from ..conftest import Serve
from ..support.authority import SERVER, Authority
from ..support.hosts import Hosts
from ..support.origin import Origin, answer_at_the_end, echo
from ..support.processes import Program
from ..support.programs import PATIENCE, missing, require
from ..support.proxy import Playing, Proxy, ask5, closed_port, echoes, greet, request5, until
from ..support.upstreams import through, upstream
from .test_client_proxies import KINDS, Kinds, Started, _squid, _tor, _written, speaks_first, start, stopped


def _certificate(directory: Path) -> Path:
    """A certificate for 127.0.0.1; that of its authority is in the same directory."""
    alternative = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    return Authority(directory).issue("proxy", alternatives=[alternative], usage=SERVER)


def _squid_tls(port: int, directory: Path) -> list[str]:
    pem = _certificate(directory)
    command = _squid(port, directory)
    config = Path(command[-1])
    text = config.read_text().replace(
        f"http_port 127.0.0.1:{port}", f"https_port 127.0.0.1:{port} tls-cert={pem} tls-key={pem}"
    )
    return [*command[:-1], _written(config, text)]


def _privoxy(port: int, directory: Path) -> list[str]:
    text = f"listen-address 127.0.0.1:{port}\nlogdir {directory}\nlogfile privoxy.log\n"
    return [require("privoxy"), "--no-daemon", _written(directory / "privoxy.conf", text)]


#: Those of our client, and more.
UPSTREAMS: Kinds = {**KINDS, "squid, TLS": ("https", _squid_tls), "privoxy": ("http", _privoxy)}


@pytest.fixture(scope="module", params=list(UPSTREAMS))
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """Each proxy in turn."""
    yield from stopped(start(request.param, tmp_path_factory.mktemp("upstream"), UPSTREAMS))


def ways(running: Started, **more: Any) -> dict[str, Any]:
    """The options of a server whose connections leave through the proxy."""
    if running.scheme == "https":
        more["ca_file"] = str(running.directory / "authority.pem")
    return through(running.scheme, running.port, **more)


def _banner_and_bulk(proxy: Proxy, port: int) -> None:
    with proxy.connect() as sock:
        greet(sock)
        sock.sendall(request5("127.0.0.1", port))
        data = b""
        while not data.endswith(b"220 hello\r\n"):
            data += sock.recv(1000) or pytest.fail(f"the end after {data!r}")
        assert data[:2] == b"\x05\x00"
        for _ in range(16):
            echoes(sock, os.urandom(65536))


@pytest.mark.parametrize("carried", ["accepted", "transports"])
@pytest_twisted.inlineCallbacks
def test_banner_and_bulk(running: Started, serve_as: Serve, carried: str) -> Playing:
    """e 26, 45: a destination that speaks first, and a megabyte both ways."""
    with Origin(speaks_first) as origin:
        proxy: Proxy = yield serve_as(carried, **ways(running))

        yield proxy.play(_banner_and_bulk, proxy, origin.port)
        record = yield proxy.record()
        assert (record["via"], record["tries"]) == ("one", 1)
        assert record["received"] == (1 << 20) + 11


#: The reply for a destination that refuses. Some proxies tell success first, some only close or say 500.
REFUSED = {
    "ours": 5,
    "danted": 5,
    "microsocks": 5,
    "squid": 5,
    "squid, TLS": 5,
    "privoxy": 1,  # it says 503
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
    if running.scheme == "socks4" or running.kind.startswith("v2ray"):
        pytest.skip("SOCKS4 has no names, and v2ray tells success before it looks them up")
    if running.kind == "squid, TLS":
        pytest.skip("squid takes 5 seconds for its answer, which is the same without TLS")
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


#: Proxies that end both directions with the first one that ends.
CUTS = ("microsocks", "v2ray", "squid", "tinyproxy", "ncat", "privoxy")


@pytest.mark.parametrize("carried", ["accepted", "transports"])
@pytest_twisted.inlineCallbacks
def test_half_close(running: Started, serve_as: Serve, carried: str) -> Playing:
    """e 45: our side passes the end of one direction on, and never cuts the other one by itself."""
    proxy: Proxy = yield serve_as(carried, **ways(running))
    with Origin(answer_at_the_end) as origin:

        def scenario() -> bytes:
            with proxy.connect() as sock:
                assert ask5(sock, "127.0.0.1", origin.port)[0] == 0
                sock.sendall(b"question")
                sock.shutdown(socket.SHUT_WR)
                answer = b""
                while piece := sock.recv(1000):
                    answer += piece
                return answer

        answer = yield proxy.play(scenario)
        record = yield proxy.record()
        assert record["sent"] == 8
        if not running.kind.startswith(CUTS):
            assert answer


@pytest_twisted.inlineCallbacks
def test_tor(serve_as: Serve, tmp_path: Path) -> Playing:
    """Tor without a network, each session in a circuit of its own: its own replies come through."""
    for tor in stopped(start("tor", tmp_path, {"tor": ("socks5", _tor)})):
        proxy: Proxy = yield serve_as(**through("socks5", tor.port, login="session"), resolver=Hosts({}))

        def scenario(proxy: Proxy = proxy) -> list[int]:
            found = []
            for host in ("a" * 56 + ".onion", "127.0.0.1"):
                with proxy.connect() as sock:
                    found.append(ask5(sock, host, 80)[0])
            return found

        assert (yield proxy.play(scenario)) == [4, 1]
        yield until(lambda proxy=proxy: len(proxy.records) == 2)  # type: ignore[misc]
        assert proxy.records[0]["upstream_reply"] == 0xF6


# Programs in front of an upstream.


@contextmanager
def _front(port: int, directory: Path, *command: str) -> Iterator[None]:
    """A program that listens at *port* meanwhile."""
    program = Program(command, directory)
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", port)):
                    break
            if program.process.poll() is not None or time.monotonic() > deadline:
                program.stop()
                missing(f"{command[0]} that starts: {program.output[-300:]}")
            time.sleep(0.02)
        yield
    finally:
        program.stop()


def from_address(proxy: Proxy, host: str, port: int) -> tuple[str, int]:
    """A session of a client at *host*; its address."""
    with socket.socket() as sock:
        sock.settimeout(PATIENCE)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # go-mmproxy takes the same address
        sock.bind((host, 0))
        sock.connect(proxy.address)
        assert ask5(sock, "127.0.0.1", port)[0] == 0
        echoes(sock, os.urandom(65536))
        own: tuple[str, int] = sock.getsockname()
        return own


@pytest_twisted.inlineCallbacks
def test_stunnel(serve_as: Serve, tmp_path: Path) -> Playing:
    """SOCKS within TLS: an endpoint of Twisted leads to stunnel, and stunnel to one of ours."""
    exit_: Proxy = yield serve_as()
    port, trusted = closed_port(), tmp_path / "trusted"
    pem = _certificate(tmp_path)
    trusted.mkdir()
    (tmp_path / "authority.pem").rename(trusted / "authority.pem")
    text = (
        f"foreground = yes\npid =\n[front]\naccept = 127.0.0.1:{port}\ncert = {pem}\n"
        f"connect = 127.0.0.1:{exit_.address[1]}\n"
    )
    with (
        _front(port, tmp_path, require("stunnel4", "stunnel"), _written(tmp_path / "stunnel.conf", text)),
        Origin(speaks_first) as origin,
    ):
        one = Upstream(type="socks5", endpoint=f"tls:127.0.0.1:{port}:trustRoots={trusted}")
        proxy: Proxy = yield serve_as(upstreams={"one": one}, via="one")
        yield proxy.play(_banner_and_bulk, proxy, origin.port)
        untrusted = Upstream(type="socks5", endpoint=f"tls:127.0.0.1:{port}")
        proxy.factory.reconfigure(upstreams={"one": untrusted})

        def refused() -> int:
            with proxy.connect() as sock:
                return ask5(sock, "127.0.0.1", origin.port)[0]

        assert (yield proxy.play(refused)) == 1
        assert len(origin.peers) == 1


_HAPROXY = """
global
    maxconn 200
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend front
    bind 127.0.0.1:{port} accept-proxy{tls}
    default_backend exit
backend exit
    server one 127.0.0.1:{exit}{passes_on}
"""


@pytest.mark.parametrize("version", [1, 2])
@pytest_twisted.inlineCallbacks
def test_haproxy(serve_as: Serve, tmp_path: Path, version: int) -> Playing:
    """e 43: HAProxy reads our header, and tells the client's address to one of ours behind it."""
    exit_: Proxy = yield serve_as("wrapped")
    port = closed_port()
    text = _HAPROXY.format(port=port, tls="", exit=exit_.address[1], passes_on=" send-proxy-v2")
    config = _written(tmp_path / "haproxy.cfg", text)
    with _front(port, tmp_path, require("haproxy"), "-db", "-f", config), Origin(echo) as origin:
        proxy: Proxy = yield serve_as(**through("socks5", port, proxy_protocol=version))
        host, number = yield proxy.play(from_address, proxy, "127.0.0.44", origin.port)
        yield until(lambda: any(record["version"] for record in exit_.records))
        assert f"{host}:{number}" in [record["client"] for record in exit_.records]


@pytest_twisted.inlineCallbacks
def test_haproxy_with_tls(serve_as: Serve, tmp_path: Path) -> Playing:
    """e 43: the header stands before TLS; HAProxy takes both away in front of a proxy of HTTP."""
    port, pem = closed_port(), _certificate(tmp_path)
    for behind in stopped(start("tinyproxy", tmp_path)):
        text = _HAPROXY.format(port=port, tls=f" ssl crt {pem}", exit=behind.port, passes_on="")
        config = _written(tmp_path / "haproxy.cfg", text)
        with _front(port, tmp_path, require("haproxy"), "-db", "-f", config), Origin(echo) as origin:
            options = through("https", port, proxy_protocol=2, ca_file=str(tmp_path / "authority.pem"))
            proxy: Proxy = yield serve_as(**options)
            yield proxy.play(from_address, proxy, "127.0.0.1", origin.port)


@pytest.mark.skipif(os.geteuid() != 0, reason="go-mmproxy takes addresses of others, which needs root")
@pytest.mark.parametrize("version", [1, 2])
@pytest_twisted.inlineCallbacks
def test_go_mmproxy(serve_as: Serve, tmp_path: Path, version: int) -> Playing:
    """e 43: go-mmproxy reads our header, and connects onward from the client's address."""
    exit_: Proxy = yield serve_as()
    port = closed_port()
    command = [require("go-mmproxy"), "-l", f"127.0.0.1:{port}", "-4", f"127.0.0.1:{exit_.address[1]}"]
    with _front(port, tmp_path, *command), Origin(echo) as origin:
        proxy: Proxy = yield serve_as(**through("socks5", port, proxy_protocol=version))
        yield proxy.play(from_address, proxy, "127.0.0.44", origin.port)
        yield until(lambda: any(record["version"] for record in exit_.records))
        clients = [record["client"].partition(":")[0] for record in exit_.records if record["version"]]
        assert clients == ["127.0.0.44"]
