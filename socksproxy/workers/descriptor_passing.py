"""
Listening sockets and files, from the supervisor to its workers.

Both parse the same options and make the same endpoints of them; what differs is
the reactor that an endpoint listens with. The supervisor's opens ports and
accepts nobody, and notes them; a worker's takes the next of these ports for
each that the endpoint asks for. So all that an endpoint does besides, such as TLS
or the PROXY protocol, is the endpoint's own work in the worker.

All workers accept from one socket. With a socket for each (SO_REUSEPORT), clients in the queue
of a worker that was killed waited until it was replaced (0.47 s against 0.10 s at the most, under
load) and would wait through its back-off. Which of the two serves more sessions could not be told
apart on two cores that the load and other work shared.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.logger import Logger
from zope.interface import directlyProvides, providedBy

from ..logs.access_log import AccessLog
from ..runtime.files import read_regular_file
from ..server.sockets import also_plain
from ..service.port_keeper import PortKeeper
from ..service.resources import Resources

_log = Logger(namespace="socksproxy")

#: Where Linux shows a process its own descriptors as files.
_DESCRIPTORS = Path("/proc/self/fd")

#: What names a file in the description of an endpoint with TLS, and the name, in which ``\`` quotes.
_FILE = re.compile(r"\b(privateKey|certKey|extraCertChain|dhParameters)=((?:\\.|[^:\\])+)")


class _ListeningReactor:
    """
    A reactor for endpoints.

    :param reactor: does all but listening.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


class _StillReactor(_ListeningReactor):
    """A reactor whose listening ports accept nobody."""

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        return _still(self._reactor.listenTCP(port, factory, backlog, interface))

    def listenUNIX(
        self, address: Any, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: bool = False
    ) -> Any:
        return _still(self._reactor.listenUNIX(address, factory, backlog, mode, wantPID))

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        return _still(self._reactor.adoptStreamPort(fileDescriptor, addressFamily, factory))


def _still(port: Any) -> Any:
    port.stopReading()
    # Twisted shuts its sockets down when it closes them. This one is the workers', too,
    # who are about to close theirs, and would wonder what became of it.
    port._shouldShutdown = False
    return port


class _NotingReactor(_ListeningReactor):
    """
    A reactor that tells what listens.

    :param reactor: listens, and does all else.
    :param note: is told of each port, and of the number that its descriptor must have in a worker, or None.
    """

    def __init__(self, reactor: Any, note: Callable[[Any, int | None], None]) -> None:
        super().__init__(reactor)
        self._note = note

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        return self._noted(self._reactor.listenTCP(port, factory, backlog, interface))

    def listenSSL(
        self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = ""
    ) -> Any:
        return self.listenTCP(port, factory, backlog, interface)

    def listenUNIX(
        self, address: Any, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: bool = False
    ) -> Any:
        return self._noted(self._reactor.listenUNIX(address, factory, backlog, mode, wantPID))

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        # Whoever passed this descriptor to the process is asked for it by its number, in a worker too.
        port = self._reactor.adoptStreamPort(fileDescriptor, addressFamily, factory)
        return self._noted(port, fileDescriptor)

    def _noted(self, port: Any, number: int | None = None) -> Any:
        self._note(port, number)
        return port


