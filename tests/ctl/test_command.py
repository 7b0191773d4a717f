"""From the command line to the exit status: see :mod:`socksproxy.ctl.command`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from socksproxy.ctl.command import main, parser
from socksproxy.ctl.subcommands import SUBCOMMANDS

from ..support.ctl import Operator, answer, scripted

CTL = (sys.executable, "-m", "socksproxy", "ctl")

STATUS: dict[str, Any] = {
    "state": "running",
    "why": None,
    "drain": "none",
    "version": "1",
    "python": "3",
    "twisted": "26",
    "pid": 1,
    "generation": 5,
    "started": 0,
    "uptime": 3700,
    "workers": {"running": 1, "configured": 2},
    "config": {"file": "socks.toml", "hash": "ab", "loaded": 0},
    "sessions": 7,
    "phases": {"relaying": 7},
    "missing": [],
}


def test_status(ctl: Operator, tmp_path: Path) -> None:
    with scripted(tmp_path / "admin", [answer(json.dumps(STATUS))] * 2) as requests:
        status, told, complaints = ctl("status")
        assert (status, complaints) == (0, "")
        assert "state          running\n" in told
        assert "sessions       7 (7 relaying)\n" in told
        assert "uptime         1h01m, since " in told
        status, told, _ = ctl("status", "--json")
        assert (status, json.loads(told)) == (0, STATUS)
    assert requests[0].startswith(b"GET /v1/status HTTP/1.0\r\nHost: localhost\r\n")


def test_done_in_part(ctl: Operator, tmp_path: Path) -> None:
    """What some workers have not answered is shown, and the status tells that it is not all."""
    with scripted(tmp_path / "admin", [answer(json.dumps({**STATUS, "missing": [2]}))]):
        status, told, complaints = ctl("status")
    assert (status, complaints) == (5, "socksproxy ctl: no answer from the workers 2\n")
    assert "running" in told


@pytest.mark.parametrize(
    ("reply", "status", "words"),
    [
        (answer('{"error": "there is no such thing"}', "404 Not Found"), 1, "there is no such thing"),
        (answer('{"error": "a\\u001b[2Jb"}', "409 Conflict"), 1, r"a\x1b[2Jb"),
        (answer("<html>", "502 Bad Gateway"), 1, "the server answers with the status 502"),
        (answer("<html>"), 1, "the answer is not JSON: this is no admin socket of socksproxy"),
        (b"SSH-2.0-x\r\n", 1, "the answer is not HTTP: this is no admin socket of socksproxy"),
        (b"", 3, "the server closes the connection without an answer"),
        (
            b"HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\n{",
            3,
            "the answer ends in the middle: the server went away",
        ),
    ],
)
def test_refused(reply: bytes, status: int, words: str, ctl: Operator, tmp_path: Path) -> None:
    """The reason is on standard error, in a line that does nothing to a terminal."""
    with scripted(tmp_path / "admin", [reply]):
        assert ctl("status") == (status, "", f"socksproxy ctl: {words}\n")


def test_mistakes(ctl: Operator, tmp_path: Path) -> None:
    """Each mistake of a configuration that is not loaded has a line."""
    body = json.dumps({"error": "not reloaded: 2 mistakes", "mistakes": ["a: x", "b: y"]})
    with scripted(tmp_path / "admin", [answer(body, "422 Unprocessable Content")]):
        status, _, complaints = ctl("reload")
    assert status == 1
    assert complaints.splitlines() == [
        f"socksproxy ctl: {line}" for line in ("a: x", "b: y", "not reloaded: 2 mistakes")
    ]


def test_nodes(ctl: Operator, tmp_path: Path) -> None:
    """What was done on one node of several is done in part, unless that was asked for."""
    alone = answer('{"ended": 2, "missing": [], "nodes": "this"}')
    answers = (
        *('{"unlocked": 1}', '{"ended": 0, "missing": [], "nodes": "all"}'),
        '{"unlocked": 0, "missing": [], "nodes": "all"}',
    )
    with scripted(tmp_path / "admin", [alone, alone, *map(answer, answers)]) as requests:
        words = "socksproxy ctl: done on this node alone: the shared store is down\n"
        assert ctl("kick", "bob") == (5, "2 sessions ended on this node\n", words)
        assert ctl("kick", "bob", "--this-node") == (0, "2 sessions ended on this node\n", "")
        assert ctl("unlock", "192.0.2.7", "--this-node")[0] == 0
        told = "; the other nodes are told\n"
        assert ctl("kick", "bob") == (0, f"0 sessions ended on this node{told}", "")
        assert ctl("unlock", "192.0.2.7") == (0, f"192.0.2.7 was not locked out on this node{told}", "")
    assert requests[1].endswith(b'{"nodes": "this"}')
    assert requests[2].startswith(b"DELETE /v1/lockouts/192.0.2.7?nodes=this ")


def test_no_server(ctl: Operator, tmp_path: Path) -> None:
    path = tmp_path / "admin"
    assert ctl("status") == (3, "", f"socksproxy ctl: {path}: No such file or directory\n")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        assert ctl("status") == (3, "", f"socksproxy ctl: {path}: Connection refused\n")


def test_time_over(ctl: Operator, tmp_path: Path) -> None:
    """A server that does not answer is not waited for without an end."""
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(tmp_path / "admin"))
        mute.listen()
        status, _, complaints = ctl("status", "--timeout", "0.1")
    assert (status, complaints[-29:]) == (4, "no answer within 0.1 seconds\n")


def test_drop_by_drop(ctl: Operator, tmp_path: Path) -> None:
    """The time is that of the whole answer, and not of each of its bytes."""
    path, done = tmp_path / "admin", threading.Event()

    def serve() -> None:
        client, _ = mute.accept()
        with client, suppress(OSError):
            while not done.wait(0.02):
                client.sendall(b"H")

    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(path))
        mute.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            assert ctl("status", "--timeout", "0.5")[0] == 4
        finally:
            done.set()
            thread.join()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["stats"],
        ["status", "--nothing"],
        ["show"],
        ["sessions", "--older", "soon"],
        ["sessions", "--limit", "-1"],
        ["listener", "x", "stop"],
        ["wait", "rdy"],
        ["wait", "generation:x"],
        ["kill"],
        ["kill", "1.1.1", "--user", "bob"],
        ["limit", "bob"],
        ["limit", "bob", "sessions"],
        ["trace"],
        ["trace", "--user", "bob", "--client", "::1"],
        ["sessions", "--every", "2"],
        ["raw", "GET", "v1"],
        ["raw", "GET", "/v1 x"],
        ["raw", "POST", "/v1/reload", "{"],
        ["status", "--server", "ftp://x:1"],
        ["status", "--server", "http://localhost"],
        ["status", "--token-file", "/nowhere"],
        ["status", "--node", "n1", "--node", "n2"],
        ["kill", "--user", "bob", "--user", "ann"],
        ["usage", "--from", "2026-11-01", "--to", "2026-11"],
        ["usage", "--month", "--to", "2026-11-30"],
        ["usage", "--from", "2026-12", "--to", "2026-11"],
        ["--server", "x", "status", "--server", "y"],
        ["status", "a\nb"],
        ["status", "--server", "http://a..b:1"],
    ],
)
def test_usage(arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What makes no sense has the status 2, and one line says why."""
    (tmp_path / "x").touch()
    try:
        status = main([*arguments[:1], *arguments[1:]])
    except SystemExit as end:
        status = end.code  # type: ignore[assignment]
    assert status == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("socksproxy ctl")


