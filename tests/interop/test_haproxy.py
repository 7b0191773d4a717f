"""HAProxy in front of the proxy: what it tells of its clients, in each way that it tells it."""

from __future__ import annotations

import csv
import json
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.authority import SERVER, Authority
from tests.support.origin import Origin
from tests.support.processes import TWISTD, Program
from tests.support.programs import require
from tests.support.proxy import PATIENCE, ask5, echoes as echoed

#: The ways, what the proxy's listeners are for them, and what the server's line in HAProxy has.
WAYS = {
    "v1": ("haproxy:tcp:0:interface=127.0.0.1", "send-proxy"),
    "v2": ("haproxy:tcp:0:interface=127.0.0.1", "send-proxy-v2"),
    "unix": ("haproxy:unix:{directory}/socks", "send-proxy-v2"),
    "cn": ("haproxy:tcp:0:interface=127.0.0.1", "send-proxy-v2-ssl-cn proxy-v2-options unique-id,crc32c"),
}

_CONFIGURATION = """
global
    maxconn 200
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend plain
    bind fd@{plain}
    unique-id-format socks-%ci-%cp
    default_backend proxy
frontend tls
    bind fd@{tls} ssl crt {pem} ca-file {ca} verify optional
    unique-id-format socks-%ci-%cp
    default_backend proxy
backend proxy
    server one {place} {options} check inter 100ms
"""


class Balanced:
    """A ``twistd socks`` with HAProxy in front of it."""

    def __init__(self, directory: Path, way: str, *options: str) -> None:
        listen, self._sends = WAYS[way]
        self._directory = directory
        self.authority = Authority(directory)
        self.pem = self.authority.issue("localhost", usage=SERVER)
        listen = listen.format(directory=directory)
        self.server = Program(
            [
                *(*TWISTD, "-n", "--pidfile=", "socks", "--listen", listen),
                *("-l", str(directory / "access.log"), "--log-format", "json", "--log-probes", *options),
            ],
            directory,
        )
        where = self.server.wait_for(r"listening on (?:tcp:(127\.0\.0\.1:\d+)|unix:(\S+))")
        self.place = where[1] or f"unix@{where[2]}"

    @contextmanager
    def running(self) -> Iterator[Balanced]:
        """HAProxy runs meanwhile."""
        with socket.create_server(("127.0.0.1", 0)) as plain, socket.create_server(("127.0.0.1", 0)) as tls:
            self.plain, self.tls = plain.getsockname(), tls.getsockname()
            path = self._directory / "haproxy.cfg"
            text = _CONFIGURATION.format(
                plain=plain.fileno(),
                tls=tls.fileno(),
                pem=self.pem,
                ca=self.authority.ca_file,
                place=self.place,
                options=self._sends,
            )
            path.write_text(text)
            descriptors = (plain.fileno(), tls.fileno())
            balancer = Program(
                [require("haproxy"), "-db", "-f", str(path)], self._directory, pass_fds=descriptors
            )
            try:
                yield self
            finally:
                balancer.stop()
                self.server.stop()
        assert "Traceback" not in self.server.output, self.server.output
        assert "Unhandled" not in self.server.output, self.server.output

    def session(self, origin: Origin, *, name: str | None = None, secured: bool = False) -> tuple[str, Any]:
        """A session through both: the client's address, and its record."""
        sock = socket.create_connection(self.tls if secured or name else self.plain, PATIENCE)
        client = "{}:{}".format(*sock.getsockname())
        if secured or name:
            context = ssl.create_default_context(cafile=str(self.authority.ca_file))
            context.check_hostname = False
            if name is not None:
                context.load_cert_chain(str(self.authority.issue(name)))
            sock = context.wrap_socket(sock)
        with sock:
            assert ask5(sock, "127.0.0.1", origin.port)[0] == 0
            echoed(sock, bytes(100_000))
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for record in self.records():
                if record["client"] == client:
                    return client, record
            time.sleep(0.02)
        raise AssertionError(f"no record of {client}, but {self.records()}")

    def records(self) -> list[Any]:
        """The access records so far."""
        lines = (self._directory / "access.log").read_text().rpartition("\n")[0].splitlines()
        return [json.loads(line) for line in lines]


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("way", ["v1", "v2", "unix", "cn"])
def test_clients(tmp_path: Path, echoes: Origin, way: str, workers: str) -> None:
    """The record has the client's own address; health checks are the balancer's, and break nothing."""
    balanced = Balanced(tmp_path, way, "--workers", workers, "--proxy-from", "127.0.0.1")
    with balanced.running():
        for number in range(6):
            client, record = balanced.session(echoes, secured=number % 2 == 1)
            assert (record["sent"], record["received"]) == (100_000, 100_000)
            tells = way == "cn"
            assert record["unique_id"] == (f"socks-{client.replace(':', '-')}" if tells else None)
            assert record["tls_name"] is None
            assert record["ended"] in ("client", "client reset")
        checks = [record for record in balanced.records() if record["version"] is None]
        assert all(record["end"] == "client" for record in checks)
    assert "PROXY" not in balanced.server.output.partition("listening")[2].replace("--proxy-from", "")


