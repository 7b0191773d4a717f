"""Load on a fleet: sessions one after the other, from many addresses, and how they end."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from contextlib import ExitStack
from types import TracebackType

from tests.support.fleet import CLIENTS, ORIGIN, Fleet, until
from tests.support.origin import Origin
from tests.support.proxy import echoes, reply5, request5


class FleetLoad:
    """
    Opens sessions through the balancer in several threads, in a ``with`` statement.

    :param rate: sessions a second, all together; None: as many as there can be.
    :param port: of the origin, which echoes.
    :param size: of what each session sends, and gets back.
    :ivar outcomes: how sessions went: "served", or what went wrong.
    :ivar waits: when each request was sent, and how many seconds later the reply was there.
    """

    def __init__(
        self, fleet: Fleet, port: int, *, threads: int = 4, rate: float | None = None, size: int = 4
    ) -> None:
        self._fleet = fleet
        self._port = port
        self._data = bytes(size)
        self._pause = 0.0 if rate is None else threads / rate
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=[number]) for number in range(threads)]
        self._step = threads
        self.outcomes: Counter[str] = Counter()
        self.waits: list[tuple[float, float]] = []

    def __enter__(self) -> FleetLoad:
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        self.seconds = time.monotonic() - self._began

    @property
    def served(self) -> int:
        """How many sessions went well."""
        return self.outcomes["served"]

    def _run(self, number: int) -> None:
        following = time.monotonic()
        while not self._stopping.is_set():
            self.outcomes[self._session(CLIENTS[number % len(CLIENTS)])] += 1
            number += self._step
            if self._pause:
                following = max(following + self._pause, time.monotonic() - self._pause)
                self._stopping.wait(max(0.0, following - time.monotonic()))

    def _session(self, client: str) -> str:
        try:
            with self._fleet.logged_in("dave", client) as sock:
                began = time.monotonic()
                sock.sendall(request5(ORIGIN, self._port))
                reply = reply5(sock)[0]
                self.waits.append((began, time.monotonic() - began))
                if reply:
                    return f"reply {reply}"
                echoes(sock, self._data)
        except Exception as problem:
            return f"{type(problem).__name__}: {problem}"
        return "served"


#: Seconds in which those log in who ask at once: the first ones do not wait longer for the last ones.
_LOGINS = 6.0


def at_once(fleet: Fleet, origin: Origin, count: int) -> Counter[int]:
    """
    The replies to requests of alice at once, while the store answers all nodes.

    :param count: how many; a busy machine makes fewer.
    """
    for _ in range(5):
        until(fleet.shares)
        before = fleet.outages
        with ExitStack() as stack:
            socks: list[socket.socket] = []
            until_then = time.monotonic() + _LOGINS
            while len(socks) < count and time.monotonic() < until_then:
                client = CLIENTS[len(socks) % len(CLIENTS)]
                socks.append(stack.enter_context(fleet.logged_in("alice", client)))
            for sock in socks:
                sock.sendall(request5(ORIGIN, origin.port))
            replies = Counter(reply5(sock)[0] for sock in socks)
            # All nodes were asked.
            assert min(node.sessions for node in fleet.nodes.values()) > len(socks) / 50
        until(lambda: fleet.sessions_of("alice") == 0)
        if fleet.outages == before:
            break
    return replies
