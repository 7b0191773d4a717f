"""Lists that are drawn again and again: see :mod:`socksproxy.ctl.watch` and :mod:`socksproxy.ctl.screen`."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from socksproxy.ctl.text import width_of

from ..support.ctl import Operator, answer, scripted
from .test_command import CTL, STATUS

#: Seconds.
_PATIENCE = 60.0


def row(**changes: Any) -> dict[str, Any]:
    return {
        "id": "1764468000000.1.17",
        "user": "bob",
        "client": "192.0.2.7:40000",
        "destination": "example.org:443",
        "phase": "relaying",
        "rate": 1500.0,
        "sent": 1000,
        "received": 2000,
        "age": 61.0,
        **changes,
    }


def page(*rows: dict[str, Any], **more: Any) -> bytes:
    body = {"sessions": rows, "total": len(rows), "live": 9, "cursor": None, "missing": [], **more}
    return answer(json.dumps(body))


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, command: list[str], columns: int, lines: int) -> None:
        self.output = ""
        self._end, other = pty.openpty()
        self.resize(columns, lines)
        self.process = subprocess.Popen(
            command,
            stdin=other,
            stdout=other,
            stderr=other,
            start_new_session=True,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
        os.close(other)

    def say(self, data: bytes) -> None:
        os.write(self._end, data)

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._end, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def until(self, condition: Callable[[str], object]) -> str:
        """What was drawn, as soon as it is as *condition* says."""
        deadline = time.monotonic() + _PATIENCE
        while not condition(self.output):
            assert select.select([self._end], [], [], deadline - time.monotonic())[0], self.output
            try:
                self.output += os.read(self._end, 65536).decode()
            except OSError:  # the program has ended
                assert condition(self.output), self.output
        return self.output

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._end)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    made: list[Terminal] = []

    def start(*arguments: str, columns: int = 80, lines: int = 24) -> Terminal:
        made.append(Terminal([*CTL, *arguments], columns, lines))
        return made[-1]

    yield start
    for each in made:
        each.close()


def drawings(output: str) -> list[list[str]]:
    """The lines of each drawing."""
    return [re.sub(r"\x1b\[[?0-9]*[A-Za-z]", "", each).split("\r\n") for each in output.split("\x1b[H")[1:]]


HOSTILE = [
    row(user="\x1b]0;title\x07\x1b[2J"),
    row(user="\u202e" + "evil" * 50, destination="日本語" * 30),
    row(user="e\u0301" * 200, client="[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:65535"),
    row(user=None, destination=None, phase="negotiating"),
    row(user="שלום" * 50),
]


def test_top_on_a_terminal(terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    """80 columns are enough, whatever names there are; Ctrl-C leaves the terminal as it was."""
    path = tmp_path / "admin"
    with scripted(path, [page(*HOSTILE, total=12), answer(json.dumps(STATUS))] * 2):
        screen = terminal("top", "-s", str(path), "--every", "0.2")
        screen.until(lambda output: output.count("\x1b[J") >= 2)
        screen.until(lambda output: "trying again" in output)  # the script is over
        os.kill(screen.process.pid, signal.SIGINT)
        output = screen.until(lambda output: output.endswith("\x1b[?25h\x1b[?1049l"))
        assert screen.process.wait(_PATIENCE) == 130
    lines = drawings(output)[0]
    assert max(map(width_of, lines)) <= 80
    assert all(line.isprintable() for line in lines)
    assert lines[1] == "socksproxy 1: running, up 1h01m, workers 1 of 2"
    assert lines[2:4] == ["7 sessions (7 relaying)", "12 match; these move 7.5 kB/s"]
    assert lines[5].split() == ["ID", "USER", "CLIENT", "DESTINATION", "RATE", "BYTES", "AGE"]
    assert lines[6].endswith("1.5 kB/s  3.0 kB  1m01s")
    assert lines[11] == "and 7 more"
    assert r"\x1b]" in lines[6]
    assert "(nego" in lines[9]
    assert not set(output.split("\x1b[?25l")[1]) & {"\x07", "\u202e"}


def test_restart(terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    """The list goes on when the server is back."""
    path = tmp_path / "admin"
    screen = None
    with scripted(path, [page(row(user="first"))]):
        screen = terminal("sessions", "--watch", "-s", str(path), "--every", "0.1")
        screen.until(lambda output: "first" in output)
        screen.until(lambda output: "No such file or directory; trying again" in output)
    with scripted(path, [page(row(user="second"))]):
        screen.until(lambda output: "second" in output)


def test_resize(terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    """Another size is drawn for at once."""
    path = tmp_path / "admin"
    with scripted(path, [page(row(destination="x" * 200))] * 2):
        screen = terminal("sessions", "--watch", "-s", str(path), "--every", "1h")
        screen.until(lambda output: output.count("\x1b[J") == 1)
        screen.resize(120, 10)
        os.kill(screen.process.pid, signal.SIGWINCH)  # this process is not the terminal's foreground
        output = screen.until(lambda output: output.count("\x1b[J") == 2)
    first, second = (max(map(width_of, lines)) for lines in drawings(output))
    assert (first, second) == (80, 120)


def test_few_lines(terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    """A list is never longer than the terminal."""
    path = tmp_path / "admin"
    with scripted(path, [page(*[row()] * 30)]) as requests:
        screen = terminal("sessions", "--watch", "-s", str(path), "--count", "1", lines=10)
        output = screen.until(lambda output: output.endswith("\x1b[?1049l"))
        assert screen.process.wait(_PATIENCE) == 0
    assert len(drawings(output)[0]) == 10
    assert requests[0].startswith(b"GET /v1/sessions?limit=4 ")


def test_no_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Elsewhere each drawing follows the one before, without any escape, and nothing is cut."""
    path = tmp_path / "admin"
    ctl = Operator(capsys, path)
    with scripted(path, [page(row(user="x" * 100)), page(row(user="y" * 100))]):
        status, told, _ = ctl("sessions", "--watch", "--every", "0.1", "--count", "2")
    assert (status, "\x1b" in told) == (0, False)
    assert "x" * 100 in told
    assert "y" * 100 in told.split("\n\n")[-1]
    with scripted(path, [page(row()), answer(json.dumps(STATUS))]):
        status, told, _ = ctl("top", "--count", "1", "--json")
        assert json.loads(told)["sessions"] == [row()]


