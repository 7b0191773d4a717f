"""The access log on what the process was given: pipes, sockets, terminals and files."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from socksproxy.logs.access_log import AccessLog
from socksproxy.logs.streams import StreamWriter, own_descriptor
from socksproxy.net.resources import CheckedResources

from ..support.logs import EVENT
from ..support.processes import PATIENCE, TWISTD


@contextmanager
def _stream(kind: str, tmp_path: Path) -> Iterator[tuple[int, int]]:
    """What is written to, and where it is read."""
    if kind == "pipe":
        reading, writing = os.pipe()
    elif kind == "socket":
        reading, writing = (end.detach() for end in socket.socketpair())
    elif kind == "terminal":
        reading, writing = pty.openpty()
    else:
        path = tmp_path / "stream.log"
        mode = os.O_APPEND if kind == "appended file" else 0
        writing = os.open(path, os.O_WRONLY | os.O_CREAT | mode)
        reading = os.open(path, os.O_RDONLY)
    try:
        yield writing, reading
    finally:
        for descriptor in (writing, reading):
            with suppress(OSError):
                os.close(descriptor)


KINDS = ("pipe", "socket", "terminal", "file", "appended file")


def _read(reading: int) -> str:
    with suppress(BlockingIOError, OSError):  # a terminal whose other end is closed has an error
        os.set_blocking(reading, False)
        return os.read(reading, 1 << 20).decode()
    return ""


@pytest.mark.parametrize("kind", KINDS)
def test_descriptor(kind: str, tmp_path: Path) -> None:
    """A line arrives, by any name of the descriptor, and after SIGUSR1; the stream stays as it was."""
    with _stream(kind, tmp_path) as (writing, reading):
        for name in ("/dev/fd", "/proc/self/fd"):
            log = AccessLog(f"{name}/{writing}")
            log(EVENT)
            log.reopen()
            log(EVENT)
            log.close()
        assert os.get_blocking(writing)
        # What is written to a terminal does not arrive at once.
        said = _wait_for(reading, "(?s)(?:client=192.0.2.1:5555.*ended=.*){4}")
        assert said.count("client=192.0.2.1:5555") == 4


@pytest.mark.parametrize("kind", ["pipe", "socket", "terminal"])
def test_full(kind: str, tmp_path: Path) -> None:
    """A reader who does not read costs lines, and never stops the server."""
    with _stream(kind, tmp_path) as (writing, reading):
        log = AccessLog(f"/dev/fd/{writing}", "json")
        began = time.monotonic()
        for _ in range(3000):
            log(EVENT)
        assert time.monotonic() - began < PATIENCE
        assert _wait_for(reading, "192.0.2.1:5555")
        log.close()


def _refused(path: str, *arguments: Any) -> int:
    raise PermissionError(13, "Permission denied", path)


def _told(lost: int) -> str:
    return f"{lost} lost\n"


@pytest.mark.parametrize("kind", ["pipe", "socket", "terminal"])
@pytest.mark.parametrize("shared", [False, True])
def test_text_is_lost(kind: str, shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has no room is counted; what is written arrives whole, also where the stream stays shared."""
    with _stream(kind, tmp_path) as (writing, reading):
        if shared:
            monkeypatch.setattr(os, "open", _refused)
        writer = StreamWriter(f"/dev/fd/{writing}", _told)
        monkeypatch.undo()
        for number in range(3000):
            writer.write(f"{number} {'x' * 600}\n")
        said = _wait_for(reading, "^0 x")
        writer.write("a\n")
        while len(said) < 1 << 20 and (more := _read(reading)):
            said += more
        writer.write("after\n")
        said += _wait_for(reading, "after")
        assert os.get_blocking(writing)
        writer.close()
    lines = said.splitlines()
    whole = [line for line in lines if re.fullmatch(r"[0-9]+ x{600}", line)]
    rest = [line for line in lines if line not in whole and line not in ("a", "after")]
    lost = sum(int(line.removesuffix(" lost")) for line in rest)
    assert lost > 0
    assert len(whole) + lost + lines.count("a") == 3001
    numbers = [int(line.split()[0]) for line in whole]
    assert numbers == sorted(numbers)


