"""twistd's own files: see :mod:`socksproxy.service.daemon`."""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.python.usage import UsageError

from socksproxy.service import daemon
from socksproxy.service.daemon import prepare_files

from ..support.logs import heard
from ..support.processes import PATIENCE, TWISTD, Program

#: In which nobody can make a file, not even root.
UNWRITABLE = "/proc"


def files(**more: Any) -> dict[str, Any]:
    """What twistd has of its options when it reads ours."""
    return {"pidfile": "twistd.pid", "logfile": None, "nodaemon": True, "chroot": None, **more}


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def lines() -> Iterator[list[str]]:
    with heard() as said:
        yield said


@pytest.fixture
def other() -> Iterator[Callable[..., int]]:
    """``other(...)``: the number of a process that is there."""
    processes = []

    def started(*command: str) -> int:
        processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        assert processes[-1].stdout is not None
        processes[-1].stdout.read(1)
        return processes[-1].pid

    yield started
    for process in processes:
        process.kill()
        process.communicate()


def test_own_number(directory: Path, lines: list[str]) -> None:
    """A container that was killed leaves the number that the next one's server has, too."""
    (directory / "twistd.pid").write_text(str(os.getpid()))
    prepare_files(files())
    assert not (directory / "twistd.pid").exists()
    assert "is removed: the server that wrote it does not run any more" in lines[0]


def test_empty(directory: Path) -> None:
    """The server was killed before it had written its number."""
    (directory / "twistd.pid").write_text("")
    prepare_files(files())
    assert not (directory / "twistd.pid").exists()


