"""``twistd socks --auth ...`` for clients that have no password to send."""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import shlex
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from cryptography import x509
from twisted.internet.testing import MemoryReactorClock
from twisted.internet.threads import deferToThread

from socksproxy.app import Options
from socksproxy.wire.password import Credentials, build_credentials
from socksproxy.wire.words import Reply4
from tests.support.authority import SERVER, Authority
from tests.support.identd import Identd, answer, userid
from tests.support.machine import needs_ipv6
from tests.support.origin import Origin, echo
from tests.support.processes import Program
from tests.support.proxy import PATIENCE, closed_port, echoes, greet, reply4, reply5, request4, request5

ME = pwd.getpwuid(os.geteuid()).pw_name


class Served:
    """
    A ``twistd socks`` process.

    :param twistd: starts it.
    :param directory: where its access log is.
    :param options: of it, with what it listens on.
    """

    def __init__(self, twistd: Callable[..., Program], directory: Path, *options: str) -> None:
        self._log = directory / "access.log"
        self.program = twistd("socks", "-l", str(self._log), "--log-format", "json", *options)
        self.where = self.program.wait_for(r"listening on (tcp6?|unix):(?:\S*:(\d+)|(\S+))")
        if "--workers" in options:
            self.program.wait_for(r"worker 1\b.*")

    @property
    def port(self) -> int:
        return int(self.where[2])

    def record(self, number: int = 0) -> dict[str, Any]:
        """The access record of a session, in the order of their ends, as soon as it is written."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            lines = self._log.read_text().splitlines(keepends=True)
            if len(lines) > number and lines[number].endswith("\n"):
                record: dict[str, Any] = json.loads(lines[number])
                return record
            time.sleep(0.02)
        raise AssertionError(f"no record {number}, but:\n{self._log.read_text()}")

    def has(self, number: int = 0, **fields: Any) -> None:
        """The record has these *fields*."""
        record = self.record(number)
        assert fields == {name: record[name] for name in fields}


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(echo) as running:
        yield running


def socks4(sock: socket.socket, origin: Origin, name: bytes = b"me") -> int:
    """The reply to a SOCKS4 request; what is granted works."""
    with sock:
        sock.sendall(request4(origin.host, origin.port, userid=name))
        reply, _ = reply4(sock)
        if reply == Reply4.GRANTED:
            echoes(sock)
        return reply


def socks5(sock: socket.socket, origin: Origin) -> int:
    """The reply to a SOCKS5 request without a word of who asks; what is granted works."""
    with sock:
        greet(sock)
        sock.sendall(request5(origin.host, origin.port))
        reply, _ = reply5(sock)
        echoes(sock)
        return reply


def refused5(sock: socket.socket) -> bool:
    """Whether a client who can say nothing is told that there is no method for it."""
    with sock:
        sock.sendall(b"\x05\x01\x00")
        return sock.recv(100) == b"\x05\xff" and sock.recv(1) == b""


# The userid of SOCKS4.


def hang(transport: Any, query: bytes) -> None:
    """Says nothing."""


@pytest.mark.parametrize(
    ("say", "reply", "said", "log"),
    [
        (userid(b"bob"), 90, {"user": "bob"}, None),
        (userid(b"alice"), 93, {"user": None}, "identd tells another user"),
        (answer(b"%s : ERROR : NO-USER\r\n"), 92, {"user": None}, "identd says NO-USER"),
        (hang, 92, {"user": None}, r"identd does not answer in 0\.5 s"),
    ],
    ids=["right", "wrong", "unknown", "hanging"],
)
@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
@pytest_twisted.ensureDeferred
async def test_ident(
    twistd: Callable[..., Program],
    tmp_path: Path,
    origin: Origin,
    host: str,
    say: Any,
    reply: int,
    said: dict[str, Any],
    log: str | None,
) -> None:
    identd = await Identd(say).start(host)
    proxy = Served(twistd, tmp_path, "--auth", f"ident:port={identd.port}:timeout=0.5", "-p", "0", "-i", host)
    sock = socket.create_connection((host, proxy.port), PATIENCE)
    own = sock.getsockname()[1]
    assert await deferToThread(socks4, sock, origin, b"bob") == reply
    assert identd.queries == [(host, b"%d, %d\r\n" % (own, proxy.port))]
    proxy.has(method="userid", version=4, reply=reply, **said)
    if log is not None:
        proxy.program.wait_for(rf"authentication failed: {host} port {own}, .*{log}")
    assert "Traceback" not in proxy.program.output
    await identd.stop()


def test_no_identd(twistd: Callable[..., Program], tmp_path: Path, origin: Origin) -> None:
    """SOCKS5 has no userid: there is no method for it."""
    proxy = Served(twistd, tmp_path, "--auth", f"ident:port={closed_port()}", "-p", "0")
    where = ("127.0.0.1", proxy.port)
    assert socks4(socket.create_connection(where, PATIENCE), origin) == 92
    assert refused5(socket.create_connection(where, PATIENCE))
    proxy.program.wait_for("identd: connection refused")


def test_ident_on_a_unix_socket(twistd: Callable[..., Program], tmp_path: Path, origin: Origin) -> None:
    proxy = Served(twistd, tmp_path, "--auth", "ident", "--listen", f"unix:{tmp_path / 'socks'}")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(tmp_path / "socks"))
        assert socks4(sock, origin) == 92
    proxy.program.wait_for("a client on a Unix socket has no identd")


def test_bad_option(twistd: Callable[..., Program]) -> None:
    program = twistd("socks", "--auth", "ident:port=ident")
    assert program.wait() != 0
    assert "--auth ident: port=ident is not a number from 1 to 65535" in program.output


# TLS certificates.


class Secured:
    """
    Clients of a listener with TLS.

    :param directory: for the files of the certificates.
    """

    def __init__(self, directory: Path) -> None:
        self.authority = Authority(directory)
        names = [x509.DNSName("proxy.example")]
        self.listen = (
            "ssl:0:interface=127.0.0.1:privateKey="
            f"{self.authority.issue('proxy', alternatives=names, usage=SERVER)}"
        )
        self.auth = f"tls:ca={self.authority.ca_file}"

    def connect(self, port: int, pem: Path | None = None) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=str(self.authority.ca_file))
        if pem is not None:
            context.load_cert_chain(pem)
        sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
        return context.wrap_socket(sock, server_hostname="proxy.example")


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["alone", "workers"])
def test_certificate(
    twistd: Callable[..., Program], tmp_path: Path, origin: Origin, workers: tuple[str, ...]
) -> None:
    secured = Secured(tmp_path)
    proxy = Served(twistd, tmp_path, "--listen", secured.listen, "--auth", secured.auth, *workers)
    pem = secured.authority.issue("bob")
    assert socks5(secured.connect(proxy.port, pem), origin) == 0
    proxy.has(0, user="bob", method="certificate", version=5, reply=0)
    assert socks4(secured.connect(proxy.port, pem), origin, b"not bob") == 90
    proxy.has(1, user="bob", method="certificate", version=4, reply=90)
    assert refused5(secured.connect(proxy.port))
    proxy.has(2, user=None)
    assert socks4(secured.connect(proxy.port), origin) == 91
    foreign = Authority(tmp_path, "foreign").issue("bob")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        socks5(secured.connect(proxy.port, foreign), origin)
    assert refused5(secured.connect(proxy.port, secured.authority.issue("bob", "root")))
    proxy.program.wait_for("the client's certificate has several names of the kind subject")
    assert "Traceback" not in proxy.program.output


def test_certificate_or_password(twistd: Callable[..., Program], tmp_path: Path, origin: Origin) -> None:
    """Who has no certificate on the same listener sends a password."""
    secured = Secured(tmp_path)
    proxy = Served(
        twistd, tmp_path, "--listen", secured.listen, "--auth", secured.auth, "--auth", "memory:alice:secret"
    )
    assert socks5(secured.connect(proxy.port, secured.authority.issue("bob")), origin) == 0
    with secured.connect(proxy.port) as sock:
        sock.sendall(b"\x05\x02\x00\x02")
        assert sock.recv(100) == b"\x05\x02"
        sock.sendall(build_credentials(Credentials(b"alice", b"secret")))
        assert sock.recv(100) == b"\x01\x00"
        sock.sendall(request5(origin.host, origin.port))
        assert reply5(sock)[0] == 0
        echoes(sock)
    proxy.has(0, user="bob", method="certificate")
    proxy.has(1, user="alice", method="password")


def test_certificates_nobody_asks_for(twistd: Callable[..., Program], tmp_path: Path) -> None:
    program = twistd("socks", "-p", "0", "--auth", Secured(tmp_path).auth)
    assert program.wait() != 0
    assert "--auth tls: there is no listener with TLS" in program.output


# Unix sockets.


def unix(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE)
    sock.connect(str(path))
    return sock


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["alone", "workers"])
def test_peercred(
    twistd: Callable[..., Program], tmp_path: Path, origin: Origin, workers: tuple[str, ...]
) -> None:
    """The first client of a port is accepted by Twisted, others by ourselves: both are known."""
    path = tmp_path / "socks"
    proxy = Served(twistd, tmp_path, "--listen", f"unix:{path}", "--auth", "peercred", *workers)
    for number in range(4):
        assert socks5(unix(path), origin) == 0
        proxy.has(number, client=f"unix:{os.geteuid()}", user=ME, method="peercred", version=5, reply=0)
    assert socks4(unix(path), origin, b"somebody") == 90
    proxy.has(4, client=f"unix:{os.geteuid()}", user=ME, method="peercred", version=4, reply=90)


def test_peercred_behind_a_balancer(twistd: Callable[..., Program], tmp_path: Path) -> None:
    """The user at the other end is the balancer's, and that is nobody's who comes through it."""
    path = tmp_path / "socks"
    proxy = Served(twistd, tmp_path, "--listen", f"haproxy:unix:{path}", "--auth", "peercred")
    for number in range(2):
        sock = unix(path)
        sock.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.1 1234 1080\r\n")
        assert refused5(sock)
        proxy.has(number, client="192.0.2.7:1234", user=None)


def test_peercred_on_tcp(twistd: Callable[..., Program], tmp_path: Path) -> None:
    """Nothing is known of who comes by TCP."""
    proxy = Served(twistd, tmp_path, "-p", "0", "--auth", "peercred")
    assert refused5(socket.create_connection(("127.0.0.1", proxy.port), PATIENCE))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is surely in no group but its own")
def test_peercred_of_another_group(twistd: Callable[..., Program], tmp_path: Path, origin: Origin) -> None:
    path = tmp_path / "socks"
    groups = set(os.getgrouplist(ME, os.getegid()))
    other = next(group.gr_name for group in grp.getgrall() if group.gr_gid not in groups)
    proxy = Served(twistd, tmp_path, "--listen", f"unix:{path}", "--auth", f"peercred:group={other}")
    assert refused5(unix(path))
    assert socks4(unix(path), origin) == 91
    proxy.program.wait_for(f"{ME} is in no group that is let in")


# What one can read.

TEXT = (Path(__file__).parent.parent.parent / "docs" / "authentication-identities.rst").read_text("utf-8")


@pytest.mark.parametrize("line", re.findall(r"^    (twistd .*)$", TEXT, re.MULTILINE))
def test_command_lines(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the documentation says one can type is taken, and nobody has to add --open."""
    monkeypatch.chdir(tmp_path)
    authority = Authority(tmp_path, "clients-ca")
    authority.issue("proxy", usage=SERVER).rename("proxy.pem")
    monkeypatch.setattr(grp, "getgrnam", lambda name: grp.getgrgid(os.getegid()))
    words = shlex.split(line)
    assert words[:3] == ["twistd", "-n", "socks"]
    options = Options(MemoryReactorClock())
    options.parseOptions(words[3:])
    assert options.plan.guarded
    portal = options.plan.settings.portal
    assert portal is not None
    assert portal.listCredentialsInterfaces()
