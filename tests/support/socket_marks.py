"""Which sockets of this process have a mark (SO_MARK), which only root may set."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

import pytest

_OPTIONS = 36, socket.SO_ACCEPTCONN, socket.SO_TYPE  # 36: SO_MARK
#: A mark that no other socket has.
MARK = 0x5AC75

needs_marks = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mark packets")


def sockets_with_mark() -> list[tuple[int, bool]]:
    """The types of this process's sockets with :data:`MARK`, and whether they listen."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # it is closed meanwhile
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            with socket.fromfd(int(name), socket.AF_INET, socket.SOCK_STREAM) as sock:
                mark, listens, kind = (sock.getsockopt(socket.SOL_SOCKET, each) for each in _OPTIONS)
            if mark == MARK:
                found.append((kind, bool(listens)))
    return found
