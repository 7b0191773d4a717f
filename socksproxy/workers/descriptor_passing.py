"""
Listening sockets and files, from the supervisor to its workers.

Strategy: the supervisor and its workers parse the same options and make the same endpoints of them. An
endpoint asks for ports in the same order in each process. The supervisor opens them, accepts no client, and
passes the descriptors on. A worker adopts the next descriptor for each port that its endpoint asks for. So
TLS and the PROXY protocol are the endpoint's own work, in the worker. The files that endpoints name go the
same way, because a worker that starts after the loss of privileges could not read them.

All workers accept from one socket. With a socket for each (SO_REUSEPORT), clients in the queue
of a worker that was killed waited until it was replaced (0.47 s against 0.10 s at the most, under
load) and would wait through its back-off. Which of the two serves more sessions could not be told
apart on two cores that the load and other work shared.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.logger import Logger

from ..logs.access_log import AccessLog
from ..net.endpoints import unquoted
from ..net.listening_reactor import PortKind, PortRequest
from ..net.resources import Resources
from ..runtime.files import read_regular_file
from ..runtime.shared_file import memory_file
from ..twisted_internals import SharedUNIXPort, keep_socket_open

_log = Logger(namespace="socksproxy")

#: Where Linux shows a process its own descriptors as files.
_DESCRIPTORS = Path("/proc/self/fd")

#: What names a file in the description of an endpoint with TLS, and the name, in which ``\`` quotes.
_FILE = re.compile(r"\b(privateKey|certKey|extraCertChain|dhParameters)=((?:\\.|[^:\\])+)")


class SupervisorResources(Resources):
    """
    The supervisor's resources, which its workers use.

    :param reactor: listens.
    :param before: the resources of the configuration before this one.
    :ivar ports: by listener, its ports, each with the number that its descriptor must have in a worker, or
        None.
    :ivar files: the content of the files that endpoints name. A worker that starts after the loss of
        privileges could not read them.
    """

    def __init__(self, reactor: Any, before: Resources | None = None) -> None:
        super().__init__(reactor, before)
        self.ports: dict[int, list[tuple[Any, int | None]]] = {}
        self.files: dict[str, bytes] = {}
        self._files_before = before.files if isinstance(before, SupervisorResources) else {}

    def successor(self) -> SupervisorResources:
        """See :meth:`Resources.successor`."""
        return SupervisorResources(self.reactor, self)

    def open_port(self, listener: int, request: PortRequest) -> Any:
        """See :meth:`Resources.open_port`; the port is noted for the workers."""
        port = super().open_port(listener, request)
        # A program that passes a descriptor to a process names its number, in a worker too.
        fixed = request.place[0] if request.kind is PortKind.ADOPTED else None
        self.ports.setdefault(listener, []).append((port, fixed))
        return port

    def listen(self, request: PortRequest) -> Any:
        """See :meth:`Resources.listen`; the port accepts no client, and its socket outlives it."""
        port = super().listen(request)
        port.stopReading()
        keep_socket_open(port)
        return port

    def endpoint(self, listener: int, description: str) -> IStreamServerEndpoint:
        """See :meth:`Resources.endpoint`."""
        names = [unquoted(name) for _, name in _FILE.findall(description)]
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
            "{description}: its files cannot be read again, and what was read before stays in use",
            description=description,
        )
        return endpoint

    def forget_ports(self) -> None:
        """All ports are closed."""
        for ports in self.ports.values():
            ports.clear()

    def _keep_file(self, name: str) -> None:
        if name in self.files or not (hasattr(os, "memfd_create") and _DESCRIPTORS.is_dir()):
            return
        self.files[name] = read_regular_file(name).data


class WorkerResources(Resources):
    """
    A worker's resources, which the supervisor has opened.

    :param reactor: listens.
    :param listeners: by listener, the descriptors of its ports.
    :param files: by the name of a file, a descriptor with its content.
    :param log: the descriptor and the path of the access log.
    :param before: the resources of the configuration before this one.
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

    def open_port(self, listener: int, request: PortRequest) -> Any:
        """See :meth:`Resources.open_port`; the supervisor has opened the ports in the same order."""
        if request.kind is PortKind.ADOPTED:
            return super().open_port(listener, request)
        if not self._listeners[listener]:
            raise CannotListenError(*request.place, OSError(0, "the supervisor has not opened it"))
        descriptor = self._listeners[listener].pop(0)
        try:
            return self.keeper.open(request, lambda _: self._adopt(descriptor, request.factory))
        finally:
            os.close(descriptor)

    def listen(self, request: PortRequest) -> Any:
        """See :meth:`Resources.listen`."""
        return self._adopt(request.place[0], request.factory)

    def _adopt(self, descriptor: int, factory: Any) -> Any:
        listening = socket.socket(fileno=os.dup(descriptor))
        if listening.family != socket.AF_UNIX:
            with listening:
                return self.reactor.adoptStreamPort(descriptor, listening.family, factory)
        # Twisted's own would give the file other permissions, and remove it at the end of one worker.
        port = SharedUNIXPort(listening, factory, self.reactor)
        port.startListening()
        return port

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

    def open_server_log(self, path: str, format: str) -> None:
        """See :meth:`Resources.open_server_log`; the supervisor writes what workers log."""

    def close_rest(self) -> None:
        """Close the descriptors that were given and not used."""
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
        descriptor = files.get(unquoted(match[2]))
        return match[0] if descriptor is None else f"{match[1]}={_DESCRIPTORS}/{descriptor}"

    return _FILE.sub(kept, description)


def file_of(data: bytes) -> int:
    """The descriptor of a file that holds *data*, in memory where there is such a thing."""
    descriptor = memory_file()
    with open(descriptor, "wb", closefd=False) as file:
        file.write(data)
    return descriptor
