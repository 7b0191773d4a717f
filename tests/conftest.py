"""What all tests share."""

from __future__ import annotations

import functools
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from hypothesis import HealthCheck, settings
from twisted.internet.defer import Deferred
from twisted.plugins import cred_file  # noqa: F401 - it keeps the stderr of when it is imported, and a test's is closed

from .support.marks import mark_of
from .support.proxy import KINDS, Proxy

# A busy machine is no reason to fail: how long an example takes says nothing here.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", settings.get_profile("default"), max_examples=20)
settings.load_profile("default")

# A shell without job control has its background jobs ignore SIGINT, and what the tests start would, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by what it needs."""
    for item in items:
        item.add_marker(mark_of(item))


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """The handlers of signals that a service has for itself are as before after each test."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    yield
    for number, handler in before.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


_SIGNALS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

#: Seconds that a process of ours may take for anything; far more than it needs.
PATIENCE = 60.0

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


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """``start(command, environment)``: start a :class:`Program`; it is stopped after the test."""
    programs: list[Program] = []

    def started(command: Sequence[str], environment: Mapping[str, str] | None = None, **more: Any) -> Program:
        program = Program(command, tmp_path, environment, **more)
        programs.append(program)
        return program

    yield started
    for program in programs:
        program.stop()


@pytest.fixture
def twistd(start: Callable[..., Program]) -> Callable[..., Program]:
    """``twistd("socks", ...)``: start it in the foreground."""

    def started(*arguments: str, environment: Mapping[str, str] | None = None, **more: Any) -> Program:
        return start([*TWISTD, "-n", "--pidfile=", *arguments], environment, **more)

    return started


Serve = Callable[..., "Deferred[Proxy]"]


@pytest.fixture
def serve_as() -> Iterator[Serve]:
    """``yield serve_as(kind, ...)``: start a :class:`Proxy`; after the test nothing of it may be left."""
    proxies: list[Proxy] = []

    def started(kind: str = "accepted", **options: Any) -> Deferred[Proxy]:
        proxy = Proxy(kind, **options)
        proxies.append(proxy)
        return proxy.start().addCallback(lambda _: proxy)

    yield started
    running = [proxy for proxy in proxies if proxy.port is not None]
    for proxy in running:
        pytest_twisted.blockon(proxy.stop())
    for proxy in running:
        pytest_twisted.blockon(proxy.gone())


@pytest.fixture(params=KINDS)
def serve(request: pytest.FixtureRequest, serve_as: Serve) -> Serve:
    """``yield serve(...)``: start a :class:`Proxy` of every kind in turn."""
    return functools.partial(serve_as, request.param)
