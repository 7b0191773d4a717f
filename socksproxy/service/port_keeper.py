"""
The ports that endpoints open, and those that stay open when a configuration is read again.

An endpoint tells nobody where it is going to listen, but it asks a reactor for it. So endpoints are made
with a reactor that knows which ports are open: what is asked for and is there already is not opened
again: it is handed out, and has the new factory (a new certificate, another wrapper) as soon as all is well.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias

from twisted.internet.endpoints import AdoptedStreamServerEndpoint
from twisted.internet.error import CannotListenError
from zope.interface import directlyProvides, providedBy

from ..net.endpoints import inner_endpoint, is_ipv6_wildcard

#: What is asked for: the kind, and where.
Key: TypeAlias = "tuple[str, Any, Any]"


class PortKeeper:
    """
    What the endpoints of one configuration have opened.

    :param before: what those of the one before have; its ports are handed out before others are opened.
    :ivar fresh: the ports that were opened.
    :ivar ipv4_ports: the numbers of ports whose IPv4 clients come to another listener than one on ``::``.
    """

    def __init__(self, before: PortKeeper | None = None) -> None:
        self._ports: dict[Key, list[Any]] = {}
        self._left: dict[Key, list[Any]] = {}
        #: Descriptors from systemd that are used up: Twisted closes them once it has its own.
        self._used: set[int] = set()
        self._waits = before is not None
        if before is not None:
            self._left = {key: list(ports) for key, ports in before._ports.items()}
            self._used = before._used
        self._staying: list[tuple[Any, Any, Callable[[], None]]] = []
        self.fresh: list[Any] = []
        self.ipv4_ports: frozenset[int] = frozenset()

    def reactor(self, reactor: Any) -> Any:
        """*reactor* for endpoints: what listens with it, listens here."""
        return _Listening(reactor, self)

    def prepare(self, endpoint: Any) -> None:
        """Have an *endpoint* that was just made leave descriptors alone that are not what they were."""
        inner = inner_endpoint(endpoint)
        if isinstance(inner, AdoptedStreamServerEndpoint) and inner.fileno in self._used:
            vars(inner).update(_setNonBlocking=_leave_alone, _close=_leave_alone)

    def open(
        self,
        key: Key,
        factory: Any,
        listen: Callable[[], Any],
        change: Callable[[], None] = lambda: None,
    ) -> Any:
        """
        The port that *key* stands for.

        :param factory: for its clients, if it is open already.
        :param listen: opens it otherwise.
        :param change: what else changes when it stays.
        """
        left = self._left.get(key)
        if left:
            port = left.pop(0)
            self._staying.append((port, factory, change))
        else:
            port = self._opened(listen)
        self._ports.setdefault(key, []).append(port)
        return port

    def _opened(self, listen: Callable[[], Any]) -> Any:
        port = listen()
        self.fresh.append(port)
        if self._waits and hasattr(port, "stopReading"):
            port.stopReading()  # until all that its clients need is in force
        return port

    @property
    def used(self) -> frozenset[int]:
        """The descriptors from systemd that are closed by now."""
        return frozenset(self._used)

    def leaves_ipv4(self, interface: str, port: int) -> bool:
        """Whether a listener on *interface* and *port* leaves IPv4 clients to another listener."""
        return port in self.ipv4_ports and is_ipv6_wildcard(interface)

    def adopt(self, descriptor: int, factory: Any, listen: Callable[[], Any]) -> Any:
        """Likewise for a socket that somebody has passed to this process as *descriptor*."""
        key = ("adopted", descriptor, None)
        if descriptor in self._used and not self._left.get(key):
            closed = OSError(errno.EBADF, "it was closed, and only a restart brings it back")
            raise CannotListenError(None, descriptor, closed)
        self._used.add(descriptor)
        return self.open(key, factory, listen)

    def forget(self) -> None:
        """All ports are closed."""
        self._ports.clear()
        self.fresh.clear()

    def enter(self) -> list[Any]:
        """
        All is well: ports that stay have their new factories, and those that are new accept clients.

        :returns: the ports that nobody has asked for.
        """
        for port, factory, change in self._staying:
            _give_factory(port, factory)
            change()
        if self._waits:
            for port in self.fresh:
                if hasattr(port, "startReading"):
                    port.startReading()
        self._staying.clear()
        left, self._left = self._left, {}
        return [port for ports in left.values() for port in ports]


class _Listening:
    """
    A reactor that asks *keeper* before it listens.

    :param reactor: does all else.
    """

    def __init__(self, reactor: Any, keeper: PortKeeper) -> None:
        self._reactor = reactor
        self._keeper = keeper
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        return self._listen(port, factory, backlog, interface)

    def listenSSL(
        self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = ""
    ) -> Any:
        from twisted.protocols.tls import TLSMemoryBIOFactory

        tls = TLSMemoryBIOFactory(contextFactory, False, factory)
        return self._listen(
            port,
            tls,
            backlog,
            interface,
            lambda: self._reactor.listenSSL(port, factory, contextFactory, backlog, interface),
        )

    def _listen(
        self,
        port: int,
        factory: Any,
        backlog: int,
        interface: str,
        listen: Callable[[], Any] | None = None,
    ) -> Any:
        if self._keeper.leaves_ipv4(interface, port):
            return self._keeper.open(
                ("tcp of IPv6 only", interface, port),
                factory,
                lambda: _listen_ipv6_only(self._reactor, port, factory, backlog),
            )
        return self._keeper.open(
            ("tcp", interface or "0.0.0.0", port),
            factory,
            listen or (lambda: self._reactor.listenTCP(port, factory, backlog, interface)),
        )

    def listenUNIX(
        self, address: Any, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: bool = False
    ) -> Any:
        return self._keeper.open(
            ("unix", address, None),
            factory,
            lambda: self._reactor.listenUNIX(address, factory, backlog, mode, wantPID),
            lambda: _set_mode(address, mode),
        )

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        return self._keeper.adopt(
            fileDescriptor,
            factory,
            lambda: self._reactor.adoptStreamPort(fileDescriptor, addressFamily, factory),
        )


def _listen_ipv6_only(reactor: Any, port: int, factory: Any, backlog: int) -> Any:
    """As ``listenTCP`` on ``::``, which would accept IPv4 clients, too, and so clash with IPv4's listener."""
    with socket.socket(socket.AF_INET6) as listening:
        listening.setblocking(False)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind(("::", port))
            listening.listen(backlog)
        except OSError as problem:
            raise CannotListenError("::", port, problem) from None
        return reactor.adoptStreamPort(listening.fileno(), socket.AF_INET6, factory)


def _give_factory(port: Any, factory: Any) -> None:
    before = port.factory
    if factory is before:
        return
    factory.doStart()
    port.factory = factory
    before.doStop()
    # Who accepts depends on the factory: what it has put in place of Twisted's own goes with it.
    vars(port).pop("doRead", None)


def _set_mode(path: Any, mode: int) -> None:
    with suppress(OSError, TypeError):  # somebody else's file, or no file at all
        os.chmod(path, mode)


def _leave_alone(descriptor: int) -> None:
    """Nothing is done to *descriptor*."""
