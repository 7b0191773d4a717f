"""
Client programs that the machine may or may not have.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pytest

#: Seconds that a client may take for anything.
PATIENCE = 60.0

#: A client in Python, for programs that put others behind a proxy: HOST PORT.
ECHO = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as sock:
    sock.sendall(b"hello")
    sock.shutdown(socket.SHUT_WR)
    print(sock.makefile().read(), end="")
"""


def missing(what: str) -> NoReturn:
    """Skip the test because *what* is not here, or fail it where everything must be."""
    if os.environ.get("SOCKSPROXY_REQUIRE_INTEROP") == "1":
        pytest.fail(f"{what} is not here, and SOCKSPROXY_REQUIRE_INTEROP=1 asks for it")
    pytest.skip(f"{what} is not here")


def require(*programs: str) -> str:
    """The path of the first of *programs* that is here; without any the test is skipped."""
    for program in programs:
        path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin:/usr/local/sbin")
        if path is not None:
            return path
    missing(" or ".join(programs))


def run(
    command: Sequence[str],
    *,
    data: bytes = b"",
    environment: dict[str, str] | None = None,
    directory: Path | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run *command* with *data* on its standard input, and wait."""
    return subprocess.run(
        command,
        input=data,
        capture_output=True,
        timeout=PATIENCE,
        env={**os.environ, **(environment or {})},
        cwd=directory,
        check=False,
    )


def own_address() -> str:
    """An address of this machine that is not loopback; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            missing("an address other than loopback")
        address: str = probe.getsockname()[0]
        return address
