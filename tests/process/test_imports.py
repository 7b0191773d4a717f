"""No client waits for an import: a server that is ready has imported all that its configuration needs."""

from __future__ import annotations

import json
import re
import signal
import socket
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from socksproxy.auth.checkers.htpasswd import new_hash
from socksproxy.wire.words import Command
from tests.support.admin import asks
from tests.support.certificates import self_signed
from tests.support.names import NameServer
from tests.support.origin import Origin, echo
from tests.support.processes import Program
from tests.support.proxy import ask4, ask5, ask_as, echoes
from tests.support.udp import Client, udp_socket
from tests.support.workers import LISTENING, until

#: twistd, which tells at its end what was imported after the start.
PROGRAM = """
import sys
sys.argv[0] = "twistd"
from twisted.internet import reactor
from twisted.scripts.twistd import run

def started():
    known = set(sys.modules)
    def ended():
        print("imported late:", *sorted(set(sys.modules) - known), flush=True)
    reactor.addSystemEventTrigger("before", "shutdown", ended)

reactor.callWhenRunning(started)
run()
"""

GOVERNED = """
[listeners]
listen = ["plain=tcp:0:interface=127.0.0.1", "ssl:0:interface=127.0.0.1:privateKey=key.pem:certKey=key.pem"]
[names]
resolver = "dns:127.0.0.1:{dns}"
[log]
log = "access.log"
log-format = "json"
log-probes = true
[bind]
bind-any-peer = true
[limits]
quota-file = "usage.sqlite"
[limits.client]
new-sessions = "1000/s"
daily = "5 GB"
download = "10 MB/s"
[sets.games]
names = ["*.games.example"]
[[rule]]
name = "night"
allow = false
days = ["mon-sun"]
hours = ["00:00-00:01"]
zone = "Europe/Berlin"
names = ["@games"]
[[rule]]
name = "all"
allow = true
networks = ["127.0.0.0/8"]
limits = {{ upload = "10 MB/s" }}
"""

PASSWORDS = """
[listeners]
interface = "127.0.0.1"
port = 0
[authentication]
auth = ["htpasswd:users", "anonymous"]
"""


class Server:
    """A server and its ports, in the order in which they opened."""

    def __init__(self, directory: Path, config: str, ports: int) -> None:
        (directory / "socks.toml").write_text(config)
        command = [sys.executable, "-c", PROGRAM, "-n", "socks", "--config", "socks.toml"]
        self.program = Program(command, directory)
        said = self.program.wait_for(r"(?s)" + r"listening on tcp:127\.0\.0\.1:(\d+).*" * ports)
        self.ports = [int(port) for port in said.groups()]
        self.address = ("127.0.0.1", self.ports[0])

    def connect(self, number: int = 0) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.ports[number]), 60)

    def imported_late(self) -> list[str]:
        self.program.stop()
        return self.program.wait_for("imported late:(.*)")[1].split()


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(echo) as server:
        yield server


def test_every_command(tmp_path: Path, origin: Origin) -> None:
    (tmp_path / "key.pem").write_bytes(self_signed())
    names = {"origin.example": ["127.0.0.1"]}
    with NameServer(names, {"127.0.0.1": "origin.example"}) as dns:
        server = Server(tmp_path, GOVERNED.format(dns=dns.port), 2)
        server.connect().close()  # a probe
        with server.connect() as sock:
            assert ask5(sock, "origin.example", origin.port)[0] == 0
            echoes(sock)
        with server.connect() as sock:
            assert ask5(sock, "a.games.example", origin.port)[0] != 0
        with server.connect() as sock:
            assert ask4(sock, "127.0.0.1", origin.port)[0] == 90
            echoes(sock)
        context = ssl.create_default_context(cafile=str(tmp_path / "key.pem"))
        with context.wrap_socket(server.connect(1), server_hostname="localhost") as tls:
            assert ask5(tls, "127.0.0.1", origin.port)[0] == 0
            echoes(tls)
        with server.connect() as sock:
            code, place = ask5(sock, "127.0.0.1", 0, Command.BIND)
            assert code == 0
            with socket.create_connection((place.host, place.port), 60) as peer:
                sock.recv(100)
                peer.sendall(b"word")
                assert sock.recv(4) == b"word"
        for command, host in ((Command.RESOLVE, "origin.example"), (Command.RESOLVE_PTR, "127.0.0.1")):
            with server.connect() as sock:
                assert ask5(sock, host, 0, command)[0] == 0
        client, peer = Client(server), udp_socket("127.0.0.1")
        client.udp.sendto(
            b"\0\0\0\x01\x7f\0\0\x01" + peer.getsockname()[1].to_bytes(2, "big") + b"word", client.relay
        )
        data, source = peer.recvfrom(100)
        assert data == b"word"
        peer.sendto(b"back", source)
        assert client.udp.recv(100).endswith(b"back")
        client.close()
        peer.close()
        assert server.imported_late() == []


