"""Every subcommand with a server of one process and one with workers."""

from __future__ import annotations

import csv
import io
import json
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from socksproxy.auth.checkers.htpasswd import new_hash

from ..service.test_holders import _CONFIG, session
from ..support.ctl import Operator
from ..support.origin import Origin, echo
from ..support.processes import Program
from ..support.sessions import ends
from ..support.workers import LISTENING, until

Start = Callable[..., Program]


@pytest.fixture
def ctl(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Operator:
    return Operator(capsys, tmp_path / "admin.sock")


def started(twistd: Start, tmp_path: Path, workers: str) -> tuple[Program, int]:
    """A server and its port; its users are bob and bo."""
    pw = new_hash(b"pw", 4).decode()
    text = _CONFIG.format(hash=pw) + '[pools.all]\nmembers = ["office"]\n'
    (tmp_path / "socks.users").write_text(f"bo:{pw}\n")
    (tmp_path / "secret").write_text("hunter2\n")
    (tmp_path / "socks.toml").write_text(text)
    program = twistd(
        *("socks", "-p", "0", "--config", "socks.toml", "--workers", workers, "--log", "access.log"),
    )
    return program, int(program.wait_for(LISTENING)[1])


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sessions_and_users(workers: str, twistd: Start, ctl: Operator, tmp_path: Path) -> None:
    """Sessions are listed, shown and ended: those that are named, and no others."""
    _, port = started(twistd, tmp_path, workers)
    assert ctl("wait", "ready")[:2] == (0, "ready\n")

    def got(*arguments: str) -> Any:
        status, told, complaints = ctl(*arguments, "--json")
        assert (status, complaints) == (0, ""), complaints
        return json.loads(told)

    with ExitStack() as stack:
        origin = stack.enter_context(Origin(echo))
        for _ in range(3):
            stack.enter_context(session(port, origin.port))
        bo = stack.enter_context(session(port, origin.port, b"bo"))
        assert got("status")["workers"] == {"running": int(workers), "configured": int(workers)}
        assert got("sessions")["total"] == 4
        rows = got("sessions", "--user", "bob", "--command", "connect", "--client", "127.0.0.0/8")["sessions"]
        assert [row["user"] for row in rows] == ["bob"] * 3
        status, told, complaints = ctl("sessions", "--limit", "2")
        assert (status, len(told.splitlines())) == (0, 3)
        assert complaints == "socksproxy ctl: 2 of 4 sessions; --limit 0 shows all\n"
        assert len(ctl("sessions", "--limit", "0", "--older", "0s")[1].splitlines()) == 5
        shown = ctl("show", rows[0]["id"])[1]
        assert f"destination         127.0.0.1:{origin.port}\n" in shown
        # A part of a name is not a name.
        assert ctl("kill", "--user", "b", "--yes") == (
            1,
            "0 sessions ended\n",
            "socksproxy ctl: no session matches\n",
        )
        assert ctl("kill", "--user", "bo", "--dry-run")[:2] == (0, "1 sessions match\n")
        assert (
            ctl("kill", "--user", "bob", "--yes", "--expect", "2")[2]
            == "socksproxy ctl: 3 sessions match, not 2\n"
        )
        status, _, complaints = ctl("kill", "--user", "bo")
        assert (status, complaints[-47:]) == (2, "there is no terminal on which to ask: give --yes\n"[-47:])
        assert got("sessions")["total"] == 4
        assert ctl("kill", "--user", "bo", "--yes")[:2] == (0, "1 sessions ended\n")
        assert ends(bo)
        assert got("sessions")["total"] == 3
        # Some of several are gone.
        status, told, complaints = ctl("kill", rows[0]["id"], "1.1.1")
        assert (status, told) == (5, "1 sessions ended\n")
        assert complaints == "socksproxy ctl: 1.1.1: there is no such session, or it has ended\n"
        assert ctl("kill", rows[0]["id"])[0] == 1
        assert ctl("show", rows[0]["id"])[0] == 1
        (row,) = got("users")["users"]
        assert (row["user"], row["sessions"]) == ("bob", 2)
        assert ctl("users")[1].splitlines()[1].split()[:2] == ["bob", "2"]
        assert "limits        sessions=3" in ctl("users", "bob")[1]
        assert ctl("users", "b")[0] == 1
        assert "user   bob" in ctl("limits", "--scope", "user")[1]
        assert ctl("limit", "bob", "sessions=2", "download=1 MB/s")[0] == 0
        assert got("users", "bob")["until_reload"] == {"sessions": 2, "download": "1 MB/s"}
        with pytest.raises(PermissionError):
            session(port, origin.port)
        assert ctl("limit", "bob", "sessions=x")[0] == 1
        assert ctl("limit", "bob", "--clear")[:2] == (0, "taken back\n")
        assert got("users", "bob")["until_reload"] == {}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_server(workers: str, twistd: Start, ctl: Operator, tmp_path: Path) -> None:
    """Parts are taken out of service and back; lock-outs, reload, drain and usage are as asked."""
    _, port = started(twistd, tmp_path, workers)
    config = tmp_path / "socks.toml"
    assert len(ctl("workers")[1].splitlines()) == 1 + int(workers)
    for kind, name in (("listener", f"tcp:127.0.0.1:{port}"), ("upstream", "office")):
        assert ctl(kind, name, "drain")[:2] == (0, f"{name}: draining\n")
        assert f"{name} " in ctl(f"{kind}s")[1]
        assert "draining" in ctl(f"{kind}s")[1]
        assert ctl(kind, name, "disable")[:2] == (0, f"{name}: disabled\n")
        assert ctl(kind, name, "enable")[:2] == (0, f"{name}: enabled\n")
        assert ctl(kind, "nobody", "drain")[0] == 1
    assert ctl("pools")[1].splitlines()[1].split()[:3] == ["all", "office", "enabled"]
    for guess in range(4 * int(workers)):
        with pytest.raises(PermissionError):
            session(port, 9, b"bob", b"%d" % guess)
    assert "127.0.0.1" in ctl("lockouts")[1]
    assert ctl("unlock", "127.0.0.1")[0] == 0
    assert ctl("unlock", "127.0.0.1")[0] == 1
    with Origin(echo) as origin:
        client = session(port, origin.port)
        client.sendall(b"x" * 100)
        assert client.recv(1)
        client.close()
    until(lambda: "user bob" in ctl("usage")[1])
    assert list(csv.reader(io.StringIO(ctl("usage", "--month", "--csv")[1])))[1][1] == "user bob"
    assert ctl("usage", "--from", "2020-01", "--to", "2020-02")[:2] == (0, "PERIOD  HOLDER  USED\n")
    assert "bytes are deleted" in ctl("reset-usage", "bob")[1]
    assert ctl("log", "reopen")[0] == 0
    assert ctl("log-level", "debug", "--for", "5m", "--logger", "names")[:2] == (0, "debug lines for 300 s\n")
    assert ctl("log-level", "info")[:2] == (0, "no debug lines\n")
    assert ctl("log-level", "debug", "--logger", "x")[0] == 1
    assert ctl("kick", "bob")[:2] == (0, "0 sessions ended\n")
    status, _, complaints = ctl("reload", "--all-nodes")
    assert (status, "done on this node alone" in complaints) == (5, True)
    assert json.loads(ctl("config")[1])["document"]["upstreams"]["office"]["address"] == "127.0.0.1:9"
    assert json.loads(ctl("raw", "GET", "/v1/status")[1])["state"] == "running"
    assert ctl("raw", "POST", "/v1/undrain")[2] == "socksproxy ctl: the server is not drained\n"
    assert ctl("health", "--live")[:2] == (0, "live\n")
    assert ctl("events", "--count", "1")[1].split()[1:3] == ["status", "state=running"]
    before = config.read_text()
    config.write_text(before + '[timeouts]\nidle-timeout = "x"\n')
    status, _, complaints = ctl("reload")
    assert (status, complaints.splitlines()[0][:27]) == (1, "socksproxy ctl: socks.toml:")
    config.write_text(before + "[timeouts]\nidle-timeout = 99\n")
    assert ctl("reload")[0] == 0
    assert ctl("undrain")[0] == 1
    assert ctl("drain", "1m", "--notice", "0")[0] == 0
    assert ctl("health") == (1, "not ready\n", "socksproxy ctl: not ready: draining\n")
    assert ctl("wait", "ready", "--timeout", "0.3")[0] == 4
    assert ctl("wait", "drained")[:2] == (0, "drained\n")
    assert ctl("undrain")[0] == 0
    generation = json.loads(ctl("status", "--json")[1])["generation"]
    assert ctl("wait", f"generation:{generation}")[0] == 0
    assert ctl("wait", f"generation:{generation + 1}", "--timeout", "0")[0] == 4
    assert ctl("wait", "drained")[0] == 1


def test_drain_and_trace(twistd: Start, ctl: Operator, tmp_path: Path) -> None:
    """A drain is waited for until the last session has ended; a trace tells how that happened."""
    _, port = started(twistd, tmp_path, "1")
    with Origin(echo) as origin, session(port, origin.port) as client:
        assert ctl("drain", "1m", "--refuse", "--wait", "--timeout", "0.3")[0] == 4
        threading.Timer(0.5, client.close).start()
        status, told, _ = ctl("trace", "--user", "bob", "--for", "2s")
        assert status == 0
        assert " ended " in told
        assert ctl("wait", "drained", "--timeout", "20")[0] == 0
    assert ctl("undrain")[0] == 0
    assert ctl("drain", "0", "--refuse", "--wait")[:2] == (0, "drained\n")