@pytest.mark.parametrize(
    "command",
    [
        ("sh", "-c", "echo; read answer; : twistd"),
        (sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"),
    ],
)
def test_another_program(command: tuple[str, ...], directory: Path, other: Callable[..., int]) -> None:
    """The number is another program's by now: a shell's that starts servers, or some Python's."""
    (directory / "twistd.pid").write_text(f"{other(*command)}\n")
    prepare_files(files())
    assert not (directory / "twistd.pid").exists()


@pytest.mark.parametrize("text", ["running", "twistd", "999999999", "1 2"])
def test_left_alone(text: str, directory: Path, other: Callable[..., int]) -> None:
    """A server that runs keeps its file, and what twistd has words for itself is its own."""
    if text == "running":
        command = "import sys; print(flush=True); sys.stdin.read(); 'twistd'"
        text = str(other(sys.executable, "-c", command))
    (directory / "twistd.pid").write_text(text)
    prepare_files(files())
    assert (directory / "twistd.pid").read_text() == text


@pytest.mark.parametrize("text", ["0", "-1", "-0", "2147483648", "99999999999999999999"])
def test_no_number_of_a_process(text: str, directory: Path, lines: list[str]) -> None:
    """No process has such a number: twistd takes it for a server that runs, or fails with a traceback."""
    (directory / "twistd.pid").write_text(text)
    prepare_files(files())
    assert not (directory / "twistd.pid").exists()
    assert "is removed: the server that wrote it does not run any more" in lines[0]


def test_other_programs_options() -> None:
    """``twist`` has no PID file."""
    options: dict[str, Any] = {"reactor": "default"}
    prepare_files(options)
    assert options == {"reactor": "default"}


def test_unwritable(monkeypatch: pytest.MonkeyPatch, lines: list[str]) -> None:
    """Nobody has asked for the PID file, so there is none."""
    monkeypatch.chdir(UNWRITABLE)
    options = files()
    prepare_files(options)
    assert options["pidfile"] == ""
    assert "there is no PID file: /proc/twistd.pid: no such file" in lines[0]


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"pidfile": "/proc/socks.pid"}, "--pidfile /proc/socks.pid: no such file"),
        ({"pidfile": "/nonexistent/socks.pid"}, "--pidfile /nonexistent/socks.pid: no such file"),
        ({"pidfile": "."}, "--pidfile .: not a file"),
        ({"logfile": "/proc/socks.log"}, "--logfile /proc/socks.log: no such file"),
        ({"logfile": "/nonexistent/socks.log"}, "--logfile /nonexistent/socks.log: no such file"),
        ({"nodaemon": False, "pidfile": "", "chdir": UNWRITABLE}, "/proc/twistd.log: no such file.*or -n"),
    ],
)
def test_what_was_asked_for(more: dict[str, Any], text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the operator has asked for and cannot be is an error, in one line."""
    monkeypatch.chdir(more.pop("chdir", "."))
    with pytest.raises(UsageError, match=text) as caught:
        prepare_files(files(**more))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "more",
    [
        {"nodaemon": False, "logfile": "-"},
        {"logfile": "twistd.log"},
        {"nodaemon": False},
        {"nodaemon": False, "logfile": "/dev/null"},
        {"nodaemon": False, "syslog": True},
        {"nodaemon": False, "logger": "somewhere.else"},
        {"pidfile": "", "logger": "somewhere.else"},
        {"pidfile": "socks.pid", "syslog": True},
        {"pidfile": "/nonexistent/in/here.pid", "chroot": "/nonexistent", "logfile": "twistd.log"},
    ],
)
def test_nothing_to_do(more: dict[str, Any], directory: Path) -> None:
    """All is well, and nothing has been made or changed."""
    options = files(**more)
    before = dict(options)
    prepare_files(options)
    assert options == before
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize(
    ("logfile", "name"),
    [
        (None, "standard_output"),
        ("-", "standard_output"),
        ("/dev/stdout", "standard_output"),
        ("/dev/fd/1", "standard_output"),
        ("/dev/stderr", "standard_error"),
    ],
)
def test_streams_of_the_log(logfile: str | None, name: str) -> None:
    """twistd's own log does not wait for the reader of a stream, by whatever name the stream goes."""
    options = files(logfile=logfile)
    prepare_files(options)
    assert options["logger"] == f"socksproxy.service.daemon.{name}"
    assert callable(getattr(daemon, name)())


@pytest.mark.parametrize("name", ["standard_output", "standard_error"])
def test_no_stream(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is started without the stream logs to nowhere, and not to what has its number."""
    monkeypatch.setattr("sys.stdout", None)
    monkeypatch.setattr("sys.stderr", None)
    getattr(daemon, name)()({"log_format": "lost", "log_time": 0.0})


@pytest.mark.parametrize("arguments", [[], ["--workers=2"]], ids=["one process", "workers"])
@pytest.mark.parametrize("log", [[], ["--logfile=/dev/stderr"]], ids=["standard output", "standard error"])
def test_log_that_nothing_reads(log: list[str], arguments: list[str], directory: Path) -> None:
    """The server serves, stops on SIGTERM, and tells how many lines are lost."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    path = directory / "socks"
    with subprocess.Popen(
        [*TWISTD, "-n", "--pidfile=", *log, "socks", f"--listen=haproxy:unix:{path}", *arguments],
        stdout=writing,
        stderr=writing,
    ) as process:
        try:
            for _ in range(80):
                assert _refused(path) == 2
            assert os.get_blocking(writing)
            said = os.read(reading, 65536)
            process.terminate()
            process.wait(PATIENCE)
        finally:
            process.kill()
    os.close(writing)
    while data := os.read(reading, 65536):
        said += data
    os.close(reading)
    assert re.search(rb"\n[^\n]* [0-9]+ lines of this log are lost: nothing has read them in time\n", said)


def _refused(path: Path) -> int:
    """The reply to a request that is not allowed, which is a line of the log."""
    deadline = time.monotonic() + PATIENCE
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        while client.connect_ex(str(path)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        client.sendall(b"PROXY TCP4 203.0.113.9 192.0.2.2 4000 1080\r\n")
        client.sendall(bytes.fromhex("050100 05010001 7f000001 0009"))
        replies = client.makefile("rb").read(4)
        return replies[3]


def test_after_a_kill(directory: Path, start: Callable[..., Program]) -> None:
    """As ``docker kill`` and ``docker start`` have it: the same number, and the file of the one before."""
    command = " ".join(map(shlex.quote, [*TWISTD, "-n", "socks", "-p", "0"]))
    program = start(["sh", "-c", f"echo $$ > twistd.pid; exec {command}"])
    program.wait_for("listening on")
    assert "is removed: the server that wrote it" in program.output
    assert (directory / "twistd.pid").read_text() == str(program.process.pid)


def test_a_second_server(directory: Path, start: Callable[..., Program]) -> None:
    """One that runs is in the way, as ever."""
    first = start([*TWISTD, "-n", "socks", "-p", "0"])
    first.wait_for("listening on")
    second = start([*TWISTD, "-n", "socks", "-p", "0"])
    assert second.wait() == 1
    assert f"Another twistd server is running, PID {first.process.pid}" in second.output
    assert (directory / "twistd.pid").exists()


@pytest.mark.parametrize("daemonized", [False, True])
def test_unwritable_directory(daemonized: bool, directory: Path) -> None:
    """In the foreground the server starts, and a daemon says what it lacks; neither has a traceback."""
    command = [*TWISTD, *(() if daemonized else ("-n",)), "socks", "-p", "0"]
    with subprocess.Popen(
        command, cwd=UNWRITABLE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if "listening on" in line:
                process.terminate()
        status = process.wait(PATIENCE)
    assert "Traceback" not in said
    if daemonized:
        assert status == 1
        assert "/proc/twistd.log: no such file or directory; give twistd --logfile, --syslog or -n" in said
    else:
        assert "there is no PID file" in said
        assert status in (0, -15)
