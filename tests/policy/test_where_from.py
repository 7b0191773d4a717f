"""By which listener a client has come, and who it is: on TCP and Unix sockets, and behind balancers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread

from socksproxy.app import Options, makeService
from socksproxy.auth.checkers.peercred import user_of
from socksproxy.config.command_line import Mistakes
from socksproxy.identity import Client
from socksproxy.policy.compiled import RulePolicy
from socksproxy.policy.rules import Rule
from socksproxy.values.limits import Limits, ServerLimits
from socksproxy.wire.words import Reply
from tests.conftest import Serve
from tests.support.origin import Origin, echo
from tests.support.proxy import PATIENCE, Playing, Proxy, ask4, ask5, echoes, until

ME = os.geteuid()


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(echo) as origin:
        yield origin


def reply(address: Any, origin: Origin, first: bytes = b"", version: int = 5) -> int:
    """What a client is told that comes to *address*, a path or a host and port, and says *first* first."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(address)
        sock.sendall(first)
        ask = ask4 if version == 4 else ask5
        code, _ = ask(sock, "127.0.0.1", origin.port)
        if code in (0, 90):
            echoes(sock)
        return code


def header1(client: str) -> bytes:
    """Version 1 of the PROXY protocol."""
    kind = "TCP6" if ":" in client else "TCP4"
    ours = "::1" if ":" in client else "203.0.113.5"
    return f"PROXY {kind} {client} {ours} 5000 1080\r\n".encode()


def header2(client: str) -> bytes:
    """Version 2."""
    family = socket.AF_INET6 if ":" in client else socket.AF_INET
    ours = "2001:db8::5" if ":" in client else "203.0.113.5"
    body = socket.inet_pton(family, client) + socket.inet_pton(family, ours) + bytes.fromhex("13880438")
    kind = b"\x21" if ":" in client else b"\x11"
    return b"\r\n\r\n\0\r\nQUIT\n\x21" + kind + len(body).to_bytes(2, "big") + body


KINDS = ["tcp", "unix", "haproxy:tcp", "haproxy:unix"]


def endpoint(kind: str, path: Path) -> str:
    return f"{kind}:{path}" if kind.endswith("unix") else f"{kind}:0:interface=127.0.0.1"


# Listeners.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("engine", [True, False], ids=["engine", "transports"])
@pytest_twisted.inlineCallbacks
def test_words(serve_as: Serve, origin: Origin, tmp_path: Path, kind: str, engine: bool) -> Playing:
    """Every word for a listener is as good as the other, and behind a balancer it is still our listener."""
    path = tmp_path / "socks"
    first = header1("192.0.2.7") if kind.startswith("haproxy") else b""
    proxy: Proxy = yield serve_as("x", listen=endpoint(kind, path), engine=engine)
    where = proxy.address
    words = [f"unix:{path}", "unix"] if isinstance(where, str) else [f"127.0.0.1:{where[1]}"]
    wrong = ["unix:/run/other", "back", "203.0.113.5:1080", "127.0.0.1:1"]
    wrong += [] if isinstance(where, str) else ["unix"]

    def told(listeners: list[str]) -> Any:
        rule = Rule(name="r", allow=True, listeners=listeners, networks=["127.0.0.1"])
        proxy.sessions.context.set_policy(RulePolicy([rule]))
        proxy.sessions.context.check = proxy.sessions.context.check._replace(
            policy=proxy.sessions.context.policy
        )
        return proxy.play(reply, where, origin, first)

    for word in words:
        assert (yield told([word])) == 0
    assert (yield told([*wrong, words[-1]])) == 0
    assert (yield told(wrong)) == Reply.NOT_ALLOWED
    assert (yield told(["front"])) == Reply.NOT_ALLOWED
    proxy.sessions.context.listeners.call(where, "front")
    for word in ["front", *words]:
        assert (yield told([word])) == 0
    assert (yield told(wrong)) == Reply.NOT_ALLOWED


CONFIG = """
[listeners]
listen = [
    "one=unix:{path}/1",
    "unix:{path}/2",
    "three=haproxy:unix:{path}/3",
    "four=tcp:0:interface=127.0.0.1",
]
[[rule]]
name = "first"
allow = true
listeners = ["one"]
[[rule]]
name = "second"
allow = true
listeners = ["unix:{path}/2"]
[[rule]]
name = "third"
allow = true
listeners = ["three"]
networks = ["loopback"]
[[rule]]
name = "not-others"
allow = false
listeners = ["unix"]
[[rule]]
name = "fourth"
allow = true
listeners = ["four"]
"""


