"""SIGHUP: the configuration is read again, and put in force without cutting anybody off."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import pytest_twisted
from twisted.internet.address import UNIXAddress
from twisted.internet.endpoints import AdoptedStreamServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThread

from socksproxy.app import Options, makeService
from socksproxy.net.resources import Resources
from socksproxy.service.server import SOCKSService
from socksproxy.wire.password import Credentials, build_credentials

from ..support.certificates import self_signed
from ..support.logs import heard
from ..support.origin import Origin, echo
from ..support.processes import TWISTD, Program
from ..support.proxy import PATIENCE, ask5, closed_port, echoes, reactor, reply5, request5, until

ALL = """
[[rule]]
name = "all"
allow = true
networks = ["0.0.0.0/0", "::/0"]
"""
NOBODY = """
[[rule]]
name = "nobody"
allow = false
"""

NOT_RELOADED = "not reloaded, the old configuration stays in force: correct this and send SIGHUP again:"


@pytest.fixture
def origin() -> Iterator[Origin]:
    """What sends back what comes."""
    with Origin(echo) as server:
        yield server


class Served:
    """
    A service that runs, and what it logs.

    :param path: its configuration file.
    """

    def __init__(self, path: Path, lines: list[str], service: SOCKSService) -> None:
        self.path = path
        self.lines = lines
        self.service = service

    @property
    def addresses(self) -> list[Any]:
        """Where it listens."""
        hosts = [port.getHost() for port in self.service.ports]
        return [
            os.fsdecode(host.name) if isinstance(host, UNIXAddress) else (host.host, host.port)  # type: ignore[arg-type, attr-defined]
            for host in hosts
        ]

    async def reload(self, text: str | None = None) -> list[str]:
        """Write *text* into the file, send SIGHUP, and give what is logged of it."""
        if text is not None:
            self.path.write_text(text)
        before = len(self.lines)
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: any("reloaded" in line for line in self.lines[before:]))
        return self.lines[before:]


@asynccontextmanager
async def serving(path: Path, text: str, *more: str) -> AsyncIterator[Served]:
    """A service by the file *path* that holds *text*."""
    path.write_text(text)
    options = Options(reactor)
    options.parseOptions(["--config", str(path), *more])
    service: Any = makeService(options)
    with heard() as lines:
        service.privilegedStartService()
        service.startService()
        try:
            yield Served(path, lines, service)
        finally:
            service.end_now = lambda: None
            await service.stopService()


def listening(*endpoints: str, rest: str = "") -> str:
    return f"[listeners]\nlisten = [{', '.join(repr(endpoint) for endpoint in endpoints)}]\n{rest}"


def at(port: int) -> str:
    return f"tcp:{port}:interface=127.0.0.1"


def connect(address: Any) -> socket.socket:
    if isinstance(address, str):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE)
        sock.connect(address)
        return sock
    return socket.create_connection(address, PATIENCE)


def connected(address: Any, port: int) -> socket.socket:
    sock = connect(address)
    assert ask5(sock, "127.0.0.1", port)[0] == 0
    echoes(sock)
    return sock


def code(address: Any, port: int) -> int:
    with connect(address) as sock:
        return ask5(sock, "127.0.0.1", port)[0]


def logged_in(address: Any, name: str, password: str, port: int) -> socket.socket | None:
    """A user's connection through the proxy; None: the password is wrong."""
    sock = connect(address)
    sock.sendall(b"\x05\x01\x02")
    assert sock.recv(2) == b"\x05\x02"
    sock.sendall(build_credentials(Credentials(name.encode(), password.encode())))
    if sock.recv(2) != b"\x01\x00":
        sock.close()
        return None
    sock.sendall(request5("127.0.0.1", port))
    assert reply5(sock)[0] == 0
    echoes(sock)
    return sock


