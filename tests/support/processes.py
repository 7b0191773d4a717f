"""Processes of ours, and what they have said."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

#: Seconds that a process of ours may take for anything; far more than it needs.
PATIENCE = 150.0


# What a process has run counts for coverage, although a signal ends it and so
# none of its exit functions is called.
_COUNTED = """
import sys
from twisted.application import app

def counted(number, end=app._exitWithSignal):
    coverage = sys.modules.get("coverage")
    running = coverage and coverage.Coverage.current()
    if running:
        running.save()
    end(number)

app._exitWithSignal = counted
"""


# By their functions: where pip puts the scripts depends on how it was called.
TWISTD = (
    sys.executable,
    "-c",
    f"{_COUNTED}\nsys.argv[0] = 'twistd'\nfrom twisted.scripts.twistd import run\nrun()",
)


TWIST = (
    sys.executable,
    "-c",
    f"{_COUNTED}\nfrom twisted.application.twist._twist import Twist\nTwist.main()",
)


PYTHON_M_TWISTED = (sys.executable, "-m", "twisted")


class Program:
    """
    A process and what it has said, standard error included.

    :param command: the program and its arguments.
    :param directory: where it runs.
    :param environment: added to this process's own.
    :param more: further arguments of :class:`subprocess.Popen`.
    """

    def __init__(
        self,
        command: Sequence[str],
        directory: Path,
        environment: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        self.output = ""
        self.process = subprocess.Popen(
            command,
            cwd=directory,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            **more,
        )

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Read until *pattern* is found in all that was said, and return the match."""
        deadline = time.monotonic() + PATIENCE
        while True:
            found = re.search(pattern, self.output)
            if found is not None:
                return found
            if not self._read(deadline):
                raise AssertionError(f"{pattern!r} was not said, but:\n{self.output}")

    def read(self) -> None:
        """Read what has been said by now."""
        while self._read(0.0):
            pass

    def wait(self) -> int:
        """Read to the end and return the exit status."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline):
            pass
        return self.process.wait(max(1, deadline - time.monotonic()))

    def stop(self) -> int:
        """End it as an operator would, and return the exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.wait()
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()

    def _read(self, deadline: float) -> bool:
        stream = self.process.stdout
        assert stream is not None
        if stream.closed:
            return False
        ready, _, _ = select.select([stream], [], [], max(0, deadline - time.monotonic()))
        if not ready:
            return False
        data = os.read(stream.fileno(), 65536)
        self.output += data.decode("utf-8", "replace")
        return bool(data)
