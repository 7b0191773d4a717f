"""
Unix sockets at which services of this machine look names up for programs, and so would tell their name
server.

A connection there fails, and the C library looks the name up by DNS itself, which the own name server
answers.
"""

from __future__ import annotations

import os.path

from .sockaddr import family_of

_AF_UNIX = 1
_PATHS = frozenset(
    {
        "/run/nscd/socket",
        "/run/systemd/resolve/io.systemd.Resolve",
        "/run/avahi-daemon/socket",
        "/run/winbindd/pipe",
    }
)


def is_name_service(address: bytes) -> bool:
    """Whether the socket address *address* is that of a service that looks names up."""
    if family_of(address) != _AF_UNIX:
        return False
    path = os.path.normpath(address[2:].partition(b"\0")[0].decode("utf-8", "replace"))
    return path.removeprefix("/var") in _PATHS
