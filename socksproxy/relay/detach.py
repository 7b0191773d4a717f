"""
Taking the socket out of a Twisted transport, alive.

Nothing in Twisted offers this, so it leans on how its transports are made:
the one place in this project that does. ``tests/relay/test_detach.py`` notices
when a new Twisted is made differently; then, and for every transport that is
not exactly one of those known here, the answer is None and the relay goes over
the transports.
"""

from __future__ import annotations

from socket import SocketType
from typing import Any

from twisted.internet import tcp
from twisted.logger import Logger

try:
    from twisted.internet import unix
except ImportError:  # pragma: no cover - a platform without Unix sockets
    _KNOWN: tuple[type[Any], ...] = (tcp.Server, tcp.Client)
else:
    _KNOWN = (tcp.Server, tcp.Client, unix.Server, unix.Client)

_log = Logger(namespace="socksproxy")

#: What is relied on: attributes of a transport that is connected.
_RELIED_ON = (
    "_tempDataBuffer",
    "connected",
    "dataBuffer",
    "disconnected",
    "disconnecting",
    "doWrite",
    "fileno",
    "protocol",
    "socket",
    "stopReading",
    "stopWriting",
)
_warned = False


def is_detachable(transport: object) -> bool:
    """Whether :func:`detach_socket` can be expected to give *transport*'s socket."""
    return type(transport) in _KNOWN and not getattr(transport, "TLS", False)


def detach_socket(transport: Any) -> SocketType | None:
    """
    Take the connected socket out of *transport*, which is dead afterwards.

    What the transport still had to send has been sent. Its protocol is told
    nothing: no ``connectionLost`` comes.

    :returns: the socket, non-blocking; None when it cannot be had: the
        transport is of another kind, speaks TLS, is closing, or could not send everything.
    """
    if not is_detachable(transport) or not _as_known(transport):
        return None
    if transport.disconnecting or not transport.connected or not _flushed(transport):
        return None
    transport.stopReading()
    transport.stopWriting()
    taken = transport.socket
    transport.connected = 0
    transport.disconnected = 1
    transport.protocol = None
    transport.socket = None
    transport.fileno = _no_descriptor
    link = SocketType(taken.family, taken.type, taken.proto, taken.detach())
    link.setblocking(False)
    return link


def _as_known(transport: Any) -> bool:
    global _warned
    missing = [name for name in _RELIED_ON if not hasattr(transport, name)]
    if missing and not _warned:
        _warned = True
        _log.warn(
            "this Twisted's transports have no {missing}: "
            "sessions are relayed over the transports, which is slower",
            missing=", ".join(missing),
        )
    return not missing


def _flushed(transport: Any) -> bool:
    if transport.dataBuffer or transport._tempDataBuffer:
        transport.doWrite()
    return not (transport.dataBuffer or transport._tempDataBuffer)


def _no_descriptor() -> int:
    return -1
