"""Sticky sessions with ``--workers``, as processes: see :mod:`socksproxy.routes.sticky`."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from ..support.origin import Origin
from ..support.processes import PATIENCE, Program
from ..support.workers import LISTENING, echoes, received

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="has many loopback addresses")

WORDS = [f"word{number}" for number in range(6)]
CONFIG = """
[listeners]
listen = ["tcp:0:interface=127.0.0.1"]
[authentication]
auth = ["memory:bob:secret"]
[workers]
workers = 4
[log]
log = "access.log"
[sticky]
file = "state"
"""


def by_list(hosts: list[str]) -> str:
    """A list of addresses, of which one is chosen."""
    return f"[outgoing]\noutgoing = {json.dumps(hosts)}\n"


def by_pool(hosts: list[str]) -> str:
    """A pool whose members leave from one address each."""
    members = [f'[upstreams."{host}"]\ntype = "direct"\noutgoing = ["{host}"]\n' for host in hosts]
    pool = f'[pools.eu]\nchoose = "random"\nmembers = {json.dumps(hosts)}\n'
    return "".join(members) + pool + '[outgoing]\nvia = "eu"\n'


def left_from(port: int, origin: Origin, word: str) -> str:
    """The address from which a session leaves."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        name = f"bob-session-{word}".encode()
        client.sendall(b"\x05\x01\x02\x01" + bytes((len(name),)) + name + b"\x06secret")
        assert received(client, 4) == b"\x05\x02\x01\x00"
        client.sendall(b"\x05\x01\x00\x01\x7f\x00\x00\x01" + origin.port.to_bytes(2, "big"))
        reply = received(client, 10)
        assert reply[1] == 0
        assert echoes(client)
    return socket.inet_ntoa(reply[4:8])


@pytest.mark.parametrize("config", [by_list, by_pool])
def test_every_worker(
    tmp_path: Path, twistd: Callable[..., Program], origin: Origin, config: Callable[[list[str]], str]
) -> None:
    """e 32: the same address in four workers, after SIGHUP with another list, and after a restart."""
    path, hosts = tmp_path / "proxy.toml", [f"127.0.0.{number}" for number in range(10, 40)]

    def write(addresses: list[str]) -> None:
        path.write_text(CONFIG + config(addresses))

    def start() -> tuple[Program, int]:
        program = twistd("socks", "--config", "proxy.toml")
        port = int(program.wait_for(LISTENING)[1])
        program.wait_for(r"4 workers|worker")
        return program, port

    def all_of(port: int, times: int) -> list[str]:
        found = [{left_from(port, origin, word) for _ in range(times)} for word in WORDS]
        assert all(len(each) == 1 for each in found), found
        return [each.pop() for each in found]

    write(hosts)
    program, port = start()
    first = all_of(port, 8)
    assert len(set(first)) > 1
    gone = next(host for host in hosts if host not in first)
    write([host for host in hosts if host != gone])
    program.process.send_signal(signal.SIGHUP)
    program.wait_for(r" reloaded: ")
    assert all_of(port, 4) == first
    program.stop()
    program, port = start()
    assert all_of(port, 2) == first
    lines = (tmp_path / "access.log").read_text()
    assert set(re.findall(r" user=(\S+) .* sticky=(\S+) ", lines)) == {("bob", word) for word in WORDS}
    assert os.stat(tmp_path / "state").st_size < 3_000_000
