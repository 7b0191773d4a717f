"""UDP ASSOCIATE with real clients: DNS, QUIC, libraries, and a game's traffic."""

from __future__ import annotations

import asyncio
import datetime
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.names import NameServer
from tests.support.programs import missing, require, run
from tests.support.udp import Client, Echo

from .conftest import Proxy

HERE = Path(__file__).parent


def library(name: str) -> Any:
    try:
        return __import__(name, fromlist=["_"])
    except ImportError:
        missing(f"the library {name}")


@pytest.fixture
def echo() -> Iterator[Echo]:
    with Echo() as running:
        yield running


class TestPySocks:
    """It asks with the name "0" for its own address."""

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    def test_echo(self, proxy: Proxy, echo: Echo, host: str) -> None:
        socks = library("socks")
        sock = socks.socksocket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.settimeout(30)
        sock.set_proxy(socks.SOCKS5, "127.0.0.1", proxy.port)
        with sock:
            for payload in (b"hello", b"x" * 8000):
                sock.sendto(payload, (host, echo.address[1]))
                assert sock.recvfrom(65536) == (payload, echo.address)

    def test_connected(self, proxy: Proxy, echo: Echo) -> None:
        socks = library("socks")
        sock = socks.socksocket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.settimeout(30)
        sock.set_proxy(socks.SOCKS5, "127.0.0.1", proxy.port)
        with sock:
            sock.connect(echo.address)
            sock.send(b"hello")
            assert sock.recv(100) == b"hello"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_node(proxy: Proxy, echo: Echo, host: str) -> None:
    """npm's ``socks``."""
    node = require("node")
    if not (HERE / "node_modules" / "socks").is_dir():
        missing("npm's socks (npm install --prefix tests/interop)")
    done = run([node, str(HERE / "clients-udp.mjs"), str(proxy.port), host, str(echo.address[1])])
    assert done.stdout == f"127.0.0.1:{echo.address[1]} hello from node\n".encode(), done.stderr


# Not dig: it sends with sendmmsg, which socksify does not see, so that no header is put before its queries.
_RESOLVE = """
import socket, sys
from twisted.names import dns
query = dns.Message(7, recDes=1)
query.addQuery(b"www.test", dns.A)
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(30)
sock.sendto(query.toStr(), (socket.gethostbyname(sys.argv[1]), int(sys.argv[2])))
answer = dns.Message()
answer.fromStr(sock.recv(4096))
print(answer.answers[0].payload.dottedQuad())
"""


