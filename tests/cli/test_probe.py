"""``socksproxy probe``: see :mod:`socksproxy.cli.probe`."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from socksproxy.cli import main
from socksproxy.probe.checks import ALL

from ..support.faulty_server import PASSWORD, USER, FaultyServer
from ..support.origin import Origin
from ..support.proxy import closed_port


def _probe(*arguments: object) -> int:
    return main(["probe", *map(str, arguments)])


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    with FaultyServer("socks5.refused") as server:
        assert _probe(f"127.0.0.1:{server.port}", "--no-figures", "--only", "socks5.refused") == 1
    lines = capsys.readouterr().out.splitlines()
    words = [line.split()[:2] for line in lines]
    assert words[:2] == [["pass", "socks5.greeting"], ["pass", "socks5.connect"]]
    assert words[2] == ["fail", "socks5.refused"]
    assert lines[3].strip() == "the reply was 0 [RFC 1928, 6]"
    assert lines[4] == "2 pass, 1 fail, 0 not served, 0 not run"


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    with FaultyServer() as server:
        assert _probe(f"127.0.0.1:{server.port}", "--json", "--only", "socks4.connect") == 0
    told = json.loads(capsys.readouterr().out)
    assert [(check["id"], check["verdict"]) for check in told["checks"]] == [("socks4.connect", "pass")]
    assert [figure["unit"] for figure in told["figures"]] == ["ms", "ms", "ms", "1/s"]
    assert all(figure["value"] > 0 for figure in told["figures"])


def test_figures(capsys: pytest.CaptureFixture[str]) -> None:
    with FaultyServer("udp.associate") as server:
        assert _probe(f"127.0.0.1:{server.port}", "--only", "socks5.greeting") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("figure")]
    assert len(lines) == 4
    assert "not measured" in lines[2]


def test_login(tmp_path: Path) -> None:
    file = tmp_path / "login"
    file.write_bytes(USER + b":" + PASSWORD + b"\n")
    file.chmod(0o600)
    with FaultyServer(login=True) as server:
        arguments = (f"127.0.0.1:{server.port}", "--no-figures", "--only", "login")
        assert _probe(*arguments, "--login-file", file) == 0
        assert _probe(*arguments) == 3


@pytest.fixture(autouse=True)
def _no_proxy_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("all_proxy", "ALL_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_server_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultyServer(login=True) as server:
        url = f"socks5://{USER.decode()}:{PASSWORD.decode()}@127.0.0.1:{server.port}"
        monkeypatch.setenv("ALL_PROXY", url)
        assert _probe("--no-figures", "--only", "login.status") == 0


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert _probe("--list") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [check.id for check in ALL]


def test_nothing_listens(capsys: pytest.CaptureFixture[str]) -> None:
    assert _probe(f"127.0.0.1:{closed_port()}", "--no-figures", "--only", "socks5") == 3
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.endswith("no connection to the server: Connection refused\n")


@pytest.mark.parametrize(
    ("says", "told"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "SOCKS5: the answer begins with 0x48"),
        (b"", "SOCKS5: the server closed the connection after nothing"),
        (b"SSH-2.0-x\r\n", "SOCKS4: the server sent 53: version 83 where 0 was due"),
    ],
)
def test_no_server_of_socks(says: bytes, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It is told at once, whatever was asked for; checks that such a server passes by chance do not count."""

    def answer(connection: socket.socket) -> None:
        connection.recv(1024)
        connection.sendall(says)

    with Origin(answer) as server:
        assert _probe(f"127.0.0.1:{server.port}", "--only", "port") == 3
    output = capsys.readouterr()
    assert output.out == ""
    assert f"127.0.0.1:{server.port} does not speak SOCKS (" in output.err
    assert told in output.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "probe: no server: give HOST:PORT, or the URL of a SOCKS server in ALL_PROXY"),
        (("127.0.0.1",), "127.0.0.1: HOST:PORT is due"),
        (("127.0.0.1:0",), "127.0.0.1:0: HOST:PORT is due"),
        (("host:port",), "host:port: HOST:PORT is due"),
        (("::1:1080",), "::1:1080: HOST:PORT is due"),
        (("socks5://127.0.0.1:1080",), "probe: HOST:PORT is due, not a URL"),
        (("me:geheim@127.0.0.1:1080",), "probe: HOST:PORT is due, not a URL"),
        (("a:1", "--target", "here"), "--target here: an IP address of this machine is due"),
        (("a:1", "--only", "tcp"), "--only tcp: no such check; the groups are socks5, port, socks4"),
        (("a:1", "--timeout", "0"), "--timeout 0: seconds between 0 and 3600 are due"),
        (("a:1", "--patience", "nan"), "--patience nan: seconds between 0 and 3600 are due"),
        (("a:1", "--login-file", "/does/not/exist"), "--login-file /does/not/exist: "),
    ],
)
def test_mistakes(arguments: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _probe(*arguments) == 2
    assert f"{expected}" in capsys.readouterr().err
