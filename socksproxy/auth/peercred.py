"""
Unix sockets: the kernel knows who is at the other end.
"""

from __future__ import annotations

import socket
import struct

from .credentials import PeerCredentials


def credentials_of(sock: socket.SocketType) -> PeerCredentials | None:
    """Who is at the other end of *sock*; None: that is not to be had."""
    if sock.family != socket.AF_UNIX or not hasattr(socket, "SO_PEERCRED"):
        return None
    found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return PeerCredentials(*struct.unpack("3i", found))
