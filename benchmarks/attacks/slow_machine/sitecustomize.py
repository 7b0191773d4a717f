"""
A machine whose DNS servers and file servers do not answer.

Python imports this module at its start when this directory is in ``PYTHONPATH``. From then on the C
library takes ``SLOW_SECONDS`` to find nothing for a name that begins with ``slow``, and for an
address in 192.0.2.0/24; other names below ``quick.test`` are 127.0.0.1, after two milliseconds. To
open a file with ``hangs`` in its name takes as long.
"""

from __future__ import annotations

import os
import socket
import time
from typing import Any

_SECONDS = float(os.environ.get("SLOW_SECONDS", "0"))


def _make_slow() -> None:
    real_names, real_addresses, real_open = socket.getaddrinfo, socket.getnameinfo, os.open

    def getaddrinfo(host: Any, *arguments: Any, **named: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else str(host)
        if name.startswith("slow"):
            time.sleep(_SECONDS)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        if name.endswith("quick.test"):
            time.sleep(0.002)
            host = "127.0.0.1"
        return real_names(host, *arguments, **named)

    def getnameinfo(address: Any, flags: int) -> Any:
        if address[0].startswith("192.0.2."):
            time.sleep(_SECONDS)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real_addresses(address, flags)

    def opened(path: Any, *arguments: Any, **named: Any) -> int:
        if "hangs" in os.fsdecode(path):
            time.sleep(_SECONDS)
        return real_open(path, *arguments, **named)

    socket.getaddrinfo, socket.getnameinfo, os.open = getaddrinfo, getnameinfo, opened


if _SECONDS:
    _make_slow()
