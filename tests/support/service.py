"""Options as twistd parses them."""

from __future__ import annotations

from typing import Any

from twisted.internet.testing import MemoryReactorClock

from socksproxy.app import Options


def parsed(*arguments: str, reactor: Any = None) -> Options:
    options = Options(reactor or MemoryReactorClock())
    options.parseOptions(arguments)
    return options


#: Does what systemd does before it starts a service.
SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="socks")
os.execv(sys.argv[2], sys.argv[2:])
"""