def test_dns_under_socksify(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    """A resolver that knows nothing of SOCKS, under Dante's client; the DNS server is known by name alone."""
    program = require("socksify")
    with NameServer({"ns.test": ["127.0.0.1"], "www.test": ["192.0.2.80"]}) as server:
        proxy = Proxy(tmp_path_factory.mktemp("dns"), "--resolver", f"dns:127.0.0.1:{server.port}")
        config = tmp_path / "socks.conf"
        config.write_text(
            "resolveprotocol: fake\nroute {\n"
            f"  from: 0.0.0.0/0 to: 0.0.0.0/0 via: 127.0.0.1 port = {proxy.port}\n"
            "  proxyprotocol: socks_v5\n  protocol: udp\n  method: none\n  command: udpassociate\n}\n"
        )
        try:
            done = run(
                [program, sys.executable, "-c", _RESOLVE, "ns.test", str(server.port)],
                environment={"SOCKS_CONF": str(config)},
            )
            assert done.stdout == b"192.0.2.80\n", done.stderr
            assert ("www.test", 1) in server.asked
            deadline = time.monotonic() + 30
            while not proxy.records():
                assert time.monotonic() < deadline
                time.sleep(0.02)
            (record,) = proxy.records()
            assert (record["command"], record["datagrams_sent"]) == ("UDP_ASSOCIATE", 1)
        finally:
            proxy.stop()


# A game: many small datagrams each way, as fast as a window of them allows.

COUNT = 10_000
WINDOW = 32


class Reached:
    """A running proxy, as :class:`~tests.support.udp.Client` wants it."""

    def __init__(self, proxy: Proxy) -> None:
        self.address = ("127.0.0.1", proxy.port)


def test_ten_thousand_datagrams(proxy: Proxy, echo: Echo) -> None:
    """None is lost, doubled, changed or out of order, of several lengths and to two destinations."""
    with Echo() as second, Client(Reached(proxy)) as client:
        destinations = [echo.address, second.address]
        received: dict[int, list[int]] = {address[1]: [] for address in destinations}
        sent = threading.Semaphore(WINDOW)

        def send() -> None:
            for number in range(COUNT):
                assert sent.acquire(timeout=30)
                payload = struct.pack("!I", number) * (1 + number % 50 * 6)
                client.send(payload, destinations[number % 3 == 0])

        sender = threading.Thread(target=send)
        sender.start()
        for _ in range(COUNT):
            address, payload = client.receive()
            (number,) = struct.unpack_from("!I", payload)
            assert payload == struct.pack("!I", number) * (1 + number % 50 * 6)
            received[address.port].append(number)
            sent.release()
        sender.join()
        assert client.is_silent()
    assert received[echo.address[1]] == [number for number in range(COUNT) if number % 3]
    assert received[second.address[1]] == list(range(0, COUNT, 3))


# QUIC, by aioquic, over a shim of a few lines.

DOWNLOAD = 4_000_000


class Shim(asyncio.DatagramTransport):
    """Puts the header before what *transport* sends to the relay."""

    def __init__(self, transport: Any, relay: tuple[str, int]) -> None:
        super().__init__()
        self._transport = transport
        self._relay = relay

    def sendto(self, data: Any, addr: Any = None) -> None:
        header = b"\0\0\0\1" + socket.inet_aton(addr[0]) + struct.pack("!H", addr[1])
        self._transport.sendto(header + data, self._relay)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def close(self) -> None:
        self._transport.close()


class Unwrap(asyncio.DatagramProtocol):
    """Takes the header off what the relay sends to *inner*."""

    def __init__(self, inner: Any, relay: tuple[str, int]) -> None:
        self._inner = inner
        self._relay = relay

    def connection_made(self, transport: Any) -> None:
        self._inner.connection_made(Shim(transport, self._relay))

    def datagram_received(self, data: bytes, addr: Any) -> None:
        assert addr == self._relay
        assert data[:4] == b"\0\0\0\1"
        source = socket.inet_ntoa(data[4:8]), int.from_bytes(data[8:10], "big")
        self._inner.datagram_received(data[10:], source)


def certificate() -> tuple[Any, Any]:
    x509 = library("cryptography.x509")
    ec = library("cryptography.hazmat.primitives.asymmetric.ec")
    hashes = library("cryptography.hazmat.primitives.hashes")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "quic.test")])
    now = datetime.datetime.now(datetime.timezone.utc)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return signed, key


def test_quic(proxy: Proxy) -> None:
    """A handshake, and a download whose every byte comes: QUIC's datagrams are large and come in bursts."""
    download(proxy)


def download(proxy: Proxy) -> None:
    """A download by QUIC."""
    quic = library("aioquic.asyncio")
    connection = library("aioquic.quic.connection")
    configuration = library("aioquic.quic.configuration").QuicConfiguration

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def answer() -> None:
            size = int((await reader.readline()).decode())
            writer.write(b"q" * size)
            writer.write_eof()

        answers.append(asyncio.ensure_future(answer()))

    answers: list[Any] = []

    async def converse() -> tuple[int, bytes]:
        loop = asyncio.get_running_loop()
        server_side = configuration(is_client=False, alpn_protocols=["test"])
        server_side.certificate, server_side.private_key = certificate()
        server = await quic.serve("127.0.0.1", 0, configuration=server_side, stream_handler=serve)
        port = server._transport.get_extra_info("sockname")[1]
        client_side = configuration(is_client=True, alpn_protocols=["test"], verify_mode=0)
        client = quic.QuicConnectionProtocol(connection.QuicConnection(configuration=client_side))
        with Client(Reached(proxy)) as association:
            transport, _ = await loop.create_datagram_endpoint(
                lambda: Unwrap(client, association.relay), local_addr=("127.0.0.1", 0)
            )
            client.connect(("127.0.0.1", port))
            await asyncio.wait_for(client.wait_connected(), 60)
            reader, writer = await client.create_stream()
            writer.write(b"%d\n" % DOWNLOAD)
            writer.write_eof()
            data = await asyncio.wait_for(reader.read(), 60)
            client.close()
            transport.close()
        server.close()
        return len(data), data[:1] + data[-1:]

    assert asyncio.run(converse()) == (DOWNLOAD, b"qq")
