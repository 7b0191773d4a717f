"""
What the packet filter has led here: where was it going?

TCP comes by ``redirect`` (the destination is in SO_ORIGINAL_DST) or by TPROXY (the connection has it as its
own address). Datagrams come by TPROXY alone, which needs the right CAP_NET_ADMIN.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any

from twisted.internet.abstract import FileDescriptor

from ..net.local import is_local
from ..twisted_internals import socket_of
from ..wire.words import Address
from . import sockaddr

_SO_ORIGINAL_DST = 80
_SOL_IP, _SOL_IPV6 = 0, 41
# Transparent, and "tell the original destination": options of the two families.
_TRANSPARENT = {socket.AF_INET: (_SOL_IP, 19), socket.AF_INET6: (_SOL_IPV6, 75)}
_ORIGINAL = {socket.AF_INET: (_SOL_IP, 20), socket.AF_INET6: (_SOL_IPV6, 74)}
_LONGEST = 65535
#: Datagrams that are taken at once.
_AT_ONCE = 32


def original_destination(transport: Any) -> tuple[str, int]:
    """
    Where the client of *transport* wanted to.

    :raises OSError: when it wanted to come here, which would be a loop.
    """
    link: Any = socket_of(transport)
    own = transport.getHost()
    level = _SOL_IPV6 if link.family == socket.AF_INET6 else _SOL_IP
    try:
        raw = link.getsockopt(level, _SO_ORIGINAL_DST, sockaddr.LONGEST)
        found = sockaddr.parse(raw)
    except OSError:
        found = None  # not redirected: TPROXY
    host, port = (own.host, own.port) if found is None else (found.host, found.port)
    if port == transport.server.getHost().port and is_local(host):
        raise OSError(errno.ELOOP, "the client wants to come here, so the packet filter has not led it")
    return host, port


def allow_foreign(listening: socket.socket) -> None:
    """Let *listening* take connections to all addresses (TPROXY), where this process has CAP_NET_ADMIN."""
    with suppress(PermissionError):
        listening.setsockopt(*_TRANSPARENT[socket.AddressFamily(listening.family)], 1)


def listening_socket(host: str, port: int) -> socket.socket:
    """
    A socket that gets datagrams to all destinations.

    :raises OSError: (EPERM) without CAP_NET_ADMIN.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    link = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_INET6:
            link.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        link.setsockopt(*_TRANSPARENT[family], 1)
        link.setsockopt(*_ORIGINAL[family], 1)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        link.bind((host, port))
    except BaseException:
        link.close()
        raise
    return link


class TransparentUDP(FileDescriptor):
    """
    Reads datagrams from *link*.

    :param link: from :func:`listening_socket`.
    :param send: sends one: see :meth:`.associations.FlowAssociations.send`.
    """

    def __init__(
        self,
        reactor: Any,
        link: socket.socket,
        send: Callable[[Callable[[bytes], None], Hashable, Address, bytes], None],
    ) -> None:
        super().__init__(reactor)
        self._link = link
        self._send = send
        self.connected = 1

    def fileno(self) -> int:
        """The descriptor."""
        return self._link.fileno()

    def doRead(self) -> None:
        """Take some datagrams."""
        for _ in range(_AT_ONCE):
            try:
                data, control, _, client = self._link.recvmsg(_LONGEST, 256)
            except OSError:
                return
            for level, kind, content in control:
                if (level, kind) == _ORIGINAL[self._link.family]:
                    self._received(data, client, content)

    def _received(self, data: bytes, client: Any, original: bytes) -> None:
        destination = sockaddr.parse(original)
        if destination is not None:
            family = self._link.family
            self._send(
                lambda back: answer_as(family, original, client, back), (client, original), destination, data
            )

    def getHost(self) -> Any:
        """Where it listens."""
        host, port = self._link.getsockname()[:2]
        return Address.of(host, port)

    def stopListening(self) -> None:
        """Read no more."""
        self.stopReading()
        self._link.close()


def answer_as(family: int, original: bytes, client: Any, data: bytes) -> None:
    """Send *data* to *client*, as if from the address *original*. A datagram that cannot be sent is lost."""
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as link, suppress(OSError):
        link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        link.setsockopt(*_TRANSPARENT[socket.AddressFamily(family)], 1)
        link.bind(sockaddr.for_python(original))
        link.sendto(data, client)
