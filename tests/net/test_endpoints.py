"""What listeners need besides what Twisted's endpoint strings do: see :mod:`socksproxy.net.endpoints`."""

from __future__ import annotations

import os
import socket
import ssl
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from cryptography.hazmat.primitives.asymmetric import rsa
from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import _parse, _SystemdParser
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.python.systemd import ListenFDs
from twisted.python.usage import UsageError

from socksproxy.app import Options
from socksproxy.net.endpoints import BACKLOG, _parameters, ipv4_ports, with_backlog, with_mode

from ..support.certificates import chain, self_signed
from ..support.machine import needs_ipv6
from ..support.processes import PATIENCE, Program
from ..support.proxy import closed_port


def parsed(*arguments: str) -> Options:
    options = Options(MemoryReactorClock())
    options.parseOptions(arguments)
    return options


@pytest.mark.parametrize(
    "description",
    [
        "tcp:1080",
        "tcp:1080:interface=127.0.0.1:backlog=5",
        r"tcp6:1:interface=\:\:1",
        r"unix:/a\:b\\c\=d:mode=660",
        "ssl::certKey=a=b:",
        "",
        "a::b:=c",
        "x\ny:z=1\n2",
    ],
)
def test_parameters(description: str) -> None:
    """A description is read as Twisted reads it."""
    assert _parameters(description) == _parse(description)


# The backlog.


@pytest.mark.parametrize(
    "description",
    [
        "tcp:0:interface=127.0.0.1",
        "tcp:0:127.0.0.1",
        r"tcp6:0:interface=\:\:1",
        "haproxy:tcp:0:interface=127.0.0.1",
        "unix:/nonexistent/socks",
        "unix:/nonexistent/socks:660",
    ],
)
def test_backlog(description: str) -> None:
    """``--listen`` has the queue that ``-p`` has, for every kind of endpoint."""
    assert _backlog_of(description) == BACKLOG


@pytest.mark.parametrize(
    "description",
    [
        "tcp:0:interface=127.0.0.1:backlog=50",
        "tcp:0:127.0.0.1:50",
        r"tcp6:0:50:interface=\:\:1",
        "haproxy:tcp:0:backlog=50:interface=127.0.0.1",
        "unix:/nonexistent/socks:660:50",
    ],
)
def test_backlog_that_is_said(description: str) -> None:
    """What the operator says holds, with a name or without."""
    assert _backlog_of(description) == 50


@pytest.mark.parametrize("description", ["systemd:domain=INET:name=socks", "fancy:1"])
def test_no_backlog(description: str) -> None:
    """Endpoints that know no backlog are given none."""
    assert with_backlog(description) == description


def _backlog_of(description: str) -> Any:
    options = parsed("--listen", description)
    endpoint: Any = options.plan.listeners[0].endpoint
    endpoint.listen(object())
    reactor = options.reactor
    return reactor.tcpServers[0][2] if reactor.tcpServers else reactor.unixServers[0][2]


# IPv4 and IPv6 on one port.


def test_ipv4_ports() -> None:
    """Whoever listens for IPv4 by a socket of its own is known, in the PROXY protocol too."""
    descriptions = [
        "tcp:1:interface=127.0.0.1",
        "haproxy:tcp:2:interface=127.0.0.1",
        r"tcp6:3:interface=\:\:1",
        r"tcp6:4:interface=\:\:ffff\:127.0.0.1",
        "tcp:0:interface=127.0.0.1",
        "unix:/nonexistent/5",
    ]
    options = parsed(*(word for each in descriptions for word in ("--listen", each)))
    assert ipv4_ports([each.endpoint for each in options.plan.listeners]) == {1, 2, 4}


@needs_ipv6
@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
@pytest.mark.parametrize("swapped", [False, True])
def test_both_families(swapped: bool, workers: tuple[str, ...], twistd: Callable[..., Program]) -> None:
    """Two wildcards share a port, in any order, and go on to share it after SIGHUP."""
    port = closed_port()
    listen = [f"four=tcp:{port}", rf"six=tcp6:{port}:interface=\:\:"]
    listen = listen[::-1] if swapped else listen
    program = twistd("socks", "--open", *(word for each in listen for word in ("--listen", each)), *workers)
    program.wait_for(rf"listening on tcp:0\.0\.0\.0:{port}")
    program.wait_for(rf"listening on tcp6:\[::\]:{port}")
    _check_both(port)
    os.kill(program.process.pid, 1)
    program.wait_for("reloaded")
    assert "not reloaded" not in program.output
    _check_both(port)