@pytest_twisted.inlineCallbacks
def test_names_in_the_file(origin: Origin, tmp_path: Path) -> Playing:
    """Several Unix sockets are told apart, each by its name or by its path."""
    file = tmp_path / "socks.toml"
    file.write_text(CONFIG.format(path=tmp_path))
    log = tmp_path / "log"
    options = Options()
    options.parseOptions(["--config", str(file), "--log", str(log)])
    service = makeService(options)
    service.startService()
    try:
        yield until(lambda: len(service.ports) == 4)
        (tcp,) = [port.getHost() for port in service.ports if hasattr(port.getHost(), "port")]
        for number, address in enumerate([f"{tmp_path}/{n}" for n in (1, 2, 3)] + [("127.0.0.1", tcp.port)]):  # type: ignore[attr-defined, list-item]
            first = header1("192.0.2.7") if number == 2 else b""
            code = yield deferToThread(reply, address, origin, first)
            assert code == 0
        yield until(lambda: log.exists() and log.read_text().count("\n") == 4)
    finally:
        yield service.stopService()
    rules = [line.partition(" rule=")[2].split()[0] for line in log.read_text().splitlines()]
    assert sorted(rules) == ["first", "fourth", "second", "third"]


@pytest.mark.parametrize(
    ("listeners", "told"),
    [
        ('["front", "unix", "unix:/run/x", "192.0.2.1:1080"]', ""),
        ('["unix", "frnt"]', '[1] = "frnt": there is no such listener; did you mean front?'),
        (
            '["back"]',
            '[0] = "back": there is no such listener; NAME=ENDPOINT in [listeners] listen names one',
        ),
    ],
)
@pytest.mark.parametrize("said", [[], ["--listen", f"other={endpoint('tcp', Path())}"]])
def test_no_such_listener(listeners: str, told: str, said: list[str], tmp_path: Path) -> None:
    """What is denied to the clients of a listener that there is not is denied to nobody."""
    file = tmp_path / "socks.toml"
    file.write_text(
        '[listeners]\nlisten = ["front=tcp:0:interface=127.0.0.1"]\n'
        f'[[rule]]\nname = "r"\nallow = false\nlisteners = {listeners}\n'
    )
    if not told:
        Options().parseOptions(["--config", str(file), *said])
        return
    with pytest.raises(Mistakes) as caught:
        Options().parseOptions(["--config", str(file), *said])
    (line,) = caught.value.lines
    assert line == f'{file}:6: [[rule]] "r" listeners{told}'


def test_a_listener_of_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "socks.toml"
    file.write_text('[[rule]]\nname = "r"\nallow = false\nlisteners = ["other"]\n')
    Options().parseOptions(["--config", str(file), "--listen", f"other={endpoint('tcp', Path())}"])


# Local users.


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("engine", [True, False], ids=["engine", "transports"])
@pytest_twisted.inlineCallbacks
def test_local_user(serve_as: Serve, origin: Origin, tmp_path: Path, engine: bool, version: int) -> Playing:
    """The first client of a port is accepted by Twisted, the second by ourselves where there is an engine."""
    proxy: Proxy = yield serve_as("x", listen=f"unix:{tmp_path}/socks", engine=engine)
    for number in range(2):
        assert (yield proxy.play(reply, proxy.address, origin, b"", version)) in (0, 90)
        record = yield proxy.record(number)
        assert record["client"] == f"unix:{ME}"


@pytest.mark.skipif(ME != 0, reason="only root can be somebody else")
@pytest.mark.parametrize("engine", [True, False], ids=["engine", "transports"])
@pytest_twisted.inlineCallbacks
def test_another_user(serve_as: Serve, origin: Origin, engine: bool) -> Playing:
    """Each user is a client of its own, whoever runs the proxy."""
    with tempfile.TemporaryDirectory() as directory:  # the test's own is closed to others
        os.chmod(directory, 0o755)
        path = f"{directory}/socks"
        proxy: Proxy = yield serve_as("x", listen=f"unix:{path}:mode=666", engine=engine)
        for number, uid in enumerate([12345, 12346, 12345]):
            assert (yield proxy.play(as_user, uid, path, origin)) == 0
            record = yield proxy.record(number)
            assert record["client"] == f"unix:{uid}"
        yield proxy.port.stopListening()


def as_user(uid: int, path: str, origin: Origin) -> int:
    """A client whose process is that of the user *uid*: its first reply."""
    code = (
        "import os, socket, sys\n"
        f"os.setgroups([]); os.setgid({uid}); os.setuid({uid})\n"
        f"sock = socket.socket(socket.AF_UNIX); sock.settimeout({PATIENCE}); sock.connect({path!r})\n"
        "sock.sendall(b'\\5\\1\\0'); assert sock.recv(2) == b'\\5\\0'\n"
        f"sock.sendall(b'\\5\\1\\0\\1\\x7f\\0\\0\\1' + ({origin.port}).to_bytes(2, 'big'))\n"
        "sys.exit(sock.recv(100)[1])"
    )
    return subprocess.run([sys.executable, "-c", code], timeout=2 * PATIENCE, check=False).returncode


def test_no_user() -> None:
    """TCP has none."""
    with socket.socket() as sock:
        assert user_of(sock) is None
    one, two = socket.socketpair()
    with one, two:
        assert user_of(one) == ME


def test_client_in_words() -> None:
    assert str(Client(None)) == "unix"
    assert str(Client(None, uid=0)) == "unix:0"
    assert str(Client("192.0.2.7", 80, uid=None)) == "192.0.2.7:80"


# Behind balancers.