def test_text_without_a_reader() -> None:
    """A pipe that nothing can read any more raises nothing."""
    reading, writing = os.pipe()
    writer = StreamWriter(f"/dev/fd/{writing}", _told)
    os.close(writing)
    os.close(reading)
    writer.write("one\n")
    writer.write("two \udcff\n")
    writer.close()
    writer.close()


def test_of_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that cannot be opened anew, as in a container that is not root's, is written all the same."""

    reading, writing = os.pipe()
    monkeypatch.setattr(os, "open", _refused)
    log = AccessLog(f"/dev/fd/{writing}")
    monkeypatch.undo()
    for _ in range(1000):
        log(EVENT)
    assert _read(reading).startswith("2023-11-1")
    log.close()
    os.close(writing)
    os.close(reading)


def test_shared_file(tmp_path: Path) -> None:
    """Lines of the access log do not cover others in a file that is not opened for appending."""
    with _stream("file", tmp_path) as (writing, reading):
        log = AccessLog(f"/dev/fd/{writing}")
        for number in range(3):
            log(EVENT)
            os.write(writing, b"other %d\n" % number)
        log.close()
        text = _read(reading)
    lines = text.splitlines()
    assert lines[1::2] == ["other 0", "other 1", "other 2"]
    assert all(re.fullmatch(r"2023-.* client=192.0.2.1:5555 .* ended=.*", line) for line in lines[::2])


def test_names() -> None:
    """Files beside those in /dev are files."""
    assert own_descriptor("/dev/stdout") == 1
    assert own_descriptor("/dev/stderr") == 2
    assert own_descriptor("/dev/fd/7") == own_descriptor("/proc/self/fd/7") == 7
    for path in ("/dev/null", "/tmp/dev/stdout", "/dev/fd/x", "/dev/fd/", "/dev/stdout2"):
        assert own_descriptor(path) is None


def test_closed() -> None:
    """A stream that is not there is an error, for ``check`` too."""
    descriptor = fcntl.fcntl(0, fcntl.F_DUPFD, 900)
    os.close(descriptor)
    with pytest.raises(OSError, match="Bad file"):
        AccessLog(f"/dev/fd/{descriptor}")
    with pytest.raises(OSError, match="Bad file"):
        CheckedResources(None).access_log(f"/dev/fd/{descriptor}", "text")


@pytest.mark.parametrize(
    ("kind", "name", "workers"),
    [
        ("pipe", "stdout", ()),
        ("socket", "stdout", ("--workers=2",)),
        ("socket", "stderr", ()),
        ("terminal", "stdout", ()),
        ("file", "stderr", ("--workers=2",)),
    ],
)
def test_streams(kind: str, name: str, workers: Sequence[str], tmp_path: Path) -> None:
    """The whole server writes its access log to a standard stream, before SIGUSR1 and after it."""
    with _stream(kind, tmp_path) as (writing, reading):
        path = tmp_path / "socks"
        process = subprocess.Popen(  # type: ignore[call-overload]
            [*TWISTD, "-n", "--pidfile=", "socks", f"--listen=unix:{path}", "-l", f"/dev/{name}", *workers],
            stdin=subprocess.DEVNULL,
            cwd=tmp_path,
            **{"stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT, name: writing},
        )
        try:
            said = ""
            for version in (b"\x07", b"\x08"):
                _come_and_go(path, version)
                said += _wait_for(reading, "ended=", "protocol error|not SOCKS")
                process.send_signal(signal.SIGUSR1)
            assert "Traceback" not in said
            assert said.count("client=unix") == 2
        finally:
            process.terminate()
            process.wait(PATIENCE)


def _come_and_go(path: Path, data: bytes) -> None:
    deadline = time.monotonic() + PATIENCE
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        while True:
            try:
                client.connect(str(path))
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        client.sendall(data)
        with suppress(OSError):
            client.recv(1)


def _wait_for(reading: int, *patterns: str) -> str:
    deadline, said = time.monotonic() + PATIENCE, ""
    while not all(re.search(pattern, said) for pattern in patterns):
        assert time.monotonic() < deadline, said
        said += _read(reading)
        time.sleep(0.02)
    return said
