"""
The ports that are open, over every reload.

Strategy: each configuration has a :class:`PortKeeper`, which knows the ports of the configuration before.
A port that is asked for and is open already is not opened again. It is handed out, and gets its new factory
(a new certificate, another wrapper) when the new configuration comes into force. Ports that are new accept
no client until then. Ports that the new configuration does not ask for are returned, to be closed.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import Any

from twisted.internet.endpoints import AdoptedStreamServerEndpoint
from twisted.internet.error import CannotListenError

from ..twisted_internals import change_factory, inner_endpoint, leave_descriptor_alone
from .endpoints import is_ipv6_wildcard
from .listening_reactor import OpenPort, PortKind, PortRequest


class PortKeeper:
    """
    The ports of one configuration.

    :param before: the ports of the configuration before.
    :ivar fresh: the ports that were opened for this configuration.
    :ivar ipv4_ports: the numbers of ports whose IPv4 clients come to another listener than one on ``::``.
    :ivar used: the descriptors from systemd that are closed by now: Twisted closes them once it has its own.
    """

    def __init__(self, before: PortKeeper | None = None) -> None:
        self._ports: dict[Any, list[Any]] = {}
        self._left: dict[Any, list[Any]] = {}
        self._waits = before is not None
        self._staying: list[tuple[Any, PortRequest]] = []
        self.used: set[int] = set()
        self.fresh: list[Any] = []
        self.ipv4_ports: frozenset[int] = frozenset()
        if before is not None:
            self._left = {key: list(ports) for key, ports in before._ports.items()}
            self.used = before.used

    def prepare(self, endpoint: Any) -> None:
        """Have a new *endpoint* leave a descriptor alone that was closed, and may be another file's now."""
        inner = inner_endpoint(endpoint)
        if isinstance(inner, AdoptedStreamServerEndpoint) and inner.fileno in self.used:
            leave_descriptor_alone(inner)

    def open(self, request: PortRequest, listen: OpenPort) -> Any:
        """
        The port of *request*.

        :param listen: opens the port, where it is not open already.
        :raises CannotListenError: when the port cannot be opened.
        """
        if request.kind is PortKind.TCP and self._leaves_ipv4(*request.place):
            request = request._replace(kind=PortKind.TCP_IPV6_ONLY)
        left = self._left.get(request.key)
        if request.kind is PortKind.ADOPTED:
            descriptor = request.place[0]
            if descriptor in self.used and not left:
                closed = OSError(errno.EBADF, "it was closed, and only a restart brings it back")
                raise CannotListenError(None, descriptor, closed)
            self.used.add(descriptor)
        if left:
            port = left.pop(0)
            self._staying.append((port, request))
        else:
            port = listen(request)
            self.fresh.append(port)
            if self._waits and hasattr(port, "stopReading"):
                port.stopReading()  # until all that its clients need is in force
        self._ports.setdefault(request.key, []).append(port)
        return port

    def _leaves_ipv4(self, interface: str, port: int) -> bool:
        return port in self.ipv4_ports and is_ipv6_wildcard(interface)

    def forget(self) -> None:
        """All ports are closed."""
        self._ports.clear()
        self.fresh.clear()

    def enter(self) -> list[Any]:
        """
        Put the configuration in force: ports that stay get their new factories, new ones accept clients.

        :returns: the ports that the configuration does not ask for.
        """
        for port, request in self._staying:
            change_factory(port, request.factory)
            if request.kind is PortKind.UNIX:
                with suppress(OSError, TypeError):  # another user's file, or no file at all
                    os.chmod(request.place[0], request.mode)
        if self._waits:
            for port in self.fresh:
                if hasattr(port, "startReading"):
                    port.startReading()
        self._staying.clear()
        left, self._left = self._left, {}
        return [port for ports in left.values() for port in ports]
