"""SIGTERM ends the process within a second of what ``--drain`` allows, whatever hangs in its threads."""

from __future__ import annotations

import signal
import socket
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from paths import ROOT
from socksproxy.wire.words import Command

from ..support.processes import PATIENCE, Program

SLOW = str(ROOT / "benchmarks" / "attacks" / "slow_machine")
#: A second, and what a machine that is busy adds to it. What hangs here hangs for a minute.
WITHIN = 15.0
Begin = Callable[[Program, int, Path], None]


def request(command: Command, host: str) -> bytes:
    """A greeting and a request, in one go."""
    try:
        address = b"\x01" + socket.inet_aton(host)
    except OSError:
        address = bytes((3, len(host))) + host.encode()
    return b"\x05\x01\x00\x05" + bytes((command, 0)) + address + b"\0\x50"


class Setting:
    """A server and what clients do to it."""

    def __init__(self, program: Program, directory: Path) -> None:
        self.program = program
        self.directory = directory
        self.port = int(program.wait_for(r"listening on tcp:127\.0\.0\.1:(\d+)")[1])
        self.clients: list[socket.socket] = []
        # It handles signals when it serves: it listens a moment before.
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as client:
            client.sendall(b"\x05\x02\x00\x02")
            assert len(client.recv(2)) == 2

    def send(self, *requests: bytes) -> None:
        for data in requests:
            client = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
            client.sendall(data)
            self.clients.append(client)
        time.sleep(0.3)  # nothing tells that a thread hangs


def names(setting: Setting) -> None:
    setting.send(*(request(Command.CONNECT, f"slow{number}.test") for number in range(20)))


def addresses(setting: Setting) -> None:
    setting.send(*[request(Command.RESOLVE_PTR, "192.0.2.1")] * 12)


def reload(setting: Setting) -> None:
    config = setting.directory / "socks.toml"
    config.write_text(config.read_text() + '[sets.a]\nnames-file = "hangs.txt"\n')
    (setting.directory / "hangs.txt").write_text("a.example\n")
    setting.program.process.send_signal(signal.SIGHUP)
    time.sleep(0.3)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another process holds the file of quotas."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("hang", [names, addresses, reload], ids=lambda hang: hang.__name__)
def test_look_ups_and_files(
    twistd: Callable[..., Program], tmp_path: Path, hang: Callable[[Setting], None], workers: int
) -> None:
    """Names, addresses, and a file in a reload."""
    (tmp_path / "socks.toml").write_text("[listeners]\nport = 0\n")
    environment = {"PYTHONPATH": SLOW, "SLOW_SECONDS": "60"}
    program = twistd("socks", "--config=socks.toml", f"--workers={workers}", environment=environment)
    setting = Setting(program, tmp_path)
    hang(setting)
    began = time.monotonic()
    status = program.stop()
    assert time.monotonic() - began < WITHIN
    assert status in (0, -signal.SIGTERM), program.output
    assert "Traceback" not in program.output


@pytest.mark.parametrize("workers", [1, 2])
def test_passwords_and_database(twistd: Callable[..., Program], tmp_path: Path, workers: int) -> None:
    """Hashes that take seconds, and a file of quotas that another process holds."""
    bcrypt = pytest.importorskip("bcrypt")
    (tmp_path / "users").write_bytes(b"bob:" + bcrypt.hashpw(b"secret", bcrypt.gensalt(4)) + b"\n")
    costly = bcrypt.gensalt(4).replace(b"$04$", b"$17$") + b"a" * 31
    (tmp_path / "socks.toml").write_text(
        '[listeners]\nport = 0\n[authentication]\nauth = ["htpasswd:users"]\n'
        '[limits]\nquota-file = "usage"\n[limits.server]\ndaily = "1 GB"\n'
    )
    program = twistd("socks", "--config=socks.toml", f"--workers={workers}")
    setting = Setting(program, tmp_path)
    (tmp_path / "users").write_bytes(b"bob:" + costly + b"\n")
    time.sleep(1.1)  # the file is looked at once a second
    setting.send(*[b"\x05\x01\x02\x01\x03bob\x05wrong"] * 8)
    with ExitStack() as stack:
        stack.enter_context(locked(tmp_path / "usage"))
        began = time.monotonic()
        program.stop()
        assert time.monotonic() - began < WITHIN


#: Answers, and does not end by itself.
STAYS = """#!{python}
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: open("terminated", "w"))
with open("pid", "w") as file:
    file.write(str(os.getpid()))
for line in sys.stdin:
    print("OK", flush=True)
open("no more input", "w")
while True:
    time.sleep(60)
"""


def lives(pid: str) -> bool:
    """Whether there is a process with this number that has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize("workers", [1, 2])
def test_helper(twistd: Callable[..., Program], tmp_path: Path, workers: int) -> None:
    """A helper reads the end of its input, then gets SIGTERM and SIGKILL: none is left behind."""
    program = tmp_path / "helper"
    program.write_text(STAYS.replace("{python}", sys.executable))
    program.chmod(0o755)
    (tmp_path / "socks.toml").write_text(
        f'[listeners]\nport = 0\n[helpers.one]\ncommand = ["{program}"]\n'
        '[[rule]]\nname = "all"\nallow = true\nnetworks = ["0.0.0.0/0"]\nask = "one"\n'
    )
    setting = Setting(twistd("socks", "--config=socks.toml", f"--workers={workers}"), tmp_path)
    with socket.create_connection(("127.0.0.1", setting.port), PATIENCE) as client:
        client.sendall(request(Command.CONNECT, "127.0.0.1"))
        assert len(client.recv(2)) == 2
        assert len(client.recv(10)) == 10
    pid = (tmp_path / "pid").read_text()
    assert lives(pid)
    began = time.monotonic()
    setting.program.stop()
    assert time.monotonic() - began < WITHIN
    assert not lives(pid)
    assert (tmp_path / "no more input").exists()
    assert (tmp_path / "terminated").exists()