@needs_ipv6
def test_ipv6_beside_one_ipv4_address(twistd: Callable[..., Program]) -> None:
    """An IPv4 listener on one address is in the way of ``::`` just as well."""
    port = closed_port()
    program = twistd(
        *("socks", "--open", "--listen", rf"tcp6:{port}:interface=0\:0\:0\:0\:0\:0\:0\:0"),
        *("--listen", f"tcp:{port}:interface=127.0.0.1"),
    )
    program.wait_for(rf"listening on tcp:127\.0\.0\.1:{port}")
    _check_both(port)


@needs_ipv6
def test_ipv6_wildcard_alone(twistd: Callable[..., Program]) -> None:
    """``::`` alone serves IPv4 as well, as Linux has it."""
    port = closed_port()
    program = twistd("socks", "--open", "--listen", rf"tcp6:{port}:interface=\:\:")
    program.wait_for("listening on")
    _check_both(port)


def _check_both(port: int) -> None:
    for host in ("127.0.0.1", "::1"):
        with socket.create_connection((host, port), PATIENCE) as client:
            client.sendall(b"\x05\x01\x00")
            assert client.recv(2) == b"\x05\x00"


# Certificates.


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
@pytest.mark.parametrize("combined", [False, True])
def test_whole_chain(
    combined: bool, workers: tuple[str, ...], tmp_path: Path, twistd: Callable[..., Program]
) -> None:
    """All certificates of ``certKey=`` are sent: a client that knows only the root is content."""
    key, certificates, root = chain()
    (tmp_path / "root.pem").write_bytes(root)
    (tmp_path / "key.pem").write_bytes(key)
    (tmp_path / "fullchain.pem").write_bytes(certificates)
    (tmp_path / "all.pem").write_bytes(key + certificates)
    files = "privateKey=all.pem" if combined else "privateKey=key.pem:certKey=fullchain.pem"
    program = twistd("socks", "--listen", f"ssl:0:interface=127.0.0.1:{files}", *workers)
    port = int(program.wait_for(r"listening on tcp:127\.0\.0\.1:(\d+) \(ssl:")[1])
    context = ssl.create_default_context(cafile=str(tmp_path / "root.pem"))
    with (
        socket.create_connection(("127.0.0.1", port), PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as client,
    ):
        client.sendall(b"\x05\x01\x00")
        assert client.recv(2) == b"\x05\x00"


def test_weak_key(tmp_path: Path) -> None:
    """A certificate that OpenSSL does not take is a mistake that is found before a port opens."""
    pem = tmp_path / "weak.pem"
    pem.write_bytes(self_signed(rsa.generate_private_key(65537, 1024)))
    with pytest.raises(UsageError, match="the key and the certificate cannot be used: ee key too small"):
        parsed("--listen", f"ssl:0:interface=127.0.0.1:privateKey={pem}")


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_half_renewed(workers: tuple[str, ...], tmp_path: Path, twistd: Callable[..., Program]) -> None:
    """SIGHUP between a new key and its certificate changes nothing; both are in force after the next."""
    key, certificates, root = chain()
    for name, content in (("key", key), ("chain", certificates), ("root", root)):
        (tmp_path / f"{name}.pem").write_bytes(content)
    program = twistd(
        "socks", "--listen", "ssl:0:interface=127.0.0.1:privateKey=key.pem:certKey=chain.pem", *workers
    )
    port = int(program.wait_for(r"listening on tcp:127\.0\.0\.1:(\d+) \(ssl:")[1])

    def check() -> None:
        context = ssl.create_default_context(cafile=str(tmp_path / "root.pem"))
        with (
            socket.create_connection(("127.0.0.1", port), PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as client,
        ):
            client.sendall(b"\x05\x01\x00")
            assert client.recv(2) == b"\x05\x00"

    check()
    key, certificates, root = chain()
    (tmp_path / "key.pem").write_bytes(key)
    os.kill(program.process.pid, 1)
    program.wait_for("(?s)not reloaded.*keys do not match")
    check()
    (tmp_path / "chain.pem").write_bytes(certificates)
    (tmp_path / "root.pem").write_bytes(root)
    os.kill(program.process.pid, 1)
    program.wait_for(r"(?s)not reloaded.*\breloaded")
    check()


# Sockets from systemd.


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Systemd has passed a TCP listener ``web``, a UDP socket ``dns`` and a connection ``one``."""
    with socket.socket() as web, socket.socket(type=socket.SOCK_DGRAM) as dns, socket.socket() as one:
        web.bind(("127.0.0.1", 0))
        web.listen()
        descriptors = [web.fileno(), dns.fileno(), one.fileno()]
        monkeypatch.setattr(_SystemdParser, "_sddaemon", ListenFDs(descriptors, ("web", "dns", "one")))
        yield


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("", "domain= must be one of INET, INET6, UNIX: it is missing"),
        ("domain=INET", "name=NAME must say which socket: the FileDescriptorName= of its unit"),
        ("domain=INET:name=web:index=0", "name=NAME must say which socket"),
        ("domain=inet:name=web", "domain= must be one of INET, INET6, UNIX: inet is none of them"),
        ("domain=INET:nmae=web", "nmae: only domain=, name= and index= are known"),
        ("domain=INET:name=socks", "has passed no socket of this name, but web, dns, one"),
        ("domain=INET:index=3", "systemd has passed 3 sockets only, and the first has index=0"),
        ("domain=INET:index=-1", "index=-1 is not a number from 0 on"),
        ("domain=INET6:name=web", "a socket of another family: domain=INET would be right"),
        ("domain=UNIX:index=0", "a socket of another family: domain=INET would be right"),
        ("domain=INET:name=dns", "a socket of datagrams: ListenStream= is needed in its unit"),
        ("domain=INET:name=one", "a connection: Accept=no is needed in the socket's unit"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "haproxy:"])
@pytest.mark.usefixtures("passed")
def test_wrong_systemd(prefix: str, arguments: str, text: str) -> None:
    """The error says what is wrong, and what would be right."""
    with pytest.raises(UsageError) as caught:
        parsed("--listen", f"{prefix}systemd:{arguments}")
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("passed")
@pytest.mark.parametrize("which", ["name=web", "index=0"])
def test_systemd(which: str) -> None:
    """What systemd has passed is taken."""
    assert len(parsed("--listen", f"systemd:domain=INET:{which}").plan.listeners) == 1


@pytest.mark.parametrize("which", ["name=socks", "index=0"])
def test_nothing_passed(which: str) -> None:
    """Without names Twisted knows no socket, either: the error says what systemd would set."""
    text = "has passed no socket to this process; its unit .* LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES"
    with pytest.raises(UsageError, match=text):
        parsed("--listen", f"systemd:domain=INET:{which}")


# The mode of a Unix socket.


@pytest.mark.parametrize(
    ("description", "mode"),
    [
        ("unix:{}", 0o660),
        ("unix:address={}", 0o660),
        ("unix:{}:lockfile=0", 0o660),
        ("unix:{}:backlog=7", 0o660),
        ("haproxy:unix:{}", 0o660),
        ("haproxy:haproxy:unix:{}", 0o660),
        ("unix:{}:mode=666", 0o666),
        ("unix:{}:666", 0o666),
        ("unix:{}:600:7", 0o600),
        ("unix:mode=600:address={}", 0o600),
        ("haproxy:unix:{}:mode=640", 0o640),
    ],
)
@pytest_twisted.ensureDeferred
async def test_mode(description: str, mode: int, tmp_path: Path) -> None:
    """Without a word on it, a Unix socket is for its owner and its group; what the operator says holds."""
    from twisted.internet import reactor

    path = tmp_path / "socks"
    options = Options(reactor)
    options.parseOptions(["--listen", description.format(path)])
    port = await options.plan.listeners[0].endpoint.listen(Factory())
    assert stat.S_IMODE(path.stat().st_mode) == mode
    await maybeDeferred(port.stopListening)


@pytest.mark.parametrize("description", ["tcp:0", "systemd:domain=UNIX:name=socks", "ssl:0", "fancy:1"])
def test_no_mode(description: str) -> None:
    assert with_mode(description) == description