@cache
def hash_of(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


def open_files() -> set[str]:
    """The files that this process has open."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.add(os.readlink(f"/proc/self/fd/{name}"))
    return {name for name in found if name.startswith("/") and not name.startswith("/proc")}


def accepts(address: Any) -> bool:
    with suppress(OSError), connect(address):
        return True
    return False


def ends(sock: socket.socket) -> bool:
    with suppress(ConnectionResetError):
        return sock.recv(1) == b""
    return True


# What is in force.


@pytest_twisted.ensureDeferred
async def test_rules(tmp_path: Path, origin: Origin) -> None:
    """New rules are in force at once, for those who are there as well; the record tells it."""
    log = tmp_path / "access.log"
    text = listening(at(0), rest=f'[log]\nlog = "{log}"\n')
    async with serving(tmp_path / "socks.toml", text + ALL) as served:
        (address,) = served.addresses
        sock = await deferToThread(connected, address, origin.port)
        lines = await served.reload(text + ALL + "log = true\n")
        assert lines == [f"reloaded: {served.path} is in force from now on"]
        await deferToThread(echoes, sock)
        await served.reload(text + NOBODY)
        assert await deferToThread(ends, sock)
        sock.close()
        assert await deferToThread(code, address, origin.port) == 2
        await until(lambda: len(log.read_text().splitlines()) == 2)
        first = log.read_text().splitlines()[0]
        assert "rule=nobody" in first
        assert 'ended="no longer permitted"' in first


@pytest_twisted.ensureDeferred
async def test_mistakes(tmp_path: Path, origin: Origin) -> None:
    """With mistakes all stays as it was, and each of them is told as it would be at the start."""
    text = listening(at(0), rest=ALL)
    async with serving(tmp_path / "socks.toml", text) as served:
        (address,) = served.addresses
        sock = await deferToThread(connected, address, origin.port)
        wrong = text + NOBODY.replace("nobody", "all") + "[timeouts]\nidle-timeuot = 5\n"
        lines = await served.reload(wrong)
        await until(lambda: len(served.lines) >= 3)
        options = Options(reactor)
        with pytest.raises(Exception, match="idle-timeuot") as caught:
            options.parseOptions(["--config", str(served.path)])
        told = str(caught.value).splitlines()
        assert len(told) == 2
        assert lines[0] == NOT_RELOADED
        assert lines[1:] == told
        await deferToThread(echoes, sock)
        sock.close()
        assert await deferToThread(code, address, origin.port) == 0
        served.path.unlink()
        assert "no such file" in (await served.reload())[-1]


@pytest_twisted.ensureDeferred
async def test_everything_else(tmp_path: Path, origin: Origin) -> None:
    """What is not a rule changes, too: timeouts, limits, the way out, the access log, the drain."""
    logs = [tmp_path / "one.log", tmp_path / "two.log"]
    text = listening(at(0), rest=f'[log]\nlog = "{logs[0]}"\n')
    async with serving(tmp_path / "socks.toml", text) as served:
        (address,) = served.addresses
        await deferToThread(code, address, origin.port)
        await until(lambda: logs[0].read_text())
        new = listening(
            at(0),
            rest=f"""
[log]
log = "{logs[1]}"
log-format = "json"
[timeouts]
handshake-timeout = 7
[outgoing]
outgoing = ["127.0.0.3"]
[limits]
max-sessions = 1
[workers]
drain = 9
workers = 2
""",
        )
        lines = await served.reload(new)
        assert lines[-1].endswith("; restart the server for another number of workers")
        sessions = served.service.factory.sessions
        assert sessions.context.handshakes.seconds == 7
        assert served.service.plan.drain == 9
        sock = await deferToThread(connected, address, origin.port)
        assert origin.peers[-1][0] == "127.0.0.3"
        assert await deferToThread(code, address, origin.port) == 2
        sock.close()
        await until(lambda: len(logs[1].read_text().splitlines()) == 2)
        assert logs[1].read_text().startswith("{")
        assert len(logs[0].read_text().splitlines()) == 1


@pytest_twisted.ensureDeferred
async def test_log_stays_open(tmp_path: Path, origin: Origin) -> None:
    """The access log that is the same is not opened anew: who has given up privileges could not."""
    log = tmp_path / "access.log"
    text = listening(at(0), rest=f'[log]\nlog = "{log}"\n')
    async with serving(tmp_path / "socks.toml", text) as served:
        before = served.service.plan.access_log
        log.unlink()
        await served.reload(text + ALL)
        assert served.service.plan.access_log is before
        assert not log.exists()


@pytest_twisted.ensureDeferred
async def test_storm(tmp_path: Path) -> None:
    """However many signals come while it is read, it is read once more after that; the last one counts."""
    text = listening(at(0))
    async with serving(tmp_path / "socks.toml", text) as served:
        for number in range(50):
            served.path.write_text(f"{text}[timeouts]\nconnect-timeout = {number + 1}\n")
            os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: served.service.factory.sessions.context.connects.seconds == 50)
        await until(lambda: not served.service.reloading._underway)
        assert 1 <= sum("reloaded" in line for line in served.lines) <= 50


@pytest_twisted.ensureDeferred
async def test_stopped_while_it_is_read(tmp_path: Path) -> None:
    """What is read when the service stops is not put in force any more."""
    path = tmp_path / "socks.toml"
    async with serving(path, listening(at(0))) as served:
        address = closed_port()
        path.write_text(listening(at(address)))
        served.service.reloading.want()
    await until(lambda: not served.service.reloading._underway)
    assert not accepts(("127.0.0.1", address))
    assert not any("reloaded" in line for line in served.lines)


# Files that it names.


@pytest_twisted.ensureDeferred
async def test_passwords_without_a_file_of_configuration(tmp_path: Path) -> None:
    """Without --config, what the options name is read again at once."""
    passwords = tmp_path / "passwords"
    passwords.write_text("bob:old\n")
    options = Options(reactor)
    options.parseOptions(["-p", "0", "--auth", f"file:{passwords}"])
    service: Any = makeService(options)
    with heard() as lines:
        service.startService()
        try:
            portal = service.factory.sessions.context.authentication
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: lines and "reloaded" in lines[-1])
            assert lines[-1] == "reloaded: what the options name is in force from now on"
            assert service.factory.sessions.context.authentication is not portal
            passwords.unlink()
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: "cannot be read" in lines[-1])
        finally:
            await service.stopService()


@pytest_twisted.ensureDeferred
async def test_certificate(tmp_path: Path) -> None:
    """A listener that stays serves its new certificate; its port has not been closed for that."""
    pem = tmp_path / "proxy.pem"
    pem.write_bytes(self_signed())
    text = listening(f"ssl:0:interface=127.0.0.1:privateKey={pem}")
    async with serving(tmp_path / "socks.toml", text) as served:
        (address,) = served.addresses
        (port,) = served.service.ports

        def certificate() -> bytes | None:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with connect(address) as sock, context.wrap_socket(sock) as client:
                found = client.getpeercert(True)
                client.sendall(b"\x05\x01\x00")
                assert client.recv(2) == b"\x05\x00"
                return found

        before = await deferToThread(certificate)
        pem.write_bytes(self_signed())
        assert await served.reload() == [f"reloaded: {served.path} is in force from now on"]
        assert served.service.ports == [port]
        after = await deferToThread(certificate)
        assert before != after
        pem.write_bytes(b"nonsense")
        assert "not reloaded" in (await served.reload())[0]
        assert await deferToThread(certificate) == after


@pytest_twisted.ensureDeferred
async def test_another_kind(tmp_path: Path, origin: Origin) -> None:
    """A port may stay and become another listener: with the PROXY protocol, or TLS, or without them again."""
    port = closed_port()
    pem = tmp_path / "proxy.pem"
    pem.write_bytes(self_signed())
    async with serving(tmp_path / "socks.toml", listening(at(port))) as served:
        address = ("127.0.0.1", port)
        ports = list(served.service.ports)
        assert await deferToThread(code, address, origin.port) == 0

        def balanced() -> None:
            with connect(address) as sock:
                sock.sendall(b"PROXY TCP4 127.0.0.1 127.0.0.1 5555 1080\r\n")
                assert ask5(sock, "127.0.0.1", origin.port)[0] == 0

        await served.reload(listening(f"haproxy:{at(port)}"))
        await deferToThread(balanced)
        await served.reload(listening(f"ssl:{port}:interface=127.0.0.1:privateKey={pem}"))
        await served.reload(listening(at(port)))
        assert await deferToThread(code, address, origin.port) == 0
        assert served.service.ports == ports
    assert not accepts(address)


@pytest_twisted.ensureDeferred
async def test_password_file(tmp_path: Path, origin: Origin) -> None:
    """Who is not in the file any more ends, a new password is asked for at once, and a new user comes in."""
    file = tmp_path / "users"
    file.write_text(f"bob:{hash_of('old')}\neve:{hash_of('old')}\n")
    text = listening(at(0), rest=f'[authentication]\nauth = ["htpasswd:{file}"]\n')
    async with serving(tmp_path / "socks.toml", text) as served:
        (address,) = served.addresses
        bob = await deferToThread(logged_in, address, "bob", "old", origin.port)
        eve = await deferToThread(logged_in, address, "eve", "old", origin.port)
        assert bob is not None
        assert eve is not None
        file.write_text(f"bob:{hash_of('new')}\nmallory:{hash_of('new')}\n")
        lines = await served.reload()
        assert "reloaded: " in lines[-1]
        assert await deferToThread(ends, eve)
        await deferToThread(echoes, bob)
        assert await deferToThread(logged_in, address, "bob", "old", origin.port) is None
        for user in ("bob", "mallory"):
            sock = await deferToThread(logged_in, address, user, "new", origin.port)
            assert sock is not None
            sock.close()
        bob.close()
        eve.close()


@pytest_twisted.ensureDeferred
async def test_users(tmp_path: Path, origin: Origin) -> None:
    """The session of a user who is disabled, has expired or is gone ends; groups count at once."""
    text = listening(at(0))
    users = {name: f'[users.{name}]\npassword = "{hash_of(name)}"\n' for name in "abcdef"}
    everybody = "".join(users.values())
    groups = "[groups.staff]\n"
    rule = '[[rule]]\nname = "all"\nallow = true\nnetworks = ["0.0.0.0/0"]\n'
    async with serving(tmp_path / "socks.toml", text + everybody + groups + rule) as served:
        (address,) = served.addresses
        socks = {}
        for name in users:
            socks[name] = await deferToThread(logged_in, address, name, name, origin.port)
            assert socks[name] is not None
        users["b"] += "disabled = true\n"
        users["c"] += "expires = 2020-01-01\n"
        del users["d"]
        users["e"] += 'groups = ["staff"]\n'
        rule = '[[rule]]\nname = "guests"\nallow = false\ngroups = ["staff"]\n' + rule
        lines = await served.reload(text + "".join(users.values()) + groups + rule)
        assert "reloaded: " in lines[-1]
        for name in "bcde":
            assert await deferToThread(ends, socks[name])  # type: ignore[arg-type]
        for name in "af":
            await deferToThread(echoes, socks[name])  # type: ignore[arg-type]
        for sock in socks.values():
            sock.close()  # type: ignore[union-attr]


@pytest_twisted.ensureDeferred
async def test_sets(tmp_path: Path, origin: Origin) -> None:
    """A set's file is loaded before its rules are in force, is looked at from then on, and then no more."""
    bad, other = tmp_path / "bad", tmp_path / "other"
    bad.write_text("# nothing\n")
    other.write_text("127.0.0.0/8\n")
    deny = '[[rule]]\nname = "bad"\nallow = false\nnetworks = ["bad"]\n'

    def text(file: Path) -> str:
        return listening(at(0), rest=f'[sets.bad]\nnetworks-file = "{file}"\n' + deny + ALL)

    async with serving(tmp_path / "socks.toml", text(bad)) as served:
        (address,) = served.addresses
        sock = await deferToThread(connected, address, origin.port)
        watched = served.service._set_files
        assert watched is not None
        assert [file.path for file in watched.files] == [str(bad)]
        await served.reload(text(other))
        assert await deferToThread(ends, sock)
        assert watched._timer is None
        sock.close()
        assert await deferToThread(code, address, origin.port) == 2
        watched = served.service._set_files
        assert watched is not None
        assert [file.path for file in watched.files] == [str(other)]
        assert watched._timer is not None
        lines = await served.reload(text(tmp_path / "none"))
        assert "not reloaded" in lines[0]
        assert "no such file" in lines[1].lower()
    assert watched._timer is None


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("when", ["the last moment", "a value that does not count"])
async def test_nothing_is_left_of_what_cannot_be(
    tmp_path: Path, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever it shows that a configuration cannot be in force, what was opened for it is closed again."""
    text = listening(at(0))
    async with serving(tmp_path / "socks.toml", text, "--connect-timeout=5") as served:
        before = open_files()
        more = f'[log]\nlog = "{tmp_path / "access.log"}"\n'
        if when == "the last moment":
            more += f'[limits]\nquota-file = "{tmp_path / "usage.sqlite"}"\n[limits.user]\ndaily = "1 GB"\n'
            refusing = served.service.factory

            def refuse(_: object) -> None:
                assert any(file.endswith("access.log") for file in open_files() - before)
                raise ValueError("it makes no sense")

            monkeypatch.setattr(refusing, "reconfigure", refuse)
        else:
            more += "[timeouts]\nconnect-timeout = -1\n"
        lines = await served.reload(text + more)
        assert "not reloaded" in lines[0]
        await until(lambda: open_files() <= before)
        await until(lambda: not any(thread.name == "quotas" for thread in threading.enumerate()))
        assert (tmp_path / "access.log").exists() is (when == "the last moment")


# Listeners.


@pytest_twisted.ensureDeferred
async def test_listeners(tmp_path: Path, origin: Origin) -> None:
    """Those that are not there yet open, those that are not wanted any more close, sessions go on."""
    one, two = closed_port(), closed_port()
    path = tmp_path / "socket"
    async with serving(tmp_path / "socks.toml", listening(at(one), f"unix:{path}")) as served:
        socks = [
            await deferToThread(connected, address, origin.port)
            for address in (("127.0.0.1", one), str(path))
        ]
        lines = await served.reload(listening(at(two), f"unix:{path}:mode=600"))
        assert f"listening on tcp:127.0.0.1:{two}" in lines
        assert lines[-1].endswith(f"; opened tcp:127.0.0.1:{two}, closed tcp:127.0.0.1:{one}")
        await until(lambda: not accepts(("127.0.0.1", one)))
        assert await deferToThread(code, ("127.0.0.1", two), origin.port) == 0
        assert await deferToThread(code, str(path), origin.port) == 0
        assert path.stat().st_mode & 0o777 == 0o600
        await served.reload(listening(at(two), f"unix:{path}"))
        assert path.stat().st_mode & 0o777 == 0o660
        own = served.service.factory.sessions.context.listeners
        assert own.include("127.0.0.1", two)
        assert not own.include("127.0.0.1", one)
        for sock in socks:
            await deferToThread(echoes, sock)
            sock.close()
    assert not path.exists()


@pytest_twisted.ensureDeferred
async def test_names_of_listeners(tmp_path: Path, origin: Origin) -> None:
    """Sessions are judged by what their listener is called from now on, also by rules of the new name."""
    one, two = closed_port(), closed_port()

    def text(first: str, second: str, allowed: str) -> str:
        rule = f'[[rule]]\nname = "all"\nallow = true\nnetworks = ["0.0.0.0/0"]\nlisteners = ["{allowed}"]\n'
        return listening(f"{first}={at(one)}", f"{second}={at(two)}", rest=rule)

    async with serving(tmp_path / "socks.toml", text("in", "out", "in")) as served:
        stays = await deferToThread(connected, ("127.0.0.1", one), origin.port)
        await served.reload(text("staff", "in", "staff"))
        await deferToThread(echoes, stays)
        assert await deferToThread(code, ("127.0.0.1", two), origin.port) == 2
        await served.reload(text("in", "staff", "staff"))
        assert await deferToThread(ends, stays)
        stays.close()


@pytest_twisted.ensureDeferred
async def test_listener_that_cannot_open(tmp_path: Path, origin: Origin) -> None:
    """If one cannot open, nothing changes: not the rules either, and those that could are closed again."""
    one, two = closed_port(), closed_port()
    async with serving(tmp_path / "socks.toml", listening(at(one))) as served:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            busy = taken.getsockname()[1]
            lines = await served.reload(listening(at(two), at(busy), rest=NOBODY))
        assert lines[0] == NOT_RELOADED
        assert lines[1] == f"cannot listen: {at(busy)}: address already in use"
        await until(lambda: not accepts(("127.0.0.1", two)))
        assert await deferToThread(code, ("127.0.0.1", one), origin.port) == 0
        # And nothing is kept of it that would be in the way of the next one.
        lines = await served.reload(listening(at(one), at(two)))
        assert lines[-1].endswith(f"opened tcp:127.0.0.1:{two}")
        assert await deferToThread(code, ("127.0.0.1", two), origin.port) == 0


@pytest_twisted.ensureDeferred
async def test_open_to_all(tmp_path: Path) -> None:
    """A listener that stays is refused where every client that reaches it could use the proxy."""
    text = listening("tcp:0", rest='[authentication]\nauth = ["memory:bob:secret"]\n')
    async with serving(tmp_path / "socks.toml", text) as served:
        lines = await served.reload(listening("tcp:0"))
        assert "is not on a loopback address" in lines[-1]
        assert served.service.factory.sessions.context.authentication is not None


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("kind", ["tcp", "ssl"])
async def test_not_one_refused(tmp_path: Path, origin: Origin, kind: str) -> None:
    """Clients come all the time, and each of them is served, while it is reloaded twenty times."""
    pem = tmp_path / "proxy.pem"
    pem.write_bytes(self_signed())
    rest = "" if kind == "tcp" else f":privateKey={pem}"
    text = listening(f"{kind}:0:interface=127.0.0.1{rest}")
    async with serving(tmp_path / "socks.toml", text) as served:
        (address,) = served.addresses
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        over = threading.Event()
        codes: list[int] = []

        def come() -> None:
            while not over.is_set():
                with connect(address) as sock:
                    client = sock if kind == "tcp" else context.wrap_socket(sock)
                    with client:
                        codes.append(ask5(client, "127.0.0.1", origin.port)[0])

        coming = [deferToThread(come) for _ in range(3)]
        for number in range(20):
            pem.write_bytes(self_signed())
            lines = await served.reload(text + (ALL if number % 2 else ""))
            assert "reloaded: " in lines[-1]
            count = len(codes)
            await until(lambda count=count: len(codes) > count)  # type: ignore[misc]
        over.set()
        for each in coming:
            await each  # what a client could not do is raised here
        assert set(codes) == {0}


@pytest_twisted.ensureDeferred
async def test_systemd(tmp_path: Path) -> None:
    """
    A socket that systemd has passed is taken once, and stays; Twisted has closed the descriptor since.

    Whatever has its number by now is left alone.
    """
    with socket.socket() as listening_socket:
        listening_socket.bind(("127.0.0.1", 0))
        listening_socket.listen()
        address = listening_socket.getsockname()
        descriptor = os.dup(listening_socket.fileno())
    resources = Resources(reactor)
    factory = Factory()
    factory.noisy = False
    endpoint = AdoptedStreamServerEndpoint(resources.reactor_for(0), descriptor, socket.AF_INET)
    resources.keeper.prepare(endpoint)
    port = await endpoint.listen(factory)
    assert resources.keeper.enter() == []
    other = os.open(tmp_path / "other", os.O_CREAT)
    if other != descriptor:
        os.dup2(other, descriptor)
        os.close(other)
    following = resources.successor()
    endpoint = AdoptedStreamServerEndpoint(following.reactor_for(0), descriptor, socket.AF_INET)
    following.keeper.prepare(endpoint)
    assert await endpoint.listen(factory) is port
    assert following.keeper.enter() == []
    os.fstat(descriptor)
    without = following.successor()
    assert without.keeper.enter() == [port]
    later = without.successor()
    endpoint = AdoptedStreamServerEndpoint(later.reactor_for(0), descriptor, socket.AF_INET)
    later.keeper.prepare(endpoint)
    with pytest.raises(CannotListenError, match="only a restart"):
        await endpoint.listen(factory)
    os.close(descriptor)
    await port.stopListening()
    assert not accepts(address)


# As an operator has it.


def test_twistd(tmp_path: Path, start: Callable[..., Program], origin: Origin) -> None:
    """A real process: SIGHUP with rules, with a mistake, with a listener more, and its end."""
    one, two = closed_port(), closed_port()
    config = tmp_path / "socks.toml"
    config.write_text(listening(at(one)))
    program = start([*TWISTD, "-n", "--pidfile=", "socks", "--config", config.name])
    program.wait_for(rf"listening on tcp:127.0.0.1:{one}")
    sock = connected(("127.0.0.1", one), origin.port)

    def hang_up(text: str, pattern: str) -> None:
        config.write_text(text)
        program.process.send_signal(signal.SIGHUP)
        program.wait_for(pattern)

    hang_up(
        "[listeners]\nport = 'x'\n",
        rf"{NOT_RELOADED}(.|\n)*port = \"x\"",
    )
    echoes(sock)
    hang_up(listening(at(one), at(two), rest=ALL), rf"reloaded: socks.toml is in force.*opened .*:{two}")
    echoes(sock)
    assert code(("127.0.0.1", two), origin.port) == 0
    hang_up(listening(at(one), rest=NOBODY), rf"reloaded: .*closed .*:{two}")
    assert ends(sock)
    sock.close()
    assert code(("127.0.0.1", one), origin.port) == 2
    program.stop()
    assert "Traceback" not in program.output
    assert "Unhandled" not in program.output


@pytest_twisted.ensureDeferred
async def test_a_service_that_was_stopped_meanwhile(tmp_path: Path, origin: Origin) -> None:
    """Stopped, started and told to reload: what listens is what was opened last."""
    port = closed_port()
    async with serving(tmp_path / "socks.toml", listening(at(port))) as served:
        served.service.end_now = lambda: None  # type: ignore[method-assign]
        await served.service.stopService()
        served.service.startService()
        assert "mistake" not in "".join(await served.reload())
        assert served.addresses == [("127.0.0.1", port)]
        (await deferToThread(connected, served.addresses[0], origin.port)).close()


@pytest_twisted.ensureDeferred
async def test_a_log_that_a_reload_brings(tmp_path: Path, origin: Origin) -> None:
    """SIGUSR1 opens it again like any other."""
    log = tmp_path / "access.log"
    listeners = listening(at(closed_port()))
    async with serving(tmp_path / "socks.toml", listeners) as served:
        await served.reload(f"{listeners}[log]\nlog = '{log}'\n")
        (await deferToThread(connected, served.addresses[0], origin.port)).close()
        await until(lambda: log.read_text().count("\n") == 1)
        log.rename(tmp_path / "old.log")
        os.kill(os.getpid(), signal.SIGUSR1)
        await until(log.exists)
