"""The admin API of a service in one process: see :mod:`socksproxy.service.control`."""

from __future__ import annotations

import json
import re
import socket
import stat
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from socksproxy.service.control import document_told

from ..support.admin import asks
from ..support.origin import Origin, echo
from ..support.processes import TWISTD, Program
from ..support.service import SYSTEMD
from ..support.sessions import ends
from ..support.workers import LISTENING, connected, descriptors_of, echoes, until, workers_of

_ADMIN = '[[admin.listener]]\nendpoint = "unix:admin.sock"\n'
_TCP = '[[admin.listener]]\nendpoint = "tcp:0:interface=127.0.0.1"\n'

Start = Callable[..., Program]


def started(twistd: Start, tmp_path: Path, config: str, *more: str) -> tuple[Program, int]:
    (tmp_path / "socks.toml").write_text(config)
    program = twistd("socks", "-p", "0", "--config", "socks.toml", *more)
    return program, int(program.wait_for(LISTENING)[1])


def free_ports(count: int) -> list[int]:
    """Ports that nobody has at the moment."""
    with ExitStack() as stack:
        some = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in some]


def reload(path: Path) -> tuple[int, Any]:
    told = asks(path, "POST", "/v1/reload")
    return told.status, told.body


def test_reload(twistd: Start, tmp_path: Path) -> None:
    """A reload is answered when it is over: with what has changed, or with every mistake."""
    path, file = tmp_path / "admin.sock", tmp_path / "socks.toml"
    program, _ = started(twistd, tmp_path, _ADMIN)
    first = asks(path, "GET", "/v1/status").body["config"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    file.write_text(f"{_ADMIN}[workers]\nworkers = 3\ndrain = 1\n")
    assert reload(path) == (200, {"changes": ["restart the server for another number of workers"]})
    second = asks(path, "GET", "/v1/status").body["config"]
    assert second["hash"] != first["hash"]
    assert second["loaded"] > first["loaded"]
    file.write_text(f'{_ADMIN}[timeouts]\nidle-timeout = "x"\n[limits]\nmax-sessions = 0\n')
    status, body = reload(path)
    assert status == 422
    assert [line.partition(":")[0] for line in body["mistakes"]] == ["socks.toml"] * 2
    third = asks(path, "GET", "/v1/status").body["config"]
    assert {**third, "failed": None} == second
    assert third["failed"]["mistakes"] == body["mistakes"]
    program.wait_for(r"admin: uid \d+ \(process \d+\): POST /v1/reload: not done: not reloaded")
    # The admin listeners follow the file, too.
    file.write_text(f'{_ADMIN.replace("admin.sock", "other.sock")}level = "monitor"\n')
    assert reload(path)[0] == 200
    assert not path.exists()
    other = tmp_path / "other.sock"
    assert asks(other, "POST", "/v1/reload").status == 403
    file.write_text("")
    program.process.send_signal(1)
    until(lambda: not other.exists())


_ALL_ALLOWED = """
[admin]
agent = "tcp:{agent}:interface=127.0.0.1"
[[admin.listener]]
endpoint = "tcp:{everywhere}:interface=0.0.0.0"
token-file = "token"
[[rule]]
name = "all"
allow = true
networks = ["0.0.0.0/0", "::/0"]
"""
#: Clients of the listener "outer" leave through a proxy that is the listener "inner" of the same server.
_LOOP = """
[listeners]
listen = ["outer=tcp:{outer}:interface=127.0.0.1", "inner=tcp:{inner}:interface=127.0.0.1"]
[upstreams.loop]
type = "socks5"
address = "127.0.0.1:{way}"
[[rule]]
name = "outer"
allow = true
listeners = ["outer"]
networks = ["0.0.0.0/0", "::/0"]
via = "loop"
"""


def requests_for(port: int) -> list[bytes]:
    """What a client that wants to reach *port* of this machine may say, in all versions and disguises."""
    place = port.to_bytes(2, "big")
    mapped = socket.inet_pton(socket.AF_INET6, "::ffff:127.0.0.1")
    nat64 = socket.inet_pton(socket.AF_INET6, "64:ff9b::7f00:1")
    names = [b"localhost", b"LOCALHOST.", b"127.0.0.1", b"::1", b"::ffff:127.0.0.1", b"0.0.0.0", b"127.1"]
    addresses = [
        b"\x01\x7f\x00\x00\x01",
        b"\x01\x00\x00\x00\x00",
        *(b"\x03" + bytes([len(name)]) + name for name in names),
        b"\x04" + mapped,
        b"\x04" + nat64,
        b"\x04" + bytes(16),
        b"\x04" + bytes(15) + b"\x01",
    ]
    return [
        *(b"\x05\x01\x00\x05\x01\x00" + address + place for address in addresses),
        b"\x04\x01" + place + b"\x7f\x00\x00\x01\x00",
        b"\x04\x01" + place + b"\x00\x00\x00\x01\x00localhost\x00",
    ]


def is_granted(port: int, request: bytes) -> bool:
    """Whether the proxy grants *request*: the second byte of its reply, behind the choice of a method."""
    with socket.create_connection(("127.0.0.1", port), 30) as client:
        client.sendall(request)
        answer, expected = b"", 4 if request[0] == 5 else 2
        while len(answer) < expected and (more := client.recv(100)):
            answer += more
    assert len(answer) >= expected, request
    return answer[3] == 0 if request[0] == 5 else answer[1] == 90


def lead_to(port: int) -> Callable[[socket.socket], None]:
    """What has an origin pass a question on to *port*, and the answers back."""

    def serve(client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", port), 30) as there:
            for source, target in ((client, there), (there, client)) * 2:
                target.sendall(source.recv(1000))

    return serve


@pytest.mark.parametrize(("workers", "loop"), [("1", False), ("2", False), ("1", True)])
def test_own_listener(workers: str, loop: bool, twistd: Start, tmp_path: Path) -> None:
    """
    No client of the proxy is connected to an admin listener, whatever it calls it, nor to the agent.

    A proxy that leads back here, and would connect to a name, does not help.
    """
    outer, inner, everywhere, agent = free_ports(4)
    (tmp_path / "token").write_text("x" * 32)
    config = (_LOOP if loop else "") + _ALL_ALLOWED + _TCP
    place = () if loop else ("-p", str(outer))
    with Origin(lead_to(inner)) as way, socket.create_server(("127.0.0.1", 0)) as other:
        ports = {"outer": outer, "inner": inner, "everywhere": everywhere, "agent": agent, "way": way.port}
        (tmp_path / "socks.toml").write_text(config.format(**ports))
        words = ("--config", "socks.toml", "--bind-any-peer", "--workers", workers)
        program = twistd("socks", *place, *words)
        program.wait_for(LISTENING)
        admins = {int(port) for port in re.findall(r"AdminSite starting on (\d+)", program.output)}
        assert everywhere in admins
        assert len(admins) == 2
        for port in admins:
            assert asks(("127.0.0.1", port), "GET", "/healthz").status in (200, 401)
        for port in {*admins, agent}:
            granted = [request for request in requests_for(port) if is_granted(outer, request)]
            assert granted == []
        # All other ports of the machine are reached.
        assert is_granted(outer, requests_for(other.getsockname()[1])[0])


_PARTS = """
[listeners]
listen = ["front=tcp:0:interface=127.0.0.1", "back=unix:back.sock"]
[upstreams.one]
type = "socks5"
address = "127.0.0.1:9"
[upstreams.none]
type = "direct"
[outgoing]
via = "none"
"""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_parts(workers: str, twistd: Start, tmp_path: Path) -> None:
    """A listener or an upstream is taken out of service and back, in all processes, over a reload, too."""
    path = tmp_path / "admin.sock"
    (tmp_path / "socks.toml").write_text(f"{_PARTS}{_ADMIN}")
    program = twistd("socks", "--config", "socks.toml", "--workers", workers)
    port = int(program.wait_for(LISTENING)[1])

    def deed(part: str, word: str) -> Any:
        told = asks(path, "POST", f"/v1/{part}/{word}")
        assert told.status == 200, told
        return told.body

    def states(kind: str) -> dict[str, str]:
        return {row["name"]: row["state"] for row in asks(path, "GET", f"/v1/{kind}").body[kind]}

    with Origin(echo) as origin:
        client = connected(port, origin.port)
        assert deed("listeners/front", "drain") == {"state": "draining", "ended": 0, "missing": []}
        until(lambda: waits(port, origin))
        assert echoes(client)
        assert states("listeners") == {"front": "draining", "back": "enabled"}
        assert reload(path)[0] == 200
        assert waits(port, origin)
        assert deed(f"listeners/tcp:127.0.0.1:{port}", "enable")["state"] == "enabled"
        with connected(port, origin.port) as other:
            assert echoes(other)
        # As a session and the access log name it.
        assert deed(f"listeners/127.0.0.1:{port}", "disable")["ended"] >= 1
        assert ends(client)
        client.close()
        deed("listeners/front", "enable")
        client = connected(port, origin.port)
        deed("upstreams/none", "drain")
        assert states("upstreams") == {"none": "draining", "one": "enabled"}
        assert echoes(client)
        with pytest.raises(PermissionError):
            connected(port, origin.port)
        assert reload(path)[0] == 200
        with pytest.raises(PermissionError):
            connected(port, origin.port)
        assert deed("upstreams/none", "disable")["ended"] >= 1
        assert ends(client)
        client.close()
        deed("upstreams/none", "enable")
        connected(port, origin.port).close()
    for part in ("listeners/side", "upstreams/two", "listeners/front/x"):
        assert asks(path, "POST", f"/v1/{part}/drain").status == 404
    body = {"logger": "sessions", "level": "debug", "seconds": 30}
    assert asks(path, "POST", "/v1/log-level", body).body == {**body, "missing": []}
    with socket.create_connection(("127.0.0.1", port), 30) as stranger:
        stranger.sendall(b"GET / HTTP/1.0\r\n\r\n")
        program.wait_for(r"(worker \d: )?session \S+ of 127\.0\.0\.1:\d+: ")


def waits(port: int, origin: Origin) -> bool:
    """Whether a new client is not served: it waits in the queue."""
    with socket.create_connection(("127.0.0.1", port), 30) as client:
        client.sendall(b"\x05\x01\x00")
        client.settimeout(0.1)
        try:
            return client.recv(2) == b""
        except TimeoutError:
            return True


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ('endpoint = "tcp:0:interface=0.0.0.0"', "not a loopback address"),
        ('endpoint = "unix:/nowhere/a"', "no such file"),
        ('endpoint = "unix:socks.toml"', "no socket"),
        ('endpoint = "tcp:0"\ntoken-file = "socks.toml"', "a token has"),
    ],
)
def test_cannot_start(config: str, told: str, twistd: Start, tmp_path: Path) -> None:
    """A listener that cannot be is told in one line, and the server does not start."""
    (tmp_path / "socks.toml").write_text(f"[[admin.listener]]\n{config}\n")
    program = twistd("socks", "-p", "0", "--config", "socks.toml")
    assert program.wait() == 1
    lines = [line for line in program.output.splitlines() if told in line]
    assert lines
    assert all("admin" in line for line in lines)
    assert "Traceback" not in program.output


