"""Pools with ``--workers``, as processes: see :mod:`socksproxy.routes.pools`."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from ..support.origin import Origin
from ..support.processes import PATIENCE, Program
from ..support.workers import LISTENING, received, until

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="has workers")

CONFIG = """
[listeners]
listen = ["tcp:0:interface=127.0.0.1"]
[workers]
workers = 4
[outgoing]
via = "exits"
[pools.exits]
members-file = "exits.txt"
choose = "hash-destination"
check = { every = 1, connect = "192.0.2.99:9" }
"""
_CHECK = b"\x05\x01\x00\x01\xc0\x00\x02\x63\x00\x09"


class Exit:
    """
    An upstream that says its number to whoever it lets through.

    :ivar checks: the times of the checks that came.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.checks: list[float] = []
        self.origin = Origin(self._serve)

    def _serve(self, link: socket.socket) -> None:
        assert received(link, 3) == b"\x05\x01\x00"
        link.sendall(b"\x05\x00")
        request = received(link, 10)
        if request == _CHECK:
            self.checks.append(time.monotonic())
        link.sendall(b"\x05\x00\x00\x01" + bytes(6) + bytes([self.number]))
        link.recv(1)


def asked(port: int, destination: int) -> int:
    """The number of the upstream by which a session gets to a destination."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        client.sendall(b"\x05\x01\x00\x05\x01\x00\x01\xc0\x00\x02" + bytes([destination, 0, 80]))
        data = received(client, 13)
        assert data[:4] == b"\x05\x00\x05\x00"
        return data[12]


def test_every_worker(tmp_path: Path, twistd: Callable[..., Program]) -> None:
    """e 28, 32: one worker checks for all; each destination has one exit, also after SIGHUP with others."""
    with ExitStack() as stack:
        exits = [Exit(number) for number in range(4)]
        for each in exits:
            stack.enter_context(each.origin)

        def write(some: list[Exit]) -> None:
            lines = [f"127.0.0.1:{each.origin.port}\n" for each in some]
            (tmp_path / "exits.txt").write_text("".join(lines))

        def all_of(times: int) -> list[int]:
            found = [{asked(port, number) for _ in range(times)} for number in range(10)]
            assert all(len(each) == 1 for each in found), found
            return [each.pop() for each in found]

        write(exits)
        (tmp_path / "proxy.toml").write_text(CONFIG)
        program = twistd("socks", "--config", "proxy.toml")
        port = int(program.wait_for(LISTENING)[1])
        program.wait_for(r"worker 4 \(process \d+\) accepts")
        assert not any(each.checks for each in exits)  # no session has come
        before = all_of(6)
        assert len(set(before)) > 2
        began = time.monotonic()
        until(lambda: time.monotonic() > began + 3.2)
        for each in exits:
            assert 1 <= len(each.checks) <= 5  # four workers would make 12 and more
        gone = exits[before[0]]
        write([each for each in exits if each is not gone])
        program.process.send_signal(signal.SIGHUP)
        program.wait_for(r" reloaded: ")
        after = all_of(4)
        assert gone.number not in after
        assert all(now == then or then == gone.number for now, then in zip(after, before, strict=True))