class SupervisorResources(Resources):
    """
    Opens things for workers.

    :param reactor: listens.
    :param before: what opened things for the configuration before this one.
    :ivar ports: by listener, the ports that it has, each with the
        number that its descriptor must have in a worker, or None.
    :ivar files: what was read from the files that endpoints
        name. A worker that starts when privileges are gone could not read them.
    """

    def __init__(self, reactor: Any, before: Resources | None = None) -> None:
        super().__init__(reactor, before)
        self.ports: dict[int, list[tuple[Any, int | None]]] = {}
        self.files: dict[str, bytes] = {}
        self._files_before = before.files if isinstance(before, SupervisorResources) else {}

    def successor(self) -> SupervisorResources:
        """See :meth:`Resources.successor`."""
        return SupervisorResources(self.reactor, self)

    def reactor_for(self, listener: int) -> Any:
        """See :meth:`Resources.reactor_for`."""
        ports = self.ports[listener] = []
        listening = self.keeper.reactor(_StillReactor(self.reactor))
        return _NotingReactor(listening, lambda port, number: ports.append((port, number)))

    def endpoint(self, listener: int, description: str) -> IStreamServerEndpoint:
        """See :meth:`Resources.endpoint`."""
        names = [_unquoted(name) for _, name in _FILE.findall(description)]
        try:
            endpoint = super().endpoint(listener, description)
        except PermissionError:
            # What was read when there were privileges is all there is now.
            if not names or not all(name in self._files_before for name in names):
                raise
            return self._endpoint_as_before(listener, description, names)
        for name in names:
            self._keep_file(name)
        return endpoint

    def _endpoint_as_before(
        self, listener: int, description: str, names: Sequence[str]
    ) -> IStreamServerEndpoint:
        with ExitStack() as stack:
            files = {}
            for name in names:
                self.files[name] = self._files_before[name]
                files[name] = file_of(self.files[name])
                stack.callback(os.close, files[name])
            endpoint = super().endpoint(listener, _with_files(description, files))
        _log.warn(
            "{description}: its files may not be read again, and stay as they were", description=description
        )
        return endpoint

    def forget_ports(self) -> None:
        """The ports are closed."""
        for ports in self.ports.values():
            ports.clear()

    def _keep_file(self, name: str) -> None:
        if name in self.files or not (hasattr(os, "memfd_create") and _DESCRIPTORS.is_dir()):
            return
        self.files[name] = read_regular_file(name).data


class _AdoptingReactor(_ListeningReactor):
    """
    A reactor on which what listens has been opened already.

    :ivar descriptor: of what listens next.
    """

    descriptor = -1

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        return self._adopted(factory)

    def listenSSL(
        self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = ""
    ) -> Any:
        from twisted.protocols.tls import TLSMemoryBIOFactory

        return self._adopted(TLSMemoryBIOFactory(contextFactory, False, factory))

    def listenUNIX(
        self, address: Any, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: bool = False
    ) -> Any:
        return self._adopted(factory)

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        if addressFamily != socket.AF_UNIX:
            return self._reactor.adoptStreamPort(fileDescriptor, addressFamily, factory)
        # Twisted's own would give the file other permissions, and remove it at the end of one worker.
        listening = socket.fromfd(fileDescriptor, addressFamily, socket.SOCK_STREAM)
        port = SharedUNIXPort(listening, factory, self._reactor)
        port.startListening()
        return port

    def _adopted(self, factory: Any) -> Any:
        with socket.socket(fileno=os.dup(self.descriptor)) as listening:
            return self.adoptStreamPort(self.descriptor, listening.family, factory)


class _InheritedReactor(_ListeningReactor):
    """
    A reactor that takes what the supervisor has opened, in the order in which it has.

    :param adopting: takes a port that is new here.
    :param keeper: knows those that are not.
    :param descriptors: the ports; one that has been taken is closed.
    """

    def __init__(self, adopting: _AdoptingReactor, keeper: PortKeeper, descriptors: list[int]) -> None:
        super().__init__(keeper.reactor(adopting))
        self._adopting = adopting
        self._descriptors = descriptors

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        with self._next(interface, port):
            return self._reactor.listenTCP(port, factory, backlog, interface)

    def listenSSL(
        self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = ""
    ) -> Any:
        with self._next(interface, port):
            return self._reactor.listenSSL(port, factory, contextFactory, backlog, interface)

    def listenUNIX(
        self, address: Any, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: bool = False
    ) -> Any:
        with self._next(None, address):
            return self._reactor.listenUNIX(address, factory, backlog, mode, wantPID)

    @contextmanager
    def _next(self, interface: Any, port: Any) -> Iterator[None]:
        if not self._descriptors:
            raise CannotListenError(interface, port, OSError(0, "the supervisor has not opened it"))
        self._adopting.descriptor = self._descriptors.pop(0)
        try:
            yield
        finally:
            os.close(self._adopting.descriptor)