def test_long_document() -> None:
    """A file with many users makes no answer without bound."""
    document = {
        "users": {f"user{number}": {"groups": ["x" * 50]} for number in range(20_000)},
        "log": {"a": 1},
    }
    data = document_told({"file": "f"}, document)
    assert json.loads(data) == {"file": "f", "omitted": {"users": 20_000}, "document": {"log": {"a": 1}}}
    assert json.loads(document_told({"file": "f"}, {"log": {}})) == {"file": "f", "document": {"log": {}}}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_rotation(workers: str, twistd: Start, tmp_path: Path) -> None:
    """When the answer has come, no process writes to the old file; a file that cannot be opened is told."""
    path, file, old = (tmp_path / name for name in ("admin.sock", "access.log", "old"))
    (tmp_path / "socks.toml").write_text(f'[log]\nlog = "access.log"\n{_ADMIN}')
    program = twistd("socks", "-p", "0", "--config", "socks.toml", "--workers", workers)
    program.wait_for(LISTENING)

    def users() -> list[int]:
        """The processes that have the old file open."""
        pids = [program.process.pid, *workers_of(program.process.pid)]
        return [pid for pid in pids if str(old) in descriptors_of(pid)]

    file.rename(old)
    assert len(users()) >= int(workers)
    file.mkdir()
    told = asks(path, "POST", "/v1/log/reopen")
    words = f"{file} cannot be opened again, the old file goes on: Is a directory"
    assert (told.status, told.body) == (409, {"error": words})
    assert len(users()) >= int(workers)
    file.rmdir()
    assert asks(path, "POST", "/v1/log/reopen").body == {"missing": []}
    assert not users()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_systemd(workers: str, start: Start, tmp_path: Path) -> None:
    """An admin socket that systemd has opened answers, stays over a reload, and its file stays at the end."""
    path, config = tmp_path / "passed", tmp_path / "socks.toml"
    config.write_text('[[admin.listener]]\nendpoint = "systemd:domain=UNIX:name=socks"\n')
    with socket.socket(socket.AF_UNIX) as passed:
        passed.bind(str(path))
        passed.listen()
        command = [*TWISTD, "-n", "--pidfile=", "socks", "-p", "0", "--config", str(config)]
        program = start(
            [sys.executable, "-c", SYSTEMD, str(passed.fileno()), *command, "--workers", workers],
            pass_fds=[passed.fileno()],
        )
        program.wait_for(LISTENING)
        assert asks(path, "GET", "/v1/status").body["workers"]["running"] == int(workers)
        assert reload(path) == (200, {"changes": []})
        assert asks(path, "POST", "/v1/log/reopen").status == 200
        program.stop()
        assert path.exists()