def test_what_cannot_get_better(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A watch ends with the reason when there is no server at first, or when it refuses."""
    path = tmp_path / "admin"
    ctl = Operator(capsys, path)
    assert ctl("top")[0] == 3
    refusal = answer('{"error": "client: neither an address nor a network: x"}', "400 Bad Request")
    with scripted(path, [refusal]):
        status, _, complaints = ctl("sessions", "--watch", "--client", "x")
    assert (status, complaints) == (1, "socksproxy ctl: client: neither an address nor a network: x\n")


def test_pages(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """All sessions are listed, page by page."""
    path = tmp_path / "admin"
    ctl = Operator(capsys, path)
    with scripted(
        path, [page(row(user="a"), total=2, cursor="1@2"), page(row(user="b"), total=2)]
    ) as requests:
        status, told, _ = ctl("sessions", "--limit", "0", "--sort", "rate", "--json")
    assert status == 0
    assert [each["user"] for each in json.loads(told)["sessions"]] == ["a", "b"]
    assert requests[1].startswith(b"GET /v1/sessions?sort=rate&limit=1000&cursor=1%402 ")


@pytest.mark.parametrize(("said", "status", "requests"), [(b"y\n", 0, 2), (b"\n", 1, 1), (b"\x04", 1, 1)])
def test_question(
    said: bytes, status: int, requests: int, terminal: Callable[..., Terminal], tmp_path: Path
) -> None:
    """Many sessions are ended after a yes, and as many as were told."""
    matched = answer('{"matched": 3, "ended": 0, "missing": []}')
    ended = answer('{"matched": 3, "ended": 3, "missing": []}')
    path = tmp_path / "admin"
    with scripted(path, [matched, ended]) as asked:
        screen = terminal("kill", "--user", "bob", "-s", str(path))
        screen.until(lambda output: "End 3 sessions? [y/N] " in output)
        screen.say(said)
        assert screen.process.wait(_PATIENCE) == status
        assert len(asked) == requests
    assert b'"dry_run": true' in asked[0]
    assert status or b'"expect": 3' in asked[1]


def test_ctrl_c_elsewhere(tmp_path: Path) -> None:
    """Without a terminal, too, Ctrl-C ends it without a traceback."""
    path = tmp_path / "admin"
    with scripted(path, [page(row())]):
        process = subprocess.Popen(
            [*CTL, "sessions", "--watch", "-s", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=_PATIENCE)
    assert (process.returncode, complaints) == (130, b"")