def test_names(tmp_path: Path, echoes: Origin) -> None:
    """A name in a certificate that HAProxy has verified is the user's; without one there is a password."""
    balanced = Balanced(tmp_path, "cn", "--auth", "balancer", "--auth", "memory:bob:secret")
    with balanced.running():
        for name in ("alice", "Алиса"):
            _, record = balanced.session(echoes, name=name)
            assert (record["user"], record["method"], record["tls_name"]) == (name, "balancer", name)
        with socket.create_connection(balanced.plain, PATIENCE) as sock:
            sock.sendall(b"\x05\x02\x00\x02")
            assert sock.recv(2) == b"\x05\x02"


def test_others(tmp_path: Path, echoes: Origin) -> None:
    """Who is no balancer is refused; a reload names another one while sessions go on."""
    file = tmp_path / "socks.toml"
    listen = WAYS["v2"][0]
    text = '[listeners]\nlisten = ["{}"]\nproxy-from = ["{}"]\n'
    file.write_text(text.format(listen, "192.0.2.1"))
    balanced = Balanced(tmp_path, "v2", "--config", str(file))
    with balanced.running():
        with socket.create_connection(balanced.plain, PATIENCE) as sock:
            assert sock.recv(1) == b""
        balanced.server.wait_for("127.0.0.1:[0-9]+: refused: no balancer of --proxy-from")
        file.write_text(text.format(listen, "127.0.0.0/8"))
        balanced.server.process.send_signal(signal.SIGHUP)
        balanced.server.wait_for("reloaded")
        deadline = time.monotonic() + PATIENCE
        while True:  # HAProxy may hold the server for down at first
            try:
                balanced.session(echoes)
                break
            except (AssertionError, OSError):
                assert time.monotonic() < deadline
                time.sleep(0.1)


#: Health checks of HAProxy: what the server's line has for each, and what the backend has.
CHECKS = {
    "connects": ("check port {port}", ""),
    "v1": ("check check-send-proxy send-proxy", ""),
    "v2": ("check check-send-proxy send-proxy-v2", ""),
    "greets": (
        "check check-send-proxy send-proxy-v2",
        "option tcp-check\n    tcp-check send-binary 050100\n    tcp-check expect binary 0500",
    ),
}


def test_checks_leave_nothing(tmp_path: Path, echoes: Origin) -> None:
    """Checks of each kind write no line, count in no limit, and take no place of a client."""
    access = tmp_path / "access.log"
    server = Program(
        [
            *(*TWISTD, "-n", "--pidfile=", "socks", "--listen", WAYS["v2"][0], "--proxy-from", "127.0.0.1"),
            *("-l", str(access), "--log-format", "json", "--max-sessions-per-client", "1"),
        ],
        tmp_path,
    )
    port = int(server.wait_for(r"listening on tcp:127\.0\.0\.1:(\d+)")[1])
    parts = ["defaults\n    mode tcp\n    timeout connect 5s\n    timeout server 60s"]
    parts.append(f"global\n    stats socket {tmp_path}/haproxy.sock")
    for name, (options, more) in CHECKS.items():
        line = f"server {name} 127.0.0.1:{port} inter 20ms {options.format(port=port)}"
        parts.append(f"backend {name}\n    {more}\n    {line}")
    path = tmp_path / "haproxy.cfg"
    path.write_text("\n".join(parts) + "\n")
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
        sock.sendall(b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n")  # a client at the balancer's own address
        assert ask5(sock, "127.0.0.1", echoes.port)[0] == 0
        known = len(server.output)
        balancer = Program([require("haproxy"), "-db", "-f", str(path)], tmp_path)
        try:
            time.sleep(1.5)  # some 70 checks of each kind
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(tmp_path / "haproxy.sock"))
                client.sendall(b"show stat\n")
                text = b"".join(iter(lambda: client.recv(65536), b"")).decode().removeprefix("# ")
        finally:
            balancer.stop()
        rows = {row["svname"]: row for row in csv.DictReader(text.splitlines())}
        assert {name: (rows[name]["status"], rows[name]["chkfail"]) for name in CHECKS} == dict.fromkeys(
            CHECKS, ("UP", "0")
        )
        echoed(sock, b"still here")
        server.read()
        lines = server.output[known:].splitlines()
        assert [line for line in lines if "runs as root" not in line] == []
        assert access.read_text() == ""
    server.stop()
    assert len(access.read_text().splitlines()) == 1
