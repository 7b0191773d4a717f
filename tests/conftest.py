"""What all tests share."""

from __future__ import annotations

import functools
import gc
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from _pytest import unittest as _trial
from hypothesis import HealthCheck, settings
from twisted.internet.defer import Deferred
from twisted.plugins import cred_file  # noqa: F401 - it keeps the stderr of when it is imported, and a test's is closed

from .support.marks import mark_of
from .support.processes import TWISTD, Program
from .support.proxy import KINDS, Proxy

# A busy machine is no reason to fail: how long an example takes says nothing here.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", settings.get_profile("default"), max_examples=20)
settings.load_profile("default")

# pytest reads the version in Twisted's metadata before each test, which takes longer than most tests.
_version = getattr(_trial, "_get_twisted_version", None)
if _version is not None:
    setattr(_trial, "_get_twisted_version", functools.cache(_version))  # noqa: B010 - it is private

# A shell without job control has its background jobs ignore SIGINT, and what the tests start would, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by what it needs."""
    for item in items:
        item.add_marker(mark_of(item))


def pytest_collection_finish() -> None:
    """The garbage collector leaves out the modules and the tests, which stay until the end."""
    gc.freeze()


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """The handlers of signals that a service has for itself are as before after each test."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    yield
    for number, handler in before.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


_SIGNALS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


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
