"""A web server in the proxy's own process keeps answering while bulk data moves."""

from __future__ import annotations

import os
import re
import socket
import time
from collections import defaultdict
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.protocol import Factory, Protocol

import embedded
import load
from proxy import BODY

from ..conftest import Serve
from ..support.benchmarks import run
from ..support.proxy import PATIENCE, Playing, Proxy, reactor, until

#: Bytes that may move through the proxy before the reactor does what is due: a few turns of it.
MOST = 40 << 20
DOWNLOADS, ECHOES, CALLS = 16, 64, 200


@pytest.mark.parametrize(
    "relay",
    [[], ["--no-engine"], ["--processor-time", "--checkout", str(Path(__file__).parents[2])]],
    ids=["engine", "transports", "checkout"],
)
def test_the_web_server_keeps_answering(generator: Path, tmp_path: Path, relay: list[str]) -> None:
    """Every request is answered, rightly, with 16 streams beside it: how fast says the benchmark."""
    said = run("embedded.py", "--seconds", "1", "--output", tmp_path, *relay)
    assert said.returncode == 0, said.stderr
    answers = [int(number) for number in re.findall(r"^with(?:out)? load: (\d+) times, ", said.stdout, re.M)]
    assert len(answers) == 2 * 3  # the web server, and the two kinds of calls
    assert min(answers) > 0
    moved = re.search(r"16 streams through \w+: ([\d.]+) Gbit/s", said.stdout)
    assert moved is not None
    assert float(moved[1]) > 0
    assert "16 streams" not in said.stderr
    assert "Gbit/s and 64 echoes through the proxy" in (tmp_path / embedded.RESULTS).read_text("utf-8")


def test_processor_time() -> None:
    """The clock of a process is the one that it has itself. Both add up threads, not at the same moment."""
    clock = embedded._processor_time(os.getpid())
    assert clock() == pytest.approx(time.process_time(), abs=0.5)


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 500 Internal Server Error\r\n\r\n" + BODY, b"HTTP/1.1 200 OK\r\n\r\nHere", b""],
    ids=["wrong", "cut short", "none"],
)
def test_a_wrong_answer_is_noticed(answer: bytes) -> None:
    """What is not the right answer, whole, is none."""
    mine, servers = socket.socketpair()
    with mine, servers:
        servers.sendall(answer)
        servers.shutdown(socket.SHUT_WR)
        with pytest.raises(embedded.WrongAnswer):
            embedded.ask(mine)


class Waits:
    """
    Calls that are due at once, and requests over TCP; how long they wait.

    The measure is not time, of which a busy machine takes any amount, but how much the proxy does first.

    :param proxy: the proxy in the same reactor.
    :ivar taken: the bytes that moved through the proxy meanwhile, by what has waited.
    """

    def __init__(self, proxy: Proxy) -> None:
        self._sessions = proxy.factory.sessions.live
        self._asked_at = 0
        self.taken: dict[str, list[int]] = defaultdict(list)

    def moved(self) -> int:
        """Bytes that have moved through the sessions that there are."""
        services = [session.service for session in list(self._sessions)]
        return sum(sum(service.counts()[:2]) for service in services if service is not None)

    def _note(self, kind: str, before: int) -> None:
        self.taken[kind].append(self.moved() - before)
        if kind == "callFromThread":
            reactor.callLater(0, self._note, "callLater(0)", self.moved())

    def asked(self) -> None:
        """A request has come."""
        self._note("request", self._asked_at)

    def ask(self, port: int) -> None:
        """Let calls and requests wait; for a thread."""
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
            for _ in range(CALLS):
                reactor.callFromThread(self._note, "callFromThread", self.moved())
                time.sleep(0.001)  # between what is measured
                self._asked_at = self.moved()
                client.sendall(b"x")
                assert client.recv(1) == b"x"


class Answering(Protocol):
    """
    Answers requests with what they say.

    :cvar waits: notes them.
    """

    waits: Waits

    def dataReceived(self, data: bytes) -> None:
        self.waits.asked()
        assert self.transport is not None
        self.transport.write(data)


@pytest.mark.parametrize("kind", ["accepted", "transports"])
@pytest.mark.parametrize("busy_poll", [0, 200])
@pytest_twisted.inlineCallbacks
def test_others_have_their_turn(generator: Path, serve_as: Serve, kind: str, busy_poll: int) -> Playing:
    """Beside 16 downloads and 64 echoes, others wait for a few turns, with the engine and without."""
    proxy: Proxy = yield serve_as(kind, busy_poll=busy_poll)
    waits = Waits(proxy)
    Answering.waits = waits
    port = reactor.listenTCP(0, Factory.forProtocol(Answering), interface="127.0.0.1")
    loads = [
        load.begin(
            generator,
            [mode, "-c", str(count), "-n", str(total), "-b", str(1 << 50), "-t", "60"],
            proxy.port.getHost().port,
        )
        for mode, count, total in (("down", DOWNLOADS, DOWNLOADS), ("rtt", ECHOES, 1 << 30))
    ]
    try:
        yield until(lambda: len(proxy.sessions.live) == DOWNLOADS + ECHOES and waits.moved() > MOST)
        yield proxy.play(waits.ask, port.getHost().port)
        yield until(lambda: len(waits.taken["callLater(0)"]) == CALLS)
    finally:
        for each in loads:
            each.kill()
            each.communicate()
        yield port.stopListening()
    p99 = {each: sorted(taken)[CALLS * 99 // 100] for each, taken in waits.taken.items()}
    print(p99)
    assert len(p99) == 3
    assert max(p99.values()) < MOST, p99