def test_given_twice(capsys: pytest.CaptureFixture[str]) -> None:
    """Of two values, none is chosen silently."""
    with pytest.raises(SystemExit):
        main(["drain", "--node", "n1", "--node=n2"])
    assert capsys.readouterr().err.endswith("socksproxy ctl drain: error: --node is given twice\n")


def test_options_stand_anywhere() -> None:
    """The common options stand before the subcommand and behind it."""
    for arguments in (
        ["--json", "-s", "x", "status"],
        ["status", "--json", "-s", "x"],
        ["-s", "x", "status", "--json"],
    ):
        options = parser().parse_args(arguments)
        assert (options.json, options.server, options.subcommand.name) == (True, "x", "status")


@pytest.mark.parametrize("name", [each.name for each in SUBCOMMANDS])
def test_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each subcommand has help, and 80 columns are enough for it."""
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    told = capsys.readouterr().out
    assert told.startswith(f"usage: socksproxy ctl {name}")
    assert max(map(len, told.splitlines())) <= 80


def _run(*command: str, without: str = "-", **more: str) -> subprocess.CompletedProcess[str]:
    """With *more* variables, and none whose name begins with *without*."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(without)}
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**environ, **more},
    )


def test_the_usual_socket(tmp_path: Path) -> None:
    """The server is found without an option; the variable, and then the option, say more."""
    (tmp_path / "socksproxy").mkdir()
    for path, more in (
        (tmp_path / "socksproxy/admin.sock", {"XDG_RUNTIME_DIR": str(tmp_path)}),
        (tmp_path / "admin.sock", {"RUNTIME_DIRECTORY": f"{tmp_path}:/other"}),
        (tmp_path / "mine", {"SOCKSPROXY_ADMIN": f"unix:{tmp_path}/mine", "XDG_RUNTIME_DIR": str(tmp_path)}),
    ):
        with scripted(path, [answer('{"ready": true}')]):
            done = _run(*CTL, "health", **more)
        assert (done.returncode, done.stdout, done.stderr) == (0, "ready\n", "")


