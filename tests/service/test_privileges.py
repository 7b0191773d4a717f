"""Who runs the server: see :mod:`socksproxy.service.privileges`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from twisted.internet.testing import MemoryReactorClock

from socksproxy.app import Options, makeService
from socksproxy.service.privileges import NEEDLESS_ROOT, is_root_without_need

from ..support.certificates import self_signed
from ..support.logs import heard
from ..support.processes import Program
from ..support.workers import python_of_others


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def parsed(*arguments: str) -> Options:
    options = Options(MemoryReactorClock())
    options.parseOptions(arguments)
    return options


NEEDLESS = [
    [],
    ["-p", "0"],
    ["-p", "1024"],
    ["--listen", "unix:/nonexistent/socks"],
    ["--listen", "haproxy:tcp:1080:interface=127.0.0.1"],
    ["--auth", "memory:bob:secret"],
    ["--bind-ports", "40000-40999", "--udp-ports", "41000-41999"],
]
NEEDED = [
    ["-p", "1023"],
    ["--listen", "tcp:443:interface=127.0.0.1"],
    ["--listen", "tcp:1080:interface=127.0.0.1", "--listen", "haproxy:tcp:80:interface=127.0.0.1"],
    ["--bind-ports", "20"],
    ["--udp-ports", "1000-2000"],
    ["--udp-port", "443"],
    ["--auth", "unix"],
]


@pytest.mark.parametrize("arguments", NEEDLESS, ids=" ".join)
def test_needless(arguments: list[str]) -> None:
    assert is_root_without_need(parsed(*arguments))


@pytest.mark.parametrize("arguments", NEEDED, ids=" ".join)
def test_needed(arguments: list[str]) -> None:
    assert not is_root_without_need(parsed(*arguments))


@pytest.mark.parametrize(("arguments", "expected"), [([], [NEEDLESS_ROOT]), (["-p", "80"], [])])
def test_one_line(arguments: list[str], expected: list[str]) -> None:
    """When the service starts, that is after ``twistd --uid`` has given up root."""
    options = parsed(*arguments)
    service: Any = makeService(options)
    options.plan = attrs.evolve(options.plan, open=True)  # a MemoryReactor says that every port is on 0.0.0.0
    with heard() as lines:
        service.privilegedStartService()
        assert NEEDLESS_ROOT not in lines
        service.startService()
        service.stopService()
    assert [line for line in lines if "root" in line] == expected


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize(("more", "times"), [((), 1), (("--uid=65534", "--gid=65534"), 0)])
def test_with_workers(more: tuple[str, ...], times: int, twistd: Callable[..., Program]) -> None:
    """The supervisor says it for all."""
    if more and not python_of_others():
        pytest.skip("nobody else can run this Python")
    program = twistd(*more, "socks", "-p", "0", "--workers", "2")
    program.wait_for("listening on")
    program.stop()
    assert program.output.count(NEEDLESS_ROOT) == times


def test_keys_of_tls(tmp_path: Path) -> None:
    """Often only root may read them, and a reload reads them again."""
    pem = tmp_path / "proxy.pem"
    pem.write_bytes(self_signed())
    listen = f"ssl:0:interface=127.0.0.1:privateKey={pem}"
    assert not is_root_without_need(parsed("--listen", listen))


def test_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "socks.toml"
    file.write_text('[authentication]\nauth = ["unix"]\n')
    assert not is_root_without_need(parsed("--config", str(file)))


def test_not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert not is_root_without_need(parsed())
