"""Usage records of what sessions move: see :mod:`socksproxy.session.billing`."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from socksproxy.limits.quota.database import UsageFileError
from socksproxy.limits.quota.records import SPAN, RecordFile, UsageRecord, span_at
from socksproxy.session import billing as module
from socksproxy.session.billing import Billing
from socksproxy.values.records import RecordSettings

from ..conftest import Serve
from ..support.admin import asks
from ..support.logs import heard
from ..support.origin import Origin, echo
from ..support.processes import Program
from ..support.proxy import Playing, Proxy, ask5, echoes, until
from ..support.udp import Echo
from ..support.workers import LISTENING, connected, received, until as wait_until, workers_of

NOW = float(span_at(1_800_000_000))


def records_in(path: Path) -> list[UsageRecord]:
    """All records, long after their time."""
    file = RecordFile(str(path), 3660)
    found = file.after(0, 1000, 2_000_000_000)
    file.close()
    return found


class Wall:
    """A wall clock."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY", 0.02)


@pytest_twisted.inlineCallbacks
def test_sums(serve: Serve, tmp_path: Path, soon: None) -> Playing:
    """A long session has its bytes in each five minutes, a short one at its end; each counts once."""
    proxy: Proxy = yield serve()
    path, wall = tmp_path / "records", Wall()
    context = proxy.factory.context
    billing = Billing(proxy.factory.reactor, RecordSettings(file=str(path)), context, wall)
    context.billing = billing
    yield billing.start()
    with Origin(echo) as origin:
        client = proxy.connect()
        yield proxy.play(ask5, client, "127.0.0.1", origin.port)
        for size, total in ((1, 1), (10, 11), (100, 111)):
            yield proxy.play(echoes, client, b"x" * size)
            yield until(partial(has_moved, billing, total))
            wall.now += SPAN
        with proxy.connect() as short:
            yield proxy.play(ask5, short, "127.0.0.1", origin.port)
            yield proxy.play(echoes, short, b"12345")
        with proxy.connect() as refused:
            refused.sendall(b"GET / HTTP/1.0\r\n\r\n")
            yield proxy.play(refused.recv, 100)
        yield until(lambda: len(proxy.sessions.live) == 1)
        yield proxy.play(echoes, client, b"yy")
        yield billing.stop()
        client.close()
        yield until(lambda: not proxy.sessions.live)
    found = records_in(path)
    assert [(row.began - NOW, row.user, row.sent, row.received, row.sessions) for row in found] == [
        (0, "", 1, 1, 1),
        (SPAN, "", 10, 10, 0),
        (2 * SPAN, "", 100, 100, 0),
        (3 * SPAN, "", 7, 7, 1),
    ]


def has_moved(billing: Billing, total: int) -> bool:
    """Whether a session that goes on had moved so many bytes each way at the last look."""
    return (total, total) in billing._seen.values()


@pytest_twisted.inlineCallbacks
def test_written_later(
    serve_as: Serve, tmp_path: Path, soon: None, monkeypatch: pytest.MonkeyPatch
) -> Playing:
    """While the file cannot be written, bytes are kept, without names where there are too many."""
    monkeypatch.setattr(module, "MOST_KEPT", 1)
    proxy: Proxy = yield serve_as()
    place = tmp_path / "place"
    place.mkdir()
    path, wall = place / "records", Wall()
    context = proxy.factory.context
    context.billing = billing = Billing(proxy.factory.reactor, RecordSettings(file=str(path)), context, wall)
    yield billing.start()
    with heard() as lines, Origin(echo) as origin:
        path.unlink()
        place.rename(tmp_path / "away")
        for _ in range(2):
            with proxy.connect() as client:
                yield proxy.play(ask5, client, "127.0.0.1", origin.port)
                yield proxy.play(echoes, client, b"12345")
            yield until(lambda: not proxy.sessions.live)
        yield until(lambda: any("usage records cannot be written" in line for line in lines))
        (tmp_path / "away").rename(place)
        yield billing.stop()
    assert sum(row.sent for row in records_in(path)) == 10


