"""Logs at their places, from real programs: a server, rsyslog, a journal, a full disk."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..support.journal import fields_of
from ..support.origin import Origin, echo
from ..support.processes import PATIENCE, TWISTD, Program
from ..support.workers import LISTENING, connected, echoes, until

Twistd = Callable[..., Program]

RSYSLOG = """
global(workDirectory="{directory}" localHostname="here")
module(load="imuxsock" SysSock.Use="off")
module(load="imptcp")
input(type="imuxsock" Socket="{directory}/dev-log" UseSpecialParser="off" CreatePath="on")
input(type="imptcp" Port="{port}" Address="127.0.0.1")
template(name="all" type="string" string="%pri%|%app-name%|%procid%|%msgid%|%msg%\\n")
action(type="omfile" file="{directory}/received" template="all")
"""


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(echo) as server:
        yield server


def a_session(program: Program, origin: Origin) -> None:
    """One session of a client that asks for an echo."""
    port = int(program.wait_for(LISTENING)[1])
    with connected(port, origin.port) as client:
        assert echoes(client)


class Rsyslog:
    """rsyslog with a configuration of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        with socket.create_server(("127.0.0.1", 0)) as chosen:
            self.port = chosen.getsockname()[1]
        config = directory / "rsyslog.conf"
        config.write_text(RSYSLOG.format(directory=directory, port=self.port))
        command = ["rsyslogd", "-n", "-f", str(config), "-i", str(directory / "rsyslog.pid")]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: self.listens() or self.process.poll() is not None)
        assert self.process.poll() is None

    def listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return (self.directory / "dev-log").exists()

    @property
    def received(self) -> list[list[str]]:
        file = self.directory / "received"
        return [line.split("|", 4) for line in file.read_text().splitlines()] if file.exists() else []

    def until(self, text: str) -> list[str]:
        until(lambda: any(text in words[-1] for words in self.received))
        return next(words for words in self.received if text in words[-1])

    def stop(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def rsyslog(tmp_path: Path) -> Iterator[Rsyslog]:
    if shutil.which("rsyslogd") is None:
        pytest.skip("rsyslogd is not installed")
    made = Rsyslog(tmp_path)
    yield made
    made.stop()


@pytest.mark.parametrize(("way", "workers"), [("local", "1"), ("tcp", "1"), ("tcp", "2")])
def test_rsyslog(rsyslog: Rsyslog, way: str, workers: str, twistd: Twistd, origin: Origin) -> None:
    """rsyslog understands both logs: facility and severity, the program, its number, the kind, the text."""
    place = "syslog:" + (
        f"{rsyslog.directory}/dev-log" if way == "local" else f"tcp:127.0.0.1:{rsyslog.port}"
    )
    program = twistd(
        *("socks", "-p", "0", "--workers", workers, "--log", f"{place}:facility=local0"),
        *("--server-log", place, "--server-log-format", "json"),
    )
    text = json.loads(rsyslog.until("listening on")[4])["text"]
    found = re.search(LISTENING, text)
    assert found is not None
    with connected(int(found[1]), origin.port) as client:
        assert echoes(client)
    pri, name, pid, kind, line = rsyslog.until("client=")
    assert (int(pri), name, kind) == (16 * 8 + 6, "socksproxy", "access")
    assert line.startswith("client=127.0.0.1:")
    assert line.endswith(" end=client ended=client")
    if workers == "1":
        assert int(pid) == program.process.pid
    server = rsyslog.until("listening on")
    assert server[:4] == [str(3 * 8 + 6), "socksproxy", str(program.process.pid), "server"]
    assert "listening on" not in program.output


def test_the_last_lines_are_sent(rsyslog: Rsyslog, twistd: Twistd, origin: Origin) -> None:
    """A session that the end of the server ends has its line at the syslog server."""
    program = twistd("socks", "-p", "0", "--log", f"syslog:tcp:127.0.0.1:{rsyslog.port}")
    client = connected(int(program.wait_for(LISTENING)[1]), origin.port)
    program.stop()
    client.close()
    assert rsyslog.until("client=")[4].endswith("end=drain ended=aborted")


def test_rsyslog_stops(rsyslog: Rsyslog, twistd: Twistd, origin: Origin) -> None:
    """Sessions go on while rsyslog is stopped and its socket is full; their lines are there afterwards."""
    program = twistd("socks", "-p", "0", "--log", f"syslog:{rsyslog.directory}/dev-log")
    port = int(program.wait_for(LISTENING)[1])
    rsyslog.process.send_signal(signal.SIGSTOP)
    with connected(port, origin.port) as bystander:
        longest = 0.0
        for _ in range(300):
            with connected(port, origin.port):
                pass
            began = time.monotonic()
            assert echoes(bystander)
            longest = max(longest, time.monotonic() - began)
        # The socket takes some ten messages. A server that waited would wait for ever.
        assert longest < 20
        rsyslog.process.send_signal(signal.SIGCONT)
        until(lambda: sum(words[3] == "access" for words in rsyslog.received) == 300)
    assert "lost" not in program.output


#: The queue for a socket that is full has little room.
SMALL = "import socksproxy.logs.sinks as sinks; sinks.MOST_WAITING = 20_000\n"


def test_rsyslog_stops_for_long(rsyslog: Rsyslog, start: Twistd, origin: Origin) -> None:
    """What finds no room is lost: that is told once, and how many lines it was when rsyslog reads again."""
    place = f"syslog:{rsyslog.directory}/dev-log"
    beginning = [sys.executable, "-c", SMALL + TWISTD[2], "-n", "--pidfile="]
    program = start([*beginning, "socks", "-p", "0", "--log", place])
    port = int(program.wait_for(LISTENING)[1])
    rsyslog.process.send_signal(signal.SIGSTOP)
    with connected(port, origin.port) as bystander:
        for _ in range(300):
            with connected(port, origin.port):
                pass
            assert echoes(bystander)
        program.wait_for("cannot be written, 1 lines are lost: resource temporarily unavailable")
        rsyslog.process.send_signal(signal.SIGCONT)
        lost = int(program.wait_for(r"is written again, (\d+) lines are lost")[1])
        assert lost > 100
        until(lambda: lost + sum(words[3] == "access" for words in rsyslog.received) == 300)
    assert program.output.count("cannot be written") == 1


def test_journal(tmp_path: Path, twistd: Twistd, origin: Origin) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "journal"))
        journal.settimeout(PATIENCE)
        program = twistd("socks", "-p", "0", "--log", f"journald:{tmp_path}/journal:name=proxy")
        a_session(program, origin)
        fields = fields_of(journal.recv(65536))
    assert fields["SYSLOG_IDENTIFIER"] == "proxy"
    assert fields["PRIORITY"] == "6"
    assert fields["SOCKS_DESTINATION"] == f"127.0.0.1:{origin.port}"
    assert fields["SOCKS_END"] == "client"
    assert "SOCKS_USER" not in fields
    assert fields["MESSAGE"].startswith(f"client={fields['SOCKS_CLIENT']} user=- ")


