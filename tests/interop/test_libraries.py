"""Client libraries."""

from __future__ import annotations

import asyncio
import hashlib
import socket

import pytest

from tests.support.clients import library, node_client
from tests.support.origin import HTTPOrigin, Origin, sha256

from .conftest import Proxy

#: How the libraries that speak HTTP are told the way, and what is asked of the proxy then.
SCHEMES = [("socks4", 4, "127.0.0.1"), ("socks5", 5, "127.0.0.1"), ("socks5", 5, "::1")]


def echoed(sock: socket.socket) -> bytes:
    with sock:
        sock.sendall(b"hello")
        sock.shutdown(socket.SHUT_WR)
        return sock.makefile("rb").read()


class TestPySocks:
    @pytest.mark.parametrize("version", [4, 5])
    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    def test_connect(self, proxy: Proxy, echoes: Origin, version: int, host: str) -> None:
        socks = library("socks")
        sock = socks.socksocket()
        sock.settimeout(30)
        sock.set_proxy(getattr(socks, f"SOCKS{version}"), "127.0.0.1", proxy.port, rdns=True)
        sock.connect((host, echoes.port))
        # PySocks tells BND.ADDR: it is the address that the destination has seen.
        bound = sock.get_proxy_sockname()
        assert echoed(sock) == b"hello"
        assert bound == echoes.peers[0]
        proxy.check_record(echoes, version, host, sent=5, received=5)

    def test_ipv6(self, proxy: Proxy, echoes6: Origin) -> None:
        socks = library("socks")
        sock = socks.socksocket()
        sock.settimeout(30)
        sock.set_proxy(socks.SOCKS5, "127.0.0.1", proxy.port)
        sock.connect(("::1", echoes6.port))
        bound = sock.get_proxy_sockname()
        assert echoed(sock) == b"hello"
        assert bound[:2] == echoes6.peers[0]
        proxy.check_record(echoes6, 5, sent=5, received=5)

    def test_refused(self, proxy: Proxy) -> None:
        socks = library("socks")
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
            sock = socks.socksocket()
            sock.set_proxy(socks.SOCKS5, "127.0.0.1", proxy.port)
            with pytest.raises(socks.GeneralProxyError) as caught:
                sock.connect(("127.0.0.1", port))
            assert "0x05" in str(caught.value)
            sock.close()
        proxy.record_of(f"127.0.0.1:{port}", version=5, reply=5)


class TestPythonSocks:
    @pytest.mark.parametrize("version", [4, 5])
    @pytest.mark.parametrize("name", [None, "localhost"])
    def test_sync(self, proxy: Proxy, echoes: Origin, version: int, name: str | None) -> None:
        sync = library("python_socks.sync")
        client = sync.Proxy.from_url(f"socks{version}://127.0.0.1:{proxy.port}", rdns=name is not None)
        sock = client.connect(dest_host=name or "127.0.0.1", dest_port=echoes.port, timeout=30)
        assert echoed(sock) == b"hello"
        proxy.check_record(echoes, version, name, sent=5, received=5)

    def test_asyncio(self, proxy: Proxy, echoes: Origin) -> None:
        module = library("python_socks.async_.asyncio")

        async def converse() -> bytes:
            client = module.Proxy.from_url(f"socks5://127.0.0.1:{proxy.port}")
            sock = await client.connect(dest_host="127.0.0.1", dest_port=echoes.port, timeout=30)
            reader, writer = await asyncio.open_connection(sock=sock)
            writer.write(b"hello")
            writer.write_eof()
            data = await reader.read()
            writer.close()
            await writer.wait_closed()
            return bytes(data)

        assert asyncio.run(converse()) == b"hello"
        proxy.check_record(echoes, 5, sent=5, received=5)


class TestWeb:
    """The libraries that bring SOCKS to clients of the web."""

    @pytest.mark.parametrize(
        ("scheme", "version", "host"),
        [*SCHEMES, ("socks4a", 4, "localhost"), ("socks5h", 5, "localhost")],
    )
    def test_requests(
        self, proxy: Proxy, web: HTTPOrigin, web6: HTTPOrigin, scheme: str, version: int, host: str
    ) -> None:
        library("socks")
        requests = library("requests")
        origin = web6 if host == "::1" else web
        with requests.Session() as session:
            session.trust_env = False
            session.proxies = {"http": f"{scheme}://127.0.0.1:{proxy.port}"}
            body = session.get(_url(host, origin), timeout=30).content
        assert hashlib.sha256(body).hexdigest() == sha256(70_001)
        proxy.check_record(origin, version, host)

    @pytest.mark.parametrize(("scheme", "version", "host"), [*SCHEMES, ("socks5", 5, "localhost")])
    def test_aiohttp(
        self, proxy: Proxy, web: HTTPOrigin, web6: HTTPOrigin, scheme: str, version: int, host: str
    ) -> None:
        aiohttp, aiohttp_socks = library("aiohttp"), library("aiohttp_socks")
        origin = web6 if host == "::1" else web

        async def get() -> bytes:
            way = aiohttp_socks.ProxyConnector.from_url(f"{scheme}://127.0.0.1:{proxy.port}", rdns=True)
            async with (
                aiohttp.ClientSession(connector=way) as session,
                session.get(_url(host, origin)) as got,
            ):
                return bytes(await got.read())

        body = asyncio.run(asyncio.wait_for(get(), 30))
        assert hashlib.sha256(body).hexdigest() == sha256(70_001)
        proxy.check_record(origin, version, host)

    @pytest.mark.parametrize(("scheme", "version", "host"), [*SCHEMES, ("socks5", 5, "localhost")])
    def test_httpx(
        self, proxy: Proxy, web: HTTPOrigin, web6: HTTPOrigin, scheme: str, version: int, host: str
    ) -> None:
        httpx, httpx_socks = library("httpx"), library("httpx_socks")
        origin = web6 if host == "::1" else web
        way = httpx_socks.SyncProxyTransport.from_url(f"{scheme}://127.0.0.1:{proxy.port}", rdns=True)
        with httpx.Client(transport=way, timeout=30) as client:
            body = client.get(_url(host, origin)).content
        assert hashlib.sha256(body).hexdigest() == sha256(70_001)
        proxy.check_record(origin, version, host)


def _url(host: str, origin: HTTPOrigin) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{origin.port}/bytes/70001"


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_node(proxy: Proxy, echoes: Origin, version: int, host: str) -> None:
    """npm's ``socks``."""
    _node(proxy, echoes, version, host)


def test_node_ipv6(proxy: Proxy, echoes6: Origin) -> None:
    _node(proxy, echoes6, 5, "::1")


def _node(proxy: Proxy, origin: Origin, version: int, host: str) -> None:
    assert node_client(proxy.port, version, host, origin.port, "hello from node") == b"hello from node"
    proxy.check_record(origin, version, host, sent=15, received=15)
