"""See :mod:`socksproxy.workers.descriptor_passing`."""

from __future__ import annotations

import os
import socket
import ssl
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorSocket, IReactorTCP, IReactorUNIX
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.python.filepath import FilePath

from socksproxy import SOCKSFactory
from socksproxy.twisted_internals import SharedUNIXPort
from socksproxy.workers import descriptor_passing as module
from socksproxy.workers.descriptor_passing import SupervisorResources, WorkerResources, file_of

from ..support.certificates import self_signed
from ..support.logs import heard
from ..support.processes import PATIENCE

TCP = "tcp:0:interface=127.0.0.1:backlog=7"


class Hello(Protocol):
    """Says who it is, and where it thinks its client is."""

    factory: Any
    transport: Any

    def connectionMade(self) -> None:
        if not self.factory.waits:
            self.say()

    def dataReceived(self, data: bytes) -> None:
        self.say()

    def say(self) -> None:
        peer = self.transport.getPeer()
        self.transport.write(f"{self.factory.name} {getattr(peer, 'host', None)}".encode())
        self.transport.loseConnection()


class HelloFactory(Factory):
    """Serves one worker's clients. :param waits: until the client has said something."""

    noisy = False
    protocol = Hello

    def __init__(self, name: str, waits: bool = False) -> None:
        self.name = name
        self.waits = waits


async def opened(description: str) -> tuple[SupervisorResources, Any]:
    """What a supervisor opens for *description*, and its port."""
    resources = SupervisorResources(reactor)
    port = await resources.endpoint(0, description).listen(HelloFactory("supervisor"))
    return resources, port


async def inherited(resources: SupervisorResources, description: str, factory: Factory) -> Any:
    """The port of a worker, which is in this process too, and so has descriptors of its own."""
    descriptors = [os.dup(port.fileno()) for port, _ in resources.ports[0]]
    files = {name: file_of(data) for name, data in resources.files.items()}
    worker = WorkerResources(reactor, [descriptors], files, None)
    return await worker.endpoint(0, description).listen(factory)


def asks(family: int, address: Any, first: bytes = b"") -> Deferred[str]:
    """What a client at *address* is told, to the end."""

    def client() -> str:
        with socket.socket(family) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(address)
            if first:
                sock.sendall(first)
            said = b""
            while data := sock.recv(100):
                said += data
        return said.decode()

    return deferToThread(client)


@pytest_twisted.ensureDeferred
async def test_tcp() -> None:
    """The supervisor accepts nobody; a client that came before the workers is served by one of them."""
    resources, port = await opened(TCP)
    number = port.getHost().port
    answer = asks(socket.AF_INET, ("127.0.0.1", number))
    worker = await inherited(resources, TCP, HelloFactory("worker"))
    assert await answer == "worker 127.0.0.1"
    assert worker.getHost() == port.getHost()
    await worker.stopListening()
    # The end of one worker is not the end of the listener.
    answer = asks(socket.AF_INET, ("127.0.0.1", number))
    another = await inherited(resources, TCP, HelloFactory("another"))
    assert await answer == "another 127.0.0.1"
    # Nor is that of the supervisor the end of a worker.
    await port.stopListening()
    assert await asks(socket.AF_INET, ("127.0.0.1", number)) == "another 127.0.0.1"
    await another.stopListening()


@pytest_twisted.ensureDeferred
async def test_unix(tmp_path: Path) -> None:
    """The file of a Unix socket is the supervisor's: its permissions stay, and it goes when that goes."""
    path = tmp_path / "socks"
    description = f"unix:{path}:mode=640"
    resources, port = await opened(description)
    worker = await inherited(resources, description, HelloFactory("worker"))
    assert isinstance(worker, SharedUNIXPort)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert await asks(socket.AF_UNIX, str(path)) == "worker None"
    await worker.stopListening()
    assert path.exists()
    another = await inherited(resources, description, HelloFactory("another"))
    assert await asks(socket.AF_UNIX, str(path)) == "another None"
    await another.stopListening()
    await port.stopListening()
    assert not path.exists()


@pytest.mark.parametrize("path", ["engine", "transports"])
@pytest_twisted.ensureDeferred
async def test_unix_accepts_as_ever(path: str, tmp_path: Path) -> None:
    """SOCKS over an inherited Unix socket takes the same fast way as over one's own."""
    description = f"unix:{tmp_path / 'socks'}"
    resources, port = await opened(description)
    factory = SOCKSFactory(reactor, engine=path == "engine")
    worker = await inherited(resources, description, factory)
    for _ in range(2):
        # SOCKS4: refused, as the command is unknown.
        answer = await asks(socket.AF_UNIX, str(tmp_path / "socks"), b"\x04\x09\0\1\1\2\3\4\0")
        assert answer[:2] == "\0["
    taken = "Acceptor" in repr(worker.doRead)
    assert taken == (path == "engine")
    await worker.stopListening()
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_haproxy() -> None:
    """What wraps a port is made anew in each worker: the balancer's client is the client."""
    description = f"haproxy:{TCP}"
    resources, port = await opened(description)
    worker = await inherited(resources, description, HelloFactory("worker", waits=True))
    header = b"PROXY TCP4 192.0.2.7 192.0.2.1 1234 1080\r\nhello"
    number = port.getHost().port
    assert await asks(socket.AF_INET, ("127.0.0.1", number), header) == "worker 192.0.2.7"
    await worker.stopListening()
    await port.stopListening()


