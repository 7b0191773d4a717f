"""Client libraries."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.support.origin import Origin
from tests.support.programs import missing, require, run

from .conftest import Proxy

HERE = Path(__file__).parent


def library(name: str) -> Any:
    try:
        return __import__(name, fromlist=["_"])
    except ImportError:
        missing(f"the library {name}")


def echoed(sock: socket.socket) -> bytes:
    with sock:
        sock.sendall(b"hello")
        sock.shutdown(socket.SHUT_WR)
        return sock.makefile("rb").read()


class TestPySocks:
    @pytest.mark.parametrize("kind", ["SOCKS4", "SOCKS5"])
    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    def test_connect(self, proxy: Proxy, echoes: Origin, kind: str, host: str) -> None:
        socks = library("socks")
        sock = socks.socksocket()
        sock.settimeout(30)
        sock.set_proxy(getattr(socks, kind), "127.0.0.1", proxy.port, rdns=True)
        sock.connect((host, echoes.port))
        # PySocks tells BND.ADDR: it is the address that the destination has seen.
        bound = sock.get_proxy_sockname()
        assert echoed(sock) == b"hello"
        assert bound == echoes.peers[0]

    def test_ipv6(self, proxy: Proxy, echoes6: Origin) -> None:
        socks = library("socks")
        sock = socks.socksocket()
        sock.settimeout(30)
        sock.set_proxy(socks.SOCKS5, "127.0.0.1", proxy.port)
        sock.connect(("::1", echoes6.port))
        bound = sock.get_proxy_sockname()
        assert echoed(sock) == b"hello"
        assert bound[:2] == echoes6.peers[0]

    def test_refused(self, proxy: Proxy) -> None:
        socks = library("socks")
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            sock = socks.socksocket()
            sock.set_proxy(socks.SOCKS5, "127.0.0.1", proxy.port)
            with pytest.raises(socks.GeneralProxyError) as caught:
                sock.connect(closed.getsockname())
            assert "0x05" in str(caught.value)
            sock.close()


class TestPythonSocks:
    @pytest.mark.parametrize("kind", ["socks4", "socks5"])
    @pytest.mark.parametrize("remote", [False, True], ids=["by address", "by name"])
    def test_sync(self, proxy: Proxy, echoes: Origin, kind: str, remote: bool) -> None:
        sync = library("python_socks.sync")
        client = sync.Proxy.from_url(f"{kind}://127.0.0.1:{proxy.port}", rdns=remote)
        host = "localhost" if remote else "127.0.0.1"
        sock = client.connect(dest_host=host, dest_port=echoes.port, timeout=30)
        assert echoed(sock) == b"hello"

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
            return data

        assert asyncio.run(converse()) == b"hello"


@pytest.mark.parametrize(
    ("kind", "host"), [("4", "127.0.0.1"), ("4", "localhost"), ("5", "127.0.0.1"), ("5", "localhost")]
)
def test_node(proxy: Proxy, echoes: Origin, kind: str, host: str) -> None:
    """npm's ``socks``."""
    node = require("node")
    if not (HERE / "node_modules" / "socks").is_dir():
        missing("npm's socks (npm install --prefix tests/interop)")
    done = run([node, str(HERE / "clients.mjs"), str(proxy.port), kind, host, str(echoes.port)])
    assert done.stdout == b"hello from node\n", done.stderr


def test_node_ipv6(proxy: Proxy, echoes6: Origin) -> None:
    node = require("node")
    if not (HERE / "node_modules" / "socks").is_dir():
        missing("npm's socks (npm install --prefix tests/interop)")
    done = run([node, str(HERE / "clients.mjs"), str(proxy.port), "5", "::1", str(echoes6.port)])
    assert done.stdout == b"hello from node\n", done.stderr
