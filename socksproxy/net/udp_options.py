"""Options of UDP sockets."""

from __future__ import annotations

from socket import SO_RCVBUF, SO_SNDBUF, SOL_SOCKET

from .tcp_options import HasOptions

#: The kernel's buffers: room for some of the largest datagrams. It may give less.
BUFFERS = 1 << 20


def enlarge_buffers(link: HasOptions) -> None:
    """Give the UDP socket *link* room; the system may give less than is asked for."""
    for option in (SO_RCVBUF, SO_SNDBUF):
        link.setsockopt(SOL_SOCKET, option, BUFFERS)