@also_plain
class SharedUNIXPort(unix.Port):
    """
    A Unix port whose file is somebody else's.

    :param listening: the socket.
    :param factory: serves the clients.
    :param reactor: watches it.
    """

    _shouldShutdown = False

    def __init__(self, listening: socket.socket, factory: Any, reactor: Any) -> None:
        super().__init__(listening.getsockname(), factory, reactor=reactor)
        listening.setblocking(False)
        self.socket = listening

    def startListening(self) -> None:
        """See :meth:`twisted.internet.interfaces.IListeningPort.startListening`."""
        self.factory.doStart()  # type: ignore[union-attr]
        self.connected = True
        self.fileno = self.socket.fileno  # type: ignore[method-assign]
        self.numberAccepts = 100
        self.startReading()

    def connectionLost(self, reason: Any) -> None:
        """See :meth:`twisted.internet.interfaces.IFileDescriptor.connectionLost`."""
        tcp.Port.connectionLost(self, reason)


class WorkerResources(Resources):
    """
    Takes what a supervisor has opened.

    :param reactor: listens.
    :param listeners: by listener, the descriptors of its ports.
    :param files: descriptors with what the files of these names hold.
    :param log: the descriptor of the access log, and where that is.
    :param before: what took things for the configuration before this one.
    """

    def __init__(
        self,
        reactor: Any,
        listeners: Sequence[Sequence[int]],
        files: Mapping[str, int],
        log: tuple[int, str] | None,
        before: Resources | None = None,
    ) -> None:
        super().__init__(reactor, before)
        self._listeners = [list(descriptors) for descriptors in listeners]
        self._files = files
        self._given_log = log

    def reactor_for(self, listener: int) -> Any:
        """See :meth:`Resources.reactor_for`."""
        return _InheritedReactor(_AdoptingReactor(self.reactor), self.keeper, self._listeners[listener])

    def endpoint(self, listener: int, description: str) -> IStreamServerEndpoint:
        """See :meth:`Resources.endpoint`."""
        return super().endpoint(listener, _with_files(description, self._files))

    def separate(self, endpoints: Sequence[IStreamServerEndpoint]) -> None:
        """See :meth:`Resources.separate`; the supervisor has opened all ports as they have to be."""

    def access_log(self, path: str, format: str) -> AccessLog:
        """See :meth:`Resources.access_log`."""
        if self._given_log is None:
            return super().access_log(path, format)
        (descriptor, path), self._given_log = self._given_log, None
        before = self._log_before
        if before is not None and (before.path, before.format) == (path, format):
            os.close(descriptor)
            self.log = before
        else:
            self.log = AccessLog(path, format, descriptor=descriptor)
        return self.log

    def close_rest(self) -> None:
        """Nothing more is taken of what was given: that is closed."""
        descriptors = [*chain.from_iterable(self._listeners), *self._files.values()]
        if self._given_log is not None:
            descriptors.append(self._given_log[0])
        for descriptor in descriptors:
            os.close(descriptor)
        for ports in self._listeners:
            ports.clear()
        self._files, self._given_log = {}, None


def _with_files(description: str, files: Mapping[str, int]) -> str:
    """*description*, with the descriptors of *files* in place of their names."""

    def kept(match: re.Match[str]) -> str:
        descriptor = files.get(_unquoted(match[2]))
        return match[0] if descriptor is None else f"{match[1]}={_DESCRIPTORS}/{descriptor}"

    return _FILE.sub(kept, description)


def file_of(data: bytes) -> int:
    """The descriptor of a file that holds *data*, in memory where there is such a thing."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("socksproxy")
    else:
        with TemporaryFile() as made:
            descriptor = os.dup(made.fileno())
    with open(descriptor, "wb", closefd=False) as file:
        file.write(data)
    return descriptor


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)
