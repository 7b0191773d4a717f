"""What BIND was made for: FTP in active mode through the proxy, with real clients and a real server."""

from __future__ import annotations

import ftplib
import io
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from socksproxy.wire import socks4, socks5
from socksproxy.wire.words import Address, Command, Request, Version
from tests.support.ftp import FTPOrigin
from tests.support.processes import PATIENCE, Program
from tests.support.programs import missing, require, run

from .conftest import Proxy

HERE = Path(__file__).parent
DATA = os.urandom(3_000_000)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """What the FTP server has."""
    directory = tmp_path / "files"
    directory.mkdir()
    (directory / "down").write_bytes(DATA)
    return directory


@pytest.fixture
def server(files: Path) -> Iterator[FTPOrigin]:
    with FTPOrigin(files) as origin:
        yield origin


@pytest.fixture
def server6(files: Path) -> Iterator[FTPOrigin]:
    with FTPOrigin(files, "::1") as origin:
        yield origin


def transfer(proxy: Proxy, since: int, **fields: object) -> dict[str, Any]:
    """The record of the one BIND after the first *since* records; it must have these *fields*."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        binds = [record for record in proxy.records()[since:] if record["command"] == "BIND"]
        if binds:
            (record,) = binds
            assert fields.items() <= record.items(), record
            return record
        time.sleep(0.02)
    raise AssertionError(f"no BIND, but {proxy.records()[since:]}")


# Programs.


@pytest.fixture(params=["socks_v5", "socks_v4"])
def dante(request: pytest.FixtureRequest, proxy: Proxy, tmp_path: Path) -> dict[str, str]:
    """The environment in which Dante's ``socksify`` goes to our proxy, even for addresses of this machine."""
    config = tmp_path / "socks.conf"
    config.write_text(
        "resolveprotocol: fake\n"
        "route {\n"
        f"  from: 0.0.0.0/0 to: 0.0.0.0/0 via: 127.0.0.1 port = {proxy.port}\n"
        f"  proxyprotocol: {request.param}\n"
        "  protocol: tcp\n  method: none\n  command: connect bind\n}\n"
    )
    return {"SOCKS_CONF": str(config), "SOCKS_AUTOADD_LANROUTES": "no"}


def test_curl_downloads(proxy: Proxy, server: FTPOrigin, dante: dict[str, str], tmp_path: Path) -> None:
    before = len(proxy.records())
    url = f"ftp://me:secret@127.0.0.1:{server.port}/down"
    command = [require("socksify"), require("curl"), "-sS", "--ftp-port", "-", "-o", "got", url]
    done = run(command, environment=dante, directory=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "got").read_bytes() == DATA
    record = transfer(proxy, before, received=len(DATA), sent=0, strangers=0, ended="destination")
    assert record["announced"] == record["outgoing"]
    assert record["reached"].startswith("127.0.0.1:")


