"""Sockets on an address of a prefix that no interface has; a namespace takes the prefix for its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_PROGRAM = """
import socket, sys, threading
from twisted.internet import epollreactor
epollreactor.install()
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.threads import deferToThread
from socksproxy import SOCKSFactory
from tests.support.origin import Origin, echo
from tests.support.proxy import ask5, echoes
from tests.support.udp import Client, Echo

def client(proxy):
    with Origin(echo, "::1") as origin:
        for _ in range(3):
            with socket.create_connection(proxy.address, 5) as sock:
                assert ask5(sock, "::1", origin.port)[0] == 0
                echoes(sock)
        print(*{host for host, _ in origin.peers})
    with Echo("::1") as echoing, Client(proxy) as asking:
        assert asking.ask(b"x", echoing.address[:2]) == b"x"
        print(*{peer[0] for _, peer in echoing.seen})
    with socket.create_connection(proxy.address, 5) as sock:
        code, place = ask5(sock, "::1", 0, 2)
        assert code == 0
        print(place.host)

class Place:
    pass

def listening(port):
    Place.address = ("127.0.0.1", port.getHost().port)
    deferToThread(client, Place).addErrback(lambda failure: failure.printTraceback(sys.stderr)).addBoth(
        lambda _: reactor.stop()
    )

factory = SOCKSFactory(reactor, outgoing=["2001:db8:5::/64", "127.0.0.1"], engine=sys.argv[1] == "engine")
serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(factory).addCallback(listening)
reactor.run()
"""


@pytest.mark.skipif(not (shutil.which("unshare") and shutil.which("ip")), reason="needs unshare and ip")
@pytest.mark.parametrize("kind", ["engine", "transports"])
def test_prefix(kind: str) -> None:
    """TCP, UDP and BIND; three sessions leave from three addresses."""
    setup = "ip link set lo up && ip -6 route add local 2001:db8:5::/64 dev lo"
    if subprocess.run(["unshare", "-rn", "sh", "-c", setup], capture_output=True, check=False).returncode:
        pytest.skip("no network namespace with IPv6 can be made here")
    told = subprocess.run(
        ["unshare", "-rn", "sh", "-c", f'{setup} && exec "$0" -c "$1" "$2"', sys.executable, _PROGRAM, kind],
        cwd=_ROOT,
        env=dict(os.environ, PYTHONPATH=str(_ROOT)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert not told.stderr, told.stderr
    tcp, udp, bind = told.stdout.splitlines()
    assert len(tcp.split()) == 3
    assert all(host.startswith("2001:db8:5:") for host in f"{tcp} {udp} {bind}".split())