def test_reader_that_has_enough(tmp_path: Path) -> None:
    """``ctl | head`` ends without a complaint."""
    path = tmp_path / "admin"
    with scripted(path, [answer(json.dumps("x" * (1 << 20)))]):
        process = subprocess.Popen([*CTL, "raw", "GET", "/v1/x", "-s", str(path)], stdout=-1, stderr=-1)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0
        process.stderr.close()


def test_output_that_is_full(tmp_path: Path) -> None:
    path = tmp_path / "admin"
    with scripted(path, [answer('{"ready": true}')]), open("/dev/full", "w") as full:
        done = subprocess.run(
            [*CTL, "health", "-s", str(path)], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False
        )
    assert done.returncode == 1
    assert done.stderr == b"socksproxy ctl: the output cannot be written: No space left on device\n"


def test_other_version(ctl: Operator, tmp_path: Path) -> None:
    """An answer without what it should have is told in words."""
    with scripted(tmp_path / "admin", [answer("{}")]):
        status, _, complaints = ctl("status")
    assert (status, complaints) == (
        1,
        "socksproxy ctl: the answer has no 'workers': the server is of another version\n",
    )


@pytest.mark.parametrize("reply", [b'data: {"a', b'event: status\ndata: {"time": 1, "stat'])
def test_stream_that_is_cut(reply: bytes, ctl: Operator, tmp_path: Path) -> None:
    """A server that goes away in the middle of an event is told, too."""
    with scripted(tmp_path / "admin", [b"HTTP/1.0 200 OK\r\n\r\n" + reply]):
        assert ctl("events")[0] == 3
    with scripted(tmp_path / "admin", [b"HTTP/1.0 200 OK\r\n\r\n" + reply]):
        assert ctl("trace", "--user", "bob")[0] == 3


def test_trace(ctl: Operator, tmp_path: Path) -> None:
    """An event is a line, whatever names are in it."""
    event = {"time": 0.25, "session": "1.1.1", "event": "request", "destination": "a\x1b[2J b", "port": None}
    reply = b"HTTP/1.0 200 OK\r\n\r\n" + json.dumps(event).encode() + b"\n"
    with scripted(tmp_path / "admin", [reply, reply]) as requests:
        status, told, _ = ctl("trace", "--client", "192.0.2.0/24", "--for", "5s")
        assert (status, told[8:]) == (0, '.250 1.1.1 request destination="a\\u001b[2J b"\n')
        assert json.loads(ctl("trace", "--session", "1.1.1", "--json")[1]) == event
    assert requests[0].startswith(b"GET /v1/trace?client=192.0.2.0%2F24&seconds=5 ")


def _seconds(environment: dict[str, str], *arguments: str) -> float:
    """The processor time of an interpreter, which other programs on the machine change little."""
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, env=environment)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return used.ru_utime + used.ru_stime


def test_starts_at_once(tmp_path: Path) -> None:
    """An answer takes not much longer than Python takes to start."""
    # Modules are compiled once, as those of an installed package are.
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path / "compiled")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    path, count = tmp_path / "admin", 7
    command = ("-c", "from socksproxy.cli import main; main()", "ctl", "status", "-s", str(path))
    ours, bare = [], []
    with scripted(path, [answer(json.dumps(STATUS))] * count):
        for _ in range(count):
            ours.append(_seconds(environment, *command))
            bare.append(_seconds(environment, "-c", "pass"))
    # The goal is 3, on a machine that does nothing else.
    assert min(ours) < 5 * min(bare)


def test_imports(tmp_path: Path) -> None:
    """Twisted is not loaded for an answer, nor what takes long to import."""
    code = (
        "import sys; from socksproxy.cli import main; status = main(sys.argv[1:]);"
        "print(sorted({'twisted', 'zope', 'attr', 'ssl', 'typing', 'shutil'} & set(sys.modules)))"
    )
    path = tmp_path / "admin"
    with scripted(path, [answer(json.dumps(STATUS))]):
        done = _run(sys.executable, "-c", code, "ctl", "status", "-s", str(path), without="COVERAGE")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "[]")
