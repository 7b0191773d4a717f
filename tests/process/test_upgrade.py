"""Another version of the program is installed under a server that runs."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import socksproxy
from socksproxy.workers.process import ORDERS_VERSION

from ..support.origin import Origin, echo
from ..support.processes import Program
from ..support.workers import LISTENING, connected, workers_of

PACKAGE = Path(socksproxy.__file__).parent

#: twistd, with the package and the plugin from the working directory.
PROGRAM = """
import sys
sys.argv[0] = "twistd"
sys.path.insert(0, ".")
from twisted.scripts.twistd import run
run()
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The package, where it can be changed."""
    shutil.copytree(PACKAGE, tmp_path / "socksproxy", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(
        PACKAGE.parent / "twisted",
        tmp_path / "twisted",
        ignore=shutil.ignore_patterns("__pycache__", "*.cache"),
    )
    return tmp_path / "socksproxy"


def changed(file: Path, pattern: str, new: str) -> None:
    text, count = re.subn(pattern, new, file.read_text(), count=1)
    assert count == 1
    file.write_text(text)


def begin(start: Callable[..., Program], directory: Path) -> tuple[Program, int]:
    command = [sys.executable, "-c", PROGRAM, "-n", "--pidfile=", "socks", "-p", "0", "--workers", "2"]
    program = start(command, {"PYTHONPATH": str(directory), "PYTHONDONTWRITEBYTECODE": "1"})
    return program, int(program.wait_for(LISTENING)[1])


def test_upgrade(start: Callable[..., Program], installed: Path) -> None:
    """
    A new worker that understands its supervisor serves, and a warning names both versions.

    One that does not refuses, and one line says what is to be done; the other worker goes on.
    """
    program, port = begin(start, installed.parent)
    old, other = workers_of(program.process.pid)
    changed(installed / "__init__.py", r'__version__ = "[^"]*"', '__version__ = "99.0"')
    os.kill(old, signal.SIGKILL)
    program.wait_for(
        r"worker \d: the program is version 99\.0 now, and the supervisor runs "
        rf"{re.escape(socksproxy.__version__)}: restart the server"
    )
    program.wait_for(r"(?s)" + r"accepts clients.*" * 3)
    changed(installed / "workers" / "process.py", r"ORDERS_VERSION = \d+", "ORDERS_VERSION = 99")
    os.kill(other, signal.SIGKILL)
    said = program.wait_for(r"worker \d \(process \d+\) has ended: exit status 1 \((.*)\); another starts")
    assert said[1] == (
        f"the supervisor gives orders of version {ORDERS_VERSION}, and this worker knows version 99: "
        "the program has changed since the supervisor started, so restart it"
    )
    assert "Traceback" not in program.output
    with Origin(echo) as origin:
        connected(port, origin.port).close()