@pytest.mark.parametrize("header", [header1, header2], ids=["v1", "v2"])
@pytest.mark.parametrize("client", ["192.0.2.7", "2001:db8::7"])
@pytest.mark.parametrize("kind", ["haproxy:tcp", "haproxy:unix"])
@pytest.mark.parametrize("engine", [True, False], ids=["engine", "transports"])
@pytest_twisted.inlineCallbacks
def test_behind_a_balancer(
    serve_as: Serve, origin: Origin, tmp_path: Path, kind: str, client: str, header: Any, engine: bool
) -> Playing:
    """The client's own address is what rules see, what is recorded, and what is not on this machine."""
    rules = [
        Rule(name="unix", allow=False, clients=["unix", "loopback"]),
        Rule(name="them", allow=True, clients=["192.0.2.7", "2001:db8::7"], networks=["127.0.0.1"]),
        Rule(name="others", allow=True),
    ]
    proxy: Proxy = yield serve_as(
        "x", listen=endpoint(kind, tmp_path / "socks"), engine=engine, policy=RulePolicy(rules)
    )
    shown = f"[{client}]:5000" if ":" in client else f"{client}:5000"
    for number, version in enumerate([5, 4]):
        assert (yield proxy.play(reply, proxy.address, origin, header(client), version)) in (0, 90)
        record = yield proxy.record(number)
        assert (record["client"], record["rule"]) == (shown, "them")
    # Under another rule, loopback is not for a client that is elsewhere.
    other = client[:-1] + "8"
    assert (yield proxy.play(reply, proxy.address, origin, header(other))) == Reply.NOT_ALLOWED
    assert (yield proxy.record(2))["rule"] == "special"


@pytest.mark.parametrize(
    ("told", "client"),
    [
        ("2001:DB8:0::7", "[2001:db8::7]:5000"),
        ("::FFFF:192.0.2.7", "192.0.2.7:5000"),
        ("::ffff:c000:207", "192.0.2.7:5000"),
    ],
)
@pytest_twisted.inlineCallbacks
def test_a_balancer_with_a_hand_of_its_own(
    serve_as: Serve, origin: Origin, told: str, client: str
) -> Playing:
    """However it writes an address, that is one client and not another one."""
    policy = RulePolicy([Rule(name="r", allow=True, networks=["127.0.0.1"])])
    proxy: Proxy = yield serve_as("x", listen=endpoint("haproxy:tcp", Path()), policy=policy)
    assert (yield proxy.play(reply, proxy.address, origin, header1(told))) == 0
    assert (yield proxy.record())["client"] == client


@pytest.mark.parametrize("kind", ["haproxy:tcp", "haproxy:unix"])
@pytest_twisted.inlineCallbacks
def test_default_policy_behind_a_balancer(
    serve_as: Serve, origin: Origin, tmp_path: Path, kind: str
) -> Playing:
    """A balancer on this machine does not make its clients local."""
    proxy: Proxy = yield serve_as("x", listen=endpoint(kind, tmp_path / "socks"))
    assert (yield proxy.play(reply, proxy.address, origin, header1("192.0.2.7"))) == Reply.NOT_ALLOWED
    assert (yield proxy.play(reply, proxy.address, origin, header1("127.0.0.9"))) == 0
    assert origin.peers != []


@pytest_twisted.inlineCallbacks
def test_the_balancers_user_is_nobodys(serve_as: Serve, origin: Origin, tmp_path: Path) -> Playing:
    """What the kernel knows is who the balancer is; its local clients (version 2) are not told apart."""
    proxy: Proxy = yield serve_as("x", listen=f"haproxy:unix:{tmp_path}/socks")
    local = b"\r\n\r\n\0\r\nQUIT\n\x21\x31" + (216).to_bytes(2, "big") + b"/run/client".ljust(108, b"\0") * 2
    assert (yield proxy.play(reply, proxy.address, origin, local)) == 0
    assert (yield proxy.record())["client"] == "unix"


@pytest.mark.parametrize("kind", ["haproxy:tcp", "haproxy:unix"])
@pytest_twisted.inlineCallbacks
def test_limits_behind_a_balancer(serve_as: Serve, origin: Origin, tmp_path: Path, kind: str) -> Playing:
    """Sessions are counted for the client's own address, and not for the balancer's."""
    policy = RulePolicy([Rule(name="r", allow=True, networks=["127.0.0.1"])])
    limits = ServerLimits(client=Limits(sessions=1))
    proxy: Proxy = yield serve_as(
        "x", listen=endpoint(kind, tmp_path / "socks"), limits=limits, policy=policy
    )
    family = socket.AF_UNIX if isinstance(proxy.address, str) else socket.AF_INET
    with socket.socket(family) as first:
        first.settimeout(PATIENCE)
        first.connect(proxy.address)
        first.sendall(header1("192.0.2.7"))
        assert (yield proxy.play(ask5, first, "127.0.0.1", origin.port))[0] == 0
        assert (yield proxy.play(reply, proxy.address, origin, header1("192.0.2.7"))) != 0
        assert (yield proxy.play(reply, proxy.address, origin, header1("192.0.2.8"))) == 0