@pytest_twisted.inlineCallbacks
def test_cannot_start(serve_as: Serve, tmp_path: Path) -> Playing:
    """A file that cannot be used is told."""
    proxy: Proxy = yield serve_as()
    billing = proxy.factory.keep_records(RecordSettings(file=str(tmp_path)))
    proxy.factory.context.billing = None
    with pytest.raises(UsageFileError):
        yield billing.start()


CONFIG = """
[usage]
file = "records"
[node]
name = "one"
[[admin.listener]]
endpoint = "unix:admin.sock"
[[rule]]
name = "all"
allow = true
"""


def datagrams(port: int, echo: Echo, sizes: list[int]) -> None:
    """Send datagrams by an association, and wait for the answers."""
    with socket.create_connection(("127.0.0.1", port), 30) as control:
        control.sendall(b"\x05\x01\x00\x05\x03\x00\x01\0\0\0\0\0\0")
        reply = received(control, 12)
        place = socket.inet_ntoa(reply[6:10]), struct.unpack("!H", reply[10:])[0]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(30)
            sock.connect(place)
            for size in sizes:
                header = b"\0\0\0\x01" + socket.inet_aton("127.0.0.1") + struct.pack("!H", echo.address[1])
                sock.send(header + b"x" * size)
                assert len(sock.recv(65536)) == size + 10


@pytest.mark.parametrize("workers", ["1", "2"])
def test_program(workers: str, twistd: Callable[..., Program], tmp_path: Path) -> None:
    """
    The records of all processes are in one file, over a reload, a kill and a restart; the numbers go on.
    """
    (tmp_path / "socks.toml").write_text(CONFIG)
    admin, path = tmp_path / "admin.sock", tmp_path / "records"

    def told(after: object) -> Any:
        return asks(admin, "GET", f"/v1/usage?after={after}")

    def exchange(port: int, size: int) -> None:
        with connected(port, origin.port) as client:
            client.sendall(b"x" * size)
            received(client, size)

    arguments = ("socks", "--config", "socks.toml", "--port", "0", "--workers", workers)
    with Origin(echo) as origin, Echo() as udp:
        program = twistd(*arguments)
        port = int(program.wait_for(LISTENING)[1])
        for size in (1, 20, 300):
            exchange(port, size)
        datagrams(port, udp, [4000, 5000])
        assert asks(admin, "POST", "/v1/reload").status == 200
        exchange(port, 60_000)
        if workers == "2":
            wait_until(lambda: totals(path)["sent"] == 69_321)
            os.kill(workers_of(program.process.pid)[0], signal.SIGKILL)
            program.wait_for(r"(?s)has ended: signal SIGKILL.*accepts clients")
        program.stop()
        assert totals(path) == {"sent": 69_321, "received": 69_321, "sessions": 5}
        last = records_in(path)[-1].number
        program = twistd(*arguments)
        exchange(int(program.wait_for(LISTENING)[1]), 700_000)
        assert (told(last).status, told(last).data) == (200, b"")
        command = [sys.executable, "-m", "socksproxy", "ctl", "-s", str(admin), "usage", "--after", "0"]
        assert subprocess.run(command, capture_output=True, check=True).stdout == told(0).data
        line = json.loads(told(0).data.splitlines()[-1])
        assert (line["seq"], line["node"], line["rule"], line["to"]) == (
            last,
            "one",
            "all",
            line["from"] + SPAN,
        )
        for wrong in ("", "x", "-1", "9" * 30, "1&from=2026-11"):
            assert told(wrong).status == 400
        program.stop()
    (row,) = [record for record in records_in(path) if record.number > last]
    assert (row.number, row.rule, row.sent) == (last + 1, "all", 700_000)


def totals(path: Path) -> Counter[str]:
    """The sums over all records, those that still grow, too."""
    found: Counter[str] = Counter()
    for row in records_in(path):
        found.update(sent=row.sent, received=row.received, sessions=row.sessions)
    return found
