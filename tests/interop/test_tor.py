"""Tor's clients, which ask the proxy for names: tor-resolve, and whatever torsocks wraps."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.names import NameServer
from tests.support.origin import Origin, echo
from tests.support.processes import PATIENCE
from tests.support.programs import ECHO, own_address, require, run

from .conftest import Proxy


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy with names, both ways, that nobody else knows."""
    hosts = {
        "four.test": ["192.0.2.4"],
        "six.test": ["2001:db8::6"],
        "dual.test": ["192.0.2.7", "2001:db8::7"],
        "here.test": [own_address()],  # torsocks never sends 127/8 to a proxy
    }
    pointers = {"192.0.2.4": "four.test", "2001:db8::6": "six.test", "192.0.2.66": "not a name"}
    with NameServer(hosts, pointers) as server:
        running = Proxy(tmp_path_factory.mktemp("names"), "--resolver", f"dns:127.0.0.1:{server.port}")
        yield running
        running.stop()


class TestTorResolve:
    @pytest.mark.parametrize(
        ("arguments", "answer"),
        [
            (["four.test"], "192.0.2.4"),
            (["-5", "four.test"], "192.0.2.4"),
            (["-4", "four.test"], "192.0.2.4"),
            (["six.test"], "2001:db8::6"),
            (["dual.test"], "192.0.2.7"),
            (["-4", "dual.test"], "192.0.2.7"),
            (["192.0.2.9"], "192.0.2.9"),
            (["-x", "192.0.2.4"], "four.test"),
            (["-x", "2001:db8::6"], "six.test"),
        ],
    )
    def test_answers(self, names: Proxy, arguments: list[str], answer: str) -> None:
        done = run([require("tor-resolve"), *arguments, f"127.0.0.1:{names.port}"])
        assert done.stdout.decode().split() == [answer], done.stderr
        assert done.returncode == 0
        deadline = time.monotonic() + PATIENCE
        while not any(record["announced"] == answer for record in names.records()):
            assert time.monotonic() < deadline
            time.sleep(0.02)

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["nowhere.test"], b"host is unreachable"),
            (["-4", "nowhere.test"], b"91"),
            (["-4", "six.test"], b"91"),
            (["-x", "192.0.2.99"], b"host is unreachable"),
            (["-x", "2001:db8::99"], b"host is unreachable"),
            (["-x", "192.0.2.66"], b"host is unreachable"),
        ],
    )
    def test_not_found(self, names: Proxy, arguments: list[str], said: bytes) -> None:
        done = run([require("tor-resolve"), *arguments, f"127.0.0.1:{names.port}"])
        assert done.returncode != 0
        assert said in done.stderr + done.stdout
        assert done.stdout.strip() == b"" or said in done.stdout

    def test_system(self, proxy: Proxy) -> None:
        """The system's own resolver, both ways."""
        program, place = require("tor-resolve"), f"127.0.0.1:{proxy.port}"
        assert run([program, "localhost", place]).stdout.strip() == b"127.0.0.1"
        name = socket.gethostbyaddr("127.0.0.1")[0]
        assert run([program, "-x", "127.0.0.1", place]).stdout.decode().strip() == name

    def test_turned_off(self, tmp_path: Path) -> None:
        running = Proxy(tmp_path, "--no-resolve-commands")
        try:
            done = run([require("tor-resolve"), "localhost", f"127.0.0.1:{running.port}"])
            assert done.returncode != 0
            assert running.record_of("localhost:0")["reply"] == 7
        finally:
            running.stop()


_LOOK_UP = """
import socket, sys
for name in sys.argv[1:]:
    try:
        print(socket.gethostbyname(name), socket.getaddrinfo(name, 80, 0, socket.SOCK_STREAM)[0][4][0])
    except OSError:
        print("not found")
"""


class TestTorsocks:
    @pytest.fixture
    def wrapped(self, names: Proxy, tmp_path: Path) -> tuple[list[str], dict[str, str]]:
        config = tmp_path / "torsocks.conf"
        config.write_text(
            f"TorAddress 127.0.0.1\nTorPort {names.port}\nOnionAddrRange 127.42.42.0/24\n"
            "AllowOutboundLocalhost 0\nAllowInbound 1\n"
        )
        return [require("torsocks"), sys.executable, "-c"], {"TORSOCKS_CONF_FILE": str(config)}

    def test_looks_up(self, wrapped: tuple[list[str], dict[str, str]]) -> None:
        """Names that only our resolver knows; of two families IPv4, which is all that torsocks takes."""
        command, environment = wrapped
        done = run([*command, _LOOK_UP, "four.test", "dual.test", "nowhere.test"], environment=environment)
        assert done.stdout.decode().splitlines() == [
            "192.0.2.4 192.0.2.4",
            "192.0.2.7 192.0.2.7",
            "not found",
        ], done.stderr

    def test_connects_by_name(self, names: Proxy, wrapped: tuple[list[str], dict[str, str]]) -> None:
        """First RESOLVE, then CONNECT to what it told."""
        command, environment = wrapped
        address = own_address()
        with Origin(echo, address) as origin:
            done = run([*command, ECHO, "here.test", str(origin.port)], environment=environment)
            assert done.stdout == b"hello", done.stderr
            record = names.record_of(f"{address}:{origin.port}")
        assert (record["command"], record["sent"], record["received"]) == ("CONNECT", 5, 5)