def test_the_place_changes(tmp_path: Path, twistd: Twistd, origin: Origin) -> None:
    """A reload moves both logs; SIGUSR1 opens both files again."""
    config = tmp_path / "socks.toml"
    listening = '[listeners]\nlisten = ["tcp:0:interface=127.0.0.1"]\n[log]\n'
    config.write_text(f'{listening}log = "a.log"\nserver-log = "s.log"\n')
    program = twistd("socks", "--config", "socks.toml")
    first, second = tmp_path / "s.log", tmp_path / "t.log"
    until(lambda: first.exists() and "listening on" in first.read_text())
    port = int(re.findall(LISTENING, first.read_text())[0])
    config.write_text(f'{listening}log = "b.log"\nserver-log = "t.log"\nserver-log-format = "json"\n')
    program.process.send_signal(signal.SIGHUP)
    until(lambda: second.exists() and "reloaded" in second.read_text())
    assert json.loads(second.read_text().splitlines()[0])["level"] == "info"
    (tmp_path / "b.log").rename(tmp_path / "b.old")
    second.rename(tmp_path / "t.old")
    program.process.send_signal(signal.SIGUSR1)
    until(lambda: second.exists() and (tmp_path / "b.log").exists())
    with connected(port, origin.port) as client:
        assert echoes(client)
    until(lambda: "end=client" in (tmp_path / "b.log").read_text())
    assert program.output == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a file system")
def test_a_full_disk(tmp_path: Path, twistd: Twistd, origin: Origin) -> None:
    """Sessions go on; the lines are lost and counted, and the log goes on when there is room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(disk)]).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        filler = disk / "filler"
        program = twistd("socks", "-p", "0", "--log", str(disk / "access.log"))
        port = int(program.wait_for(LISTENING)[1])
        with open(filler, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        for _ in range(3):
            with connected(port, origin.port) as client:
                assert echoes(client)
        program.wait_for("access.log cannot be written, 1 lines are lost: No space left on device")
        filler.unlink()
        a_session(program, origin)
        lost = int(program.wait_for("access.log is written again, ([0-9]) lines are lost")[1])
        # A session may end after its client has gone on.
        until(lambda: lost + (disk / "access.log").read_text().count("end=client") == 4)
    finally:
        program.stop()
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--log", "syslog:udp:a:1"], "--log syslog:udp:a:1: not the path of a socket, or a server"),
        (["--server-log", "syslog:tcp:a"], "--server-log syslog:tcp:a: needs a host and a port"),
        (["--log", "syslog:/dev/null"], "--log syslog:/dev/null: not a socket"),
        (
            ["--log", "syslog:tls:a:1:ca=/nowhere"],
            "--log syslog:tls:a:1:ca=/nowhere: no such file or directory",
        ),
        (["--server-log-format", "json"], "--server-log-format needs --server-log FILE"),
    ],
)
def test_mistakes(options: list[str], said: str, twistd: Twistd) -> None:
    program = twistd("socks", "-p", "0", *options)
    assert program.wait() == 1
    assert said in program.output
    assert "Traceback" not in program.output