def speaks_tls(number: int, pem: bytes) -> Deferred[str]:
    def client() -> str:
        context = ssl.create_default_context(cadata=pem[pem.index(b"-----BEGIN CERT") :].decode())
        with (
            socket.create_connection(("127.0.0.1", number), PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as sock,
        ):
            return sock.recv(100).decode()

    return deferToThread(client)


@pytest_twisted.ensureDeferred
async def test_tls(tmp_path: Path) -> None:
    """A worker has the key as the supervisor read it, though the file is out of reach by then."""
    pem = tmp_path / "it's:here.pem"
    pem.write_bytes(self_signed())
    name = str(pem).replace(":", r"\:")
    description = f"ssl:0:interface=127.0.0.1:privateKey={name}:certKey={name}"
    resources, port = await opened(description)
    data = pem.read_bytes()
    pem.unlink()
    for name in ("worker", "another"):
        worker = await inherited(resources, description, HelloFactory(name))
        assert await speaks_tls(port.getHost().port, data) == f"{name} 127.0.0.1"
        await worker.stopListening()
    await port.stopListening()


def test_tls_without_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no /proc, the worker reads the file itself."""
    pem = tmp_path / "proxy.pem"
    pem.write_bytes(self_signed())
    description = f"ssl:0:interface=127.0.0.1:privateKey={pem}"
    monkeypatch.setattr(module, "_DESCRIPTORS", tmp_path / "nothing")
    resources = SupervisorResources(reactor)
    resources.endpoint(0, description)
    assert resources.files == {}
    assert WorkerResources(reactor, [[]], {}, None).endpoint(0, description)
    pem.unlink()
    with pytest.raises(OSError, match="No such file"):
        WorkerResources(reactor, [[]], {}, None).endpoint(0, description)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
@pytest_twisted.ensureDeferred
async def test_adopted(family: int, tmp_path: Path) -> None:
    """A socket that was passed to the supervisor is passed on under its number."""
    address: Any = ("127.0.0.1", 0) if family == socket.AF_INET else str(tmp_path / "socks")
    with socket.socket(family) as listening:
        listening.bind(address)
        listening.listen()
        address = listening.getsockname()
        resources = SupervisorResources(reactor)
        given: Any = resources.reactor_for(0)
        number = os.dup(listening.fileno())
        os.set_blocking(number, False)
        port = given.adoptStreamPort(number, family, HelloFactory("supervisor"))
        assert [kept for _, kept in resources.ports[0]] == [number]
        worker_reactor: Any = WorkerResources(reactor, [[]], {}, None).reactor_for(0)
        worker = worker_reactor.adoptStreamPort(number, family, HelloFactory("worker"))
        assert (await asks(family, address)).startswith("worker")
        await worker.stopListening()
        if family == socket.AF_UNIX:
            assert Path(address).exists()
        await port.stopListening()
        os.close(number)


@pytest_twisted.ensureDeferred
async def test_more_than_was_opened() -> None:
    """An endpoint that opens more in a worker than it did in the supervisor is an error, not another port."""
    _, port = await opened(TCP)
    given: Any = WorkerResources(reactor, [[]], {}, None).reactor_for(0)
    with pytest.raises(CannotListenError, match="the supervisor has not opened it"):
        given.listenTCP(0, HelloFactory("worker"))
    await port.stopListening()


@pytest.mark.parametrize(
    "make", [lambda: SupervisorResources(reactor), lambda: WorkerResources(reactor, [[]], {}, None)]
)
def test_reactor_of_the_same_kind(make: Callable[[], Any]) -> None:
    """Endpoints that ask what the reactor can do get the same answer as ever, and all else works."""
    given = make().reactor_for(0)
    for interface in (IReactorTCP, IReactorUNIX, IReactorSocket):
        assert interface.providedBy(given)
    assert given.seconds() > 0


def test_access_log(tmp_path: Path) -> None:
    """A worker writes into the file that the supervisor has opened, and knows where a new one is to be."""
    shared = SupervisorResources(reactor)
    log = shared.access_log(str(tmp_path / "access.log"), "text")
    (tmp_path / "access.log").rename(tmp_path / "old")
    descriptor = os.dup(log.fileno())
    worker = WorkerResources(reactor, [], {}, (descriptor, log.path)).access_log("access.log", "text")
    worker({"log_time": 0.0})
    assert (tmp_path / "old").read_text().count("\n") == 1
    worker.reopen()
    worker({"log_time": 0.0})
    assert (tmp_path / "access.log").read_text().count("\n") == 1
    worker.close()
    log.close()


# Another configuration.


def told(shared: SupervisorResources, before: WorkerResources | None) -> WorkerResources:
    """What a worker, in this process too, is told of *shared*."""
    listeners = [[os.dup(port.fileno()) for port, _ in ports] for ports in shared.ports.values()]
    return WorkerResources(reactor, listeners, {}, None, before)


async def all_of(resources: Any, descriptions: list[str], name: str) -> list[Any]:
    """The ports of a configuration, in force."""
    endpoints = [resources.endpoint(number, one) for number, one in enumerate(descriptions)]
    ports = [await endpoint.listen(HelloFactory(name)) for endpoint in endpoints]
    for port in resources.keeper.enter():
        await port.stopListening()
    return ports


@pytest_twisted.ensureDeferred
async def test_again(tmp_path: Path) -> None:
    """Ports that stay are the same in supervisor and worker, in whatever order; the others open and close."""
    unix = f"unix:{tmp_path / 'socks'}"
    first = SupervisorResources(reactor)
    ports = await all_of(first, [TCP, unix, TCP], "supervisor")
    worker = told(first, None)
    theirs = await all_of(worker, [TCP, unix, TCP], "before")
    second = first.successor()
    assert isinstance(second, SupervisorResources)
    again = await all_of(second, [unix, TCP, TCP, TCP], "supervisor")
    again[3].stopReading()
    assert again[:3] == [ports[1], ports[0], ports[2]]
    inherited = told(second, worker)
    now = await all_of(inherited, [unix, TCP, TCP, TCP], "after")
    assert now[:3] == [theirs[1], theirs[0], theirs[2]]
    assert [port.getHost() for port in now[1:]] == [port.getHost() for port in again[1:]]
    for port in now[1:]:
        assert await asks(socket.AF_INET, ("127.0.0.1", port.getHost().port)) == "after 127.0.0.1"
    assert await asks(socket.AF_UNIX, str(tmp_path / "socks")) == "after None"
    closed = again[3].getHost().port
    third = second.successor()
    await all_of(third, [TCP], "supervisor")
    (left,) = await all_of(told(third, inherited), [TCP], "at last")
    number = left.getHost().port
    assert number == ports[0].getHost().port
    assert await asks(socket.AF_INET, ("127.0.0.1", number)) == "at last 127.0.0.1"
    with pytest.raises(ConnectionRefusedError):
        await asks(socket.AF_INET, ("127.0.0.1", closed))
    assert not (tmp_path / "socks").exists()
    await left.stopListening()
    await ports[0].stopListening()


@pytest_twisted.ensureDeferred
async def test_tls_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that may not be read any more stays as it was; one that was never read is a mistake."""
    pem = tmp_path / "proxy.pem"
    pem.write_bytes(self_signed())
    description = f"ssl:0:interface=127.0.0.1:privateKey={pem}"
    resources, port = await opened(description)
    data = pem.read_bytes()
    content = FilePath.getContent

    def get_content(self: Any, *more: Any) -> bytes:
        if self.path == str(pem):
            raise PermissionError(13, "Permission denied", str(pem))
        return content(self, *more)

    monkeypatch.setattr(FilePath, "getContent", get_content)
    second = resources.successor()
    with heard() as lines:
        await second.endpoint(0, description).listen(HelloFactory("supervisor"))
    assert lines == [f"{description}: its files cannot be read again, and what was read before stays in use"]
    assert second.files == {str(pem): data}
    with pytest.raises(PermissionError):
        SupervisorResources(reactor).endpoint(0, description)
    worker = await inherited(second, description, HelloFactory("worker"))
    assert await speaks_tls(port.getHost().port, data) == "worker 127.0.0.1"
    await worker.stopListening()
    await port.stopListening()


def test_close_rest() -> None:
    """What was given and not taken is closed, once."""
    descriptors = [file_of(b"") for _ in range(4)]
    resources = WorkerResources(reactor, [descriptors[:2]], {"a": descriptors[2]}, (descriptors[3], "/log"))
    resources.close_rest()
    for descriptor in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
    resources.close_rest()


def test_access_log_again(tmp_path: Path) -> None:
    """The log that is the same stays open, and what was passed for it is closed."""
    shared = SupervisorResources(reactor)
    path = str(tmp_path / "access.log")
    log = shared.access_log(path, "text")
    first = WorkerResources(reactor, [], {}, (os.dup(log.fileno()), path))
    ours = first.access_log("access.log", "text")
    passed = os.dup(log.fileno())
    second = WorkerResources(reactor, [], {}, (passed, path), first)
    assert second.access_log("access.log", "text") is ours
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(passed)
    third = WorkerResources(reactor, [], {}, (os.dup(log.fileno()), path), second)
    other = third.access_log("access.log", "json")
    assert other is not ours
    for one in (log, ours, other):
        one.close()
