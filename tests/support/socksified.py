"""``socksproxy run``, where the system can do it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from socksproxy.socksify.abi import this_machine
from socksproxy.socksify.kernel import check_notices
from tests.support.programs import PATIENCE, missing


def require_run() -> None:
    """Skip the test where system calls cannot be answered."""
    abi = this_machine()
    if abi is None:
        missing("Linux on x86-64 or aarch64")
    try:
        check_notices(abi)
    except OSError as problem:
        missing(f"seccomp notification ({problem.strerror})")


def command(port: int, *options: str) -> list[str]:
    """The beginning of a command line that leads through the proxy at *port*."""
    require_run()
    return [
        sys.executable,
        "-m",
        "socksproxy",
        "run",
        "--proxy",
        f"socks5://127.0.0.1:{port}",
        *options,
        "--",
    ]


def python(port: int, code: str, *arguments: object, options: Sequence[str] = ()) -> str:
    """What *code* prints in a Python program that is led through the proxy at *port*."""
    done = subprocess.run(
        [*command(port, *options), sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    assert done.returncode == 0, done.stderr
    assert "socksproxy" not in done.stderr, done.stderr
    return done.stdout