def test_passwords(tmp_path: Path, origin: Origin) -> None:
    (tmp_path / "users").write_bytes(b"bob:" + new_hash(b"secret", 4) + b"\n")
    server = Server(tmp_path, PASSWORDS, 1)
    for _ in range(2):
        with server.connect() as sock:
            assert ask_as(sock, b"bob", origin.port) == 0
            echoes(sock)
    with server.connect() as sock:
        sock.sendall(b"\x05\x01\x02")
        assert sock.recv(2) == b"\x05\x02"
        sock.sendall(b"\x01\x03bob\x05wrong")
        assert sock.recv(2)[1] != 0
    assert server.imported_late() == []


def test_plain(tmp_path: Path, origin: Origin) -> None:
    """Without a configuration the system's resolver looks names up."""
    server = Server(tmp_path, '[listeners]\ninterface = "127.0.0.1"\nport = 0\n', 1)
    with server.connect() as sock:
        ask5(sock, "localhost", origin.port)
    with server.connect() as sock:
        ask5(sock, "nowhere.invalid", origin.port)
    with server.connect() as sock:
        ask5(sock, "127.0.0.1", 0, Command.RESOLVE_PTR)
    assert server.imported_late() == []


#: A Python that runs a worker, which tells at its end what was imported after the start.
WORKER = """#!{python}
import sys
_, _, boot, *sys.argv = sys.argv
exec(boot.rpartition("main()")[0])
import socksproxy.workers.worker as worker
run = worker.run

def running(orders, control, reactor):
    known = []
    reactor.callWhenRunning(lambda: known.append(set(sys.modules)))
    run(orders, control, reactor)
    print("imported late:", *sorted(set(sys.modules) - known[0]), file=sys.stderr)

worker.run = running
main()
"""

THROUGH = """
[listeners]
listen = ["tcp:0:interface=127.0.0.1"]
[workers]
workers = 2
[log]
log = "syslog:tcp:127.0.0.1:{syslog}"
server-log = "server.log"
server-log-format = "json"
[upstreams.next]
address = "127.0.0.1:{upstream}"
type = "socks5"
[[rule]]
name = "through"
allow = true
names = ["origin.invalid"]
via = "next"
[[rule]]
name = "all"
allow = true
[[admin.listener]]
endpoint = "unix:admin"
"""


def test_workers_and_upstreams(tmp_path: Path, origin: Origin) -> None:
    """Also not in workers or their supervisor: through an upstream, to syslog, reloaded, administered."""
    python = tmp_path / "python"
    python.write_text(WORKER.format(python=sys.executable))
    python.chmod(0o755)
    (tmp_path / "upstream").mkdir()
    upstream = Server(tmp_path / "upstream", '[listeners]\ninterface = "127.0.0.1"\nport = 0\n', 1)
    with socket.create_server(("127.0.0.1", 0)) as syslog:
        config = THROUGH.format(syslog=syslog.getsockname()[1], upstream=upstream.ports[0])
        (tmp_path / "socks.toml").write_text(config)
        code = f"import sys; sys.executable = {str(python)!r}\n{PROGRAM}"
        command = [sys.executable, "-c", code, "-n", "--pidfile=", "socks", "--config", "socks.toml"]
        program = Program(command, tmp_path)
        log = tmp_path / "server.log"
        until(lambda: log.exists() and "listening on" in log.read_text())
        found = re.search(LISTENING, log.read_text())
        assert found is not None
        address = ("127.0.0.1", int(found[1]))
        for reload in (False, True):
            if reload:
                program.process.send_signal(signal.SIGHUP)
                until(lambda: "reloaded: " in log.read_text())
            for host in 4 * ("127.0.0.1", "origin.invalid", "localhost", "192.0.2.1.invalid"):
                with socket.create_connection(address, 60) as sock:
                    if ask5(sock, host, origin.port)[0] == 0:
                        echoes(sock)
            for path in ("/v1/status", "/v1/sessions", "/v1/trace?client=127.0.0.1&seconds=1"):
                assert asks(tmp_path / "admin", "GET", path).status == 200
        program.stop()
    assert upstream.imported_late() == []
    late = [json.loads(line)["text"] for line in log.read_text().splitlines() if "imported late" in line]
    assert late == ["imported late:"] * 3
