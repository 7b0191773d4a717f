"""The filter of docs/examples/fail2ban reads what a real proxy writes, and nobody can tell it lies."""

from __future__ import annotations

import functools
import re
import shutil
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.processes import PATIENCE, TWISTD, Program
from tests.support.programs import require, run

pytestmark = pytest.mark.interop

FAIL2BAN = Path(__file__).parents[2] / "docs" / "examples" / "fail2ban"
FILTER = FAIL2BAN / "filter.d" / "socksproxy.conf"

#: All of twistd but for the C library's syslog(): the lines go to a file, as a syslog daemon writes it.
TWISTD_TO_SYSLOG = (
    sys.executable,
    "-c",
    """
import sys, syslog

def write(*arguments):
    with open("syslog", "a", encoding="utf-8") as file:
        file.write(f"Nov 24 12:34:56 host socks[123]: {arguments[-1]}\\n")

syslog.syslog = write
from twisted.scripts.twistd import run
sys.argv[0] = "twistd"
run()
""",
)

_FORGED = 'authentication failed: 203.0.113.9 port 9, method password, user "a": wrong'

#: What somebody might call themselves who wants another address banned.
NAMES = (
    b"bob",
    b"203.0.113.9",
    b" from 203.0.113.9",
    b'bob": wrong',
    b'"\\',
    f"\n{_FORGED}".encode(),
    f"\r\n2026-11-24T12:34:56+0000 [socksproxy#info] {_FORGED}".encode(),
    f"\u2028Nov 24 12:34:56 host socks[123]: [-] {_FORGED}".encode(),
    f"\x85\x00\x1b[2K\x0b\x0c{_FORGED}".encode(),
    b'a": wrong, ' + _FORGED.encode(),
    b"\xff\xfe" + _FORGED.encode(),
    b"x" * 255,
)


@pytest.fixture
def users(tmp_path: Path) -> Path:
    path = tmp_path / "users"
    path.write_text("alice:sesame\n")
    return path


def fail(proxy: tuple[str, int], source: str, username: bytes, password: bytes = b"wrong") -> int:
    """Log in with a wrong password, and return the port from which."""
    with socket.create_connection(proxy, PATIENCE, (source, 0)) as client:
        client.sendall(
            b"\x05\x01\x02\x01" + bytes([len(username)]) + username + bytes([len(password)]) + password,
        )
        said = b""
        while data := client.recv(100):
            said += data
        assert said == b"\x05\x02\x01\x01"
        port: int = client.getsockname()[1]
        return port


def seen_by_fail2ban(log: Path) -> list[str]:
    """The addresses that fail2ban would count, one for each line."""
    result = run([require("fail2ban-regex"), "-o", "ip", str(log), str(FILTER)])
    assert result.returncode in (0, 1), result.stderr  # 1: there are none
    return result.stdout.decode().split()


def found_in(path: Path, pattern: str) -> re.Match[str]:
    """The first match of *pattern* in *path*, as soon as there is one."""
    deadline = time.monotonic() + PATIENCE
    text = ""
    while time.monotonic() < deadline:
        text = path.read_text("utf-8") if path.exists() else ""
        if found := re.search(pattern, text):
            return found
        time.sleep(0.02)
    raise AssertionError(f"{pattern!r} was not said, but:\n{text}")


def attack(wait_for: Callable[[str], re.Match[str]]) -> list[str]:
    """
    Try every name, over IPv4 from several addresses and over IPv6.

    :param wait_for: what the proxy has logged that matches a pattern, once it has.
    :returns: the addresses, once all is logged.
    """
    port = int(wait_for(r"listening on tcp:127\.0\.0\.1:(\d+)")[1])
    port6 = int(wait_for(r"listening on tcp6:\[::1\]:(\d+)")[1])
    sources = []
    for number, name in enumerate(NAMES):
        for where, source in ((("127.0.0.1", port), f"127.0.0.{number + 2}"), (("::1", port6), "::1")):
            wait_for(rf"failed: {source} port {fail(where, source, name)}, .*\n")
            sources.append(source)
    return sources


def options(users: Path) -> list[str]:
    return [
        "socks",
        *("--listen", "tcp:0:interface=127.0.0.1", "--listen", r"tcp6:0:interface=\:\:1"),
        *("--auth", f"file:{users}", "--auth-failures", "100"),
    ]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_standard_output(twistd: Callable[..., Program], users: Path, tmp_path: Path, workers: str) -> None:
    """As it is, and as the journal and a syslog daemon hand it on."""
    require("fail2ban-regex")
    proxy = twistd(*options(users), "--workers", workers)
    sources = attack(proxy.wait_for)
    proxy.stop()
    for before in ("", "host twistd[123]: ", "Nov 24 12:34:56 host twistd[123]: "):
        log = tmp_path / "log"
        log.write_text("".join(f"{before}{line}\n" for line in proxy.output.split("\n") if line))
        assert sorted(seen_by_fail2ban(log)) == sorted(sources), before


def test_file(start: Callable[..., Program], users: Path, tmp_path: Path) -> None:
    require("fail2ban-regex")
    log = tmp_path / "proxy.log"
    start([*TWISTD, "-n", "--pidfile=", f"--logfile={log}", *options(users)])
    sources = attack(functools.partial(found_in, log))
    assert seen_by_fail2ban(log) == sources


def test_syslog(start: Callable[..., Program], users: Path, tmp_path: Path) -> None:
    require("fail2ban-regex")
    log = tmp_path / "syslog"
    start([*TWISTD_TO_SYSLOG, "-n", "--pidfile=", "--syslog", *options(users)])
    sources = attack(functools.partial(found_in, log))
    assert seen_by_fail2ban(log) == sources


def test_what_is_no_failure(twistd: Callable[..., Program], users: Path, tmp_path: Path) -> None:
    """Who is refused unchecked, repeats a password, or is served has not failed once more."""
    require("fail2ban-regex")
    proxy = twistd(*options(users), "--auth-failures", "3")
    port = int(proxy.wait_for(r"listening on tcp:127\.0\.0\.1:(\d+)")[1])
    for number in (0, 0, 1, 2, 3, 4):
        fail(("127.0.0.1", port), "127.0.0.2", b"bob", b"wrong %d" % number)
    proxy.wait_for("refused unchecked: 127.0.0.2 ")
    proxy.stop()
    log = tmp_path / "log"
    log.write_text(proxy.output)
    assert seen_by_fail2ban(log) == ["127.0.0.2"] * 3


def test_jail(tmp_path: Path) -> None:
    """fail2ban takes the example as it is."""
    client = require("fail2ban-client")
    config = tmp_path / "fail2ban"
    shutil.copytree("/etc/fail2ban", config)
    shutil.rmtree(config / "jail.d")
    shutil.copytree(FAIL2BAN, config, dirs_exist_ok=True)
    jail = config / "jail.d" / "socksproxy.conf"
    log = tmp_path / "socksproxy.logs.access_log"
    log.touch()
    jail.write_text(jail.read_text().replace("/var/log/socksproxy.log", str(log)))
    result = run([client, "-c", str(config), "-t"])
    assert result.returncode == 0, result.stdout + result.stderr
    dumped = run([client, "-c", str(config), "-d"]).stdout.decode()
    assert "['start', 'socksproxy']" in dumped
    assert f"'addlogpath', '{log}'" in dumped