def test_curl_uploads(
    proxy: Proxy, server: FTPOrigin, dante: dict[str, str], tmp_path: Path, files: Path
) -> None:
    before = len(proxy.records())
    (tmp_path / "mine").write_bytes(DATA)
    url = f"ftp://me:secret@127.0.0.1:{server.port}/up"
    # PORT this time, the older way to tell where the server is to connect.
    command = [require("socksify"), require("curl"), "-sS", "--disable-eprt", "--ftp-port", "-"]
    done = run([*command, "-T", "mine", url], environment=dante, directory=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (files / "up").read_bytes() == DATA
    transfer(proxy, before, received=0, sent=len(DATA), strangers=0, ended="client")


def test_tnftp(proxy: Proxy, server: FTPOrigin, dante: dict[str, str], tmp_path: Path) -> None:
    """BSD's ``ftp``."""
    before = len(proxy.records())
    url = f"ftp://me:secret@127.0.0.1:{server.port}/down"
    command = [require("socksify"), require("tnftp"), "-A", "-o", "got", url]
    done = run(command, environment=dante, directory=tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    assert (tmp_path / "got").read_bytes() == DATA
    transfer(proxy, before, received=len(DATA), strangers=0)


# Python's ftplib over a few lines of SOCKS: all versions, by address and by name, both families.


class ProxiedFTP(ftplib.FTP):
    """An FTP client whose connections all go through a proxy, by CONNECT and by BIND."""

    def __init__(self, proxy: Proxy, version: int, host: str, port: int) -> None:
        super().__init__()
        self.proxy = proxy
        self.version = version
        self.passiveserver = False
        self.host, self.port = host, port
        sock, _ = self._ask(Command.CONNECT)
        self.sock: Any = sock
        self.file = sock.makefile("r", encoding=self.encoding)
        self.welcome = self.getresp()
        self.login("me", "secret")

    def ntransfercmd(self, cmd: str, rest: int | str | None = None) -> Any:
        """See :class:`ftplib.FTP`: the server is told where the proxy waits for it."""
        data, bound = self._ask(Command.BIND)
        if ":" in bound.host:
            self.af = socket.AF_INET6
            self.sendeprt(bound.host, bound.port)
        else:
            self.sendport(bound.host, bound.port)
        answer = self.sendcmd(cmd)
        assert answer[0] == "1", answer
        assert self._reply(data).host in ("127.0.0.1", "::1")
        return data, None

    def _ask(self, command: Command) -> tuple[socket.socket, Address]:
        sock = socket.create_connection(("127.0.0.1", self.proxy.port), PATIENCE)
        destination = Address.of(self.host, self.port)
        if self.version == 4:
            sock.sendall(socks4.build_request(Request(Version.SOCKS4, command, destination)))
        else:
            sock.sendall(socks5.build_greeting(b"\x00"))
            assert sock.recv(2) == b"\x05\x00"
            sock.sendall(socks5.build_request(command, destination))
        return sock, self._reply(sock)

    def _reply(self, sock: socket.socket) -> Address:
        module: Any = socks4 if self.version == 4 else socks5
        data = b""
        while (parsed := module.parse_reply(data)) is None:
            # The server may speak first: not a byte more than the reply.
            piece = sock.recv(1)
            assert piece, f"the end, after {data!r}"
            data += piece
        message, _ = parsed
        assert message.reply == (90 if self.version == 4 else 0)
        address: Address = message.address
        return address


@pytest.mark.parametrize(
    ("version", "host", "family"),
    [
        (4, "127.0.0.1", 4),
        (4, "echo.test", 4),
        (5, "127.0.0.1", 4),
        (5, "::1", 6),
        (5, "echo.test", 4),
        (5, "dual.test", 4),
        (5, "dual.test", 6),
    ],
)
def test_ftplib(own_names: Proxy, files: Path, version: int, host: str, family: int) -> None:
    """
    Down and up in one session. A server with both families is met in the family in which the
    control connection got through, which is the one that it then accepts.
    """
    before = len(own_names.records())
    with FTPOrigin(files, "::1" if family == 6 else "127.0.0.1") as server:
        with ProxiedFTP(own_names, version, host, server.port) as client:
            got = io.BytesIO()
            client.retrbinary("RETR down", got.write)
            client.storbinary("STOR up", io.BytesIO(DATA))
        assert got.getvalue() == (files / "up").read_bytes() == DATA
    deadline = time.monotonic() + PATIENCE
    while len(records := own_names.records()[before:]) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert sorted((record["command"], record["sent"], record["received"]) for record in records[:2]) == [
        ("BIND", 0, len(DATA)),
        ("BIND", len(DATA), 0),
    ]


# npm's socks.


@pytest.mark.parametrize(
    ("kind", "host"),
    [("4", "127.0.0.1"), ("4", "localhost"), ("5", "127.0.0.1"), ("5", "localhost"), ("5", "::1")],
)
def test_node(proxy: Proxy, tmp_path: Path, kind: str, host: str) -> None:
    node = require("node")
    if not (HERE / "node_modules" / "socks").is_dir():
        missing("npm's socks (npm install --prefix tests/interop)")
    program = Program([node, str(HERE / "bind.mjs"), str(proxy.port), kind, host, "21"], tmp_path)
    try:
        bound = program.wait_for(r"bound (\S+) (\d+)\n")
        with socket.create_connection((bound[1], int(bound[2])), PATIENCE) as peer:
            own = peer.getsockname()
            came = program.wait_for(r"established (\S+) (\d+)\n")
            assert came[2] == str(own[1])
            peer.sendall(b"hello")
            program.wait_for("said hello\n")
            assert peer.makefile("rb").read() == b"and goodbye"
        assert program.wait() == 0
    finally:
        program.stop()
