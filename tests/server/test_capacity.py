"""How many sessions one process holds, and what it does when descriptors run out."""

from __future__ import annotations

import os
import re
import resource
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..support import crowd as crowd_module
from ..support.crowd import Crowd
from ..support.processes import PATIENCE, Program
from ..support.proxy import greeting, request5

SESSIONS = 8_000
#: Descriptors that a process needs besides those of its sessions.
SPARE = 300

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """This process may open enough for its side of all sessions, and a child for both."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * SESSIONS + SPARE:
        pytest.skip(f"the hard limit on descriptors is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def origin(start: Callable[..., Program], tmp_path: Path) -> int:
    """The port of an origin that echoes, in a process of its own."""
    told = tmp_path / "port"
    start([sys.executable, crowd_module.__file__, str(told)])
    deadline = time.monotonic() + PATIENCE
    while not (told.exists() and told.read_text().endswith("\n")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return int(told.read_text())


def listening(program: Program) -> tuple[str, int]:
    return "127.0.0.1", int(program.wait_for(r"listening on tcp:127\.0\.0\.1:(\d+)")[1])


def descriptors(program: Program) -> int:
    return len(os.listdir(f"/proc/{program.process.pid}/fd"))


def resident(program: Program) -> int:
    """Bytes of memory that are the process's own."""
    rollup = Path(f"/proc/{program.process.pid}/smaps_rollup").read_text()
    return 1024 * sum(int(size) for size in re.findall(r"^Private_\w+:\s+(\d+) kB", rollup, re.MULTILINE))


def cpu_seconds(program: Program) -> float:
    """What the process has computed since it began."""
    fields = Path(f"/proc/{program.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def settles(program: Program, count: int) -> None:
    """Wait until the process has no more than *count* descriptors."""
    deadline = time.monotonic() + PATIENCE
    while descriptors(program) > count:
        assert time.monotonic() < deadline, f"{descriptors(program)} descriptors, {count} before"
        time.sleep(0.02)


def asked(origin: int) -> bytes:
    return greeting() + request5("127.0.0.1", origin)


GRANTED = b"\x05\x00\x05\x00\x00\x01\x7f\x00\x00\x01"


@pytest.mark.usefixtures("many_descriptors")
def test_8000_sessions(twistd: Callable[..., Program], origin: int) -> None:
    """
    8,000 sessions at once in one process: all are opened, all echo, and nothing is left of them.

    The second round must need no more than the first: what is left for good is a leak, what the
    allocator keeps for the next time is not.
    """
    program = twistd("socks", "-p", "0")
    crowd = Crowd(listening(program), PATIENCE)
    during: list[int] = []
    try:
        opens(crowd, 1, origin)
        before = descriptors(program) - 2
        crowd.close()
        cold = resident(program)
        for _ in range(2):
            opens(crowd, SESSIONS, origin)
            assert descriptors(program) == before + 2 * SESSIONS
            for number, sock in enumerate(crowd.socks):
                sock.sendall(b"%07d\n" % number)
            crowd.wait(8)
            for number, sock in enumerate(crowd.socks):
                assert crowd.take(sock, 8) == b"%07d\n" % number
            during.append(resident(program))
            crowd.close()
            settles(program, before)
    finally:
        crowd.leave()
    assert during[1] - during[0] < 2 << 20, (cold, during)
    assert during[0] - cold < SESSIONS * 6 * 1024, (cold, during)
    assert program.process.poll() is None
    program.stop()
    assert "Traceback" not in program.output
    assert "short" not in program.output


def opens(crowd: Crowd, count: int, origin: int) -> None:
    """*count* clients come and get what they ask for."""
    crowd.open(count)
    crowd.send(asked(origin))
    crowd.wait(12)
    replies = {crowd.take(sock, 12) for sock in crowd.socks}
    assert len(replies) == count  # each with an outgoing port of its own
    assert {reply[:10] for reply in replies} == {GRANTED}


@pytest.mark.parametrize("listen", ["tcp", "haproxy:tcp"])
def test_out_of_descriptors(twistd: Callable[..., Program], origin: int, listen: str) -> None:
    """
    More clients than descriptors: the server neither ends nor spins, and each is served when its turn comes.

    What ``haproxy:`` wraps is accepted by Twisted itself, the other by ours.
    """
    clients = 150
    program = twistd(
        *("socks", "--listen", f"{listen}:0:interface=127.0.0.1:backlog=256"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128)),
    )
    crowd = Crowd(listening(program), PATIENCE)
    hello = asked(origin)
    if listen.startswith("haproxy"):
        hello = b"PROXY TCP4 127.0.0.1 127.0.0.1 1 1080\r\n" + hello
    try:
        crowd.open(clients)
        crowd.send(hello)
        crowd.wait(12, least=40)
        program.wait_for(r"descriptors are short: of 128, \d+ are in use, 16 are reserved for logs")
        began = cpu_seconds(program)
        served = crowd.wait(12, within=5)
        assert cpu_seconds(program) - began < 1
        assert 40 <= len(served) <= 60
        done = 0
        while served:
            for sock in served:
                assert crowd.take(sock, 12)[:10] == GRANTED
            crowd.send(b"ping", served)
            crowd.wait(4, served)
            crowd.close(served)
            done += len(served)
            served = crowd.wait(12, least=min(1, len(crowd.socks)))
        assert done == clients
    finally:
        crowd.leave()
    assert program.process.poll() is None
    assert "Traceback" not in program.output
    assert program.output.count("descriptors are short") == 1


def test_silent_client(twistd: Callable[..., Program], origin: int) -> None:
    """One client takes all descriptors with connections that say nothing: another client is served."""
    program = twistd(
        *("socks", "--listen", "tcp:0:interface=127.0.0.1:backlog=256", "--handshake-timeout=60"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128)),
    )
    address = listening(program)
    silent = [socket.create_connection(address, PATIENCE, ("127.0.0.3", 0)) for _ in range(80)]
    try:
        program.wait_for("descriptors are short")
        began = time.monotonic()
        with socket.create_connection(address, PATIENCE, ("127.0.0.4", 0)) as client:
            client.sendall(asked(origin))
            assert client.makefile("rb").read(12)[:10] == GRANTED
        # The silent ones have 60 seconds for their requests.
        assert time.monotonic() - began < 20
        program.process.terminate()
        program.wait()
        assert program.output.count("descriptors are short") == 1
    finally:
        for sock in silent:
            sock.close()
