"""Limits that change all the time, under many sessions: every byte arrives, and nothing is left."""

from __future__ import annotations

import random
import socket
import struct
import threading
from typing import Any

import attrs
import pytest_twisted
from twisted.internet.defer import gatherResults
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from socksproxy import Rule, RulePolicy
from socksproxy.limits import Limits, Rate, ServerLimits
from socksproxy.limits.buckets import Bucket
from socksproxy.limits.ledger import Ledger
from tests.conftest import Serve
from tests.support.origin import Origin, echo
from tests.support.proxy import Playing, Proxy, ask4, ask5, reactor, until

#: Clients at a time, and sessions of each.
CLIENTS, SESSIONS = 25, 6

_RESET = struct.pack("ii", 1, 0)
_SCOPES = ("server", "client", "network", "session")


def some_limits(chance: random.Random, scope: str) -> Limits:
    """Limits that let everybody go on within seconds, or none."""

    def rate() -> Rate | None:
        burst = chance.choice([None, 3000, 500_000])
        return chance.choice([None, Rate(chance.choice([5e6, 2e7, 1e8]), burst)])

    if scope == "session":
        return Limits(upload=rate(), download=rate())
    sessions, begin = chance.choice([None, 20, 1000]), chance.choice([None, Rate(100), Rate(1e6)])
    return Limits(sessions=sessions, new_sessions=begin, upload=rate(), download=rate())


def some_rules(chance: random.Random) -> RulePolicy | None:
    """Rules with limits, or none."""
    if chance.random() < 0.3:
        return None
    here = Rule(name="here", allow=True, networks=["127.0.0.0/8"], limits=some_limits(chance, "rule"))
    return RulePolicy([attrs.evolve(here, name=chance.choice(["here", "there"]))])


def comes_back(proxy: Proxy, port: int, seed: int) -> int:
    """Sessions one after the other, some of which end at once and somehow; how many were whole."""
    chance, whole = random.Random(seed), 0
    for _ in range(SESSIONS):
        with proxy.connect() as sock:
            ask, served = chance.choice([(ask5, 0), (ask4, 90)])
            try:
                code = ask(sock, "127.0.0.1", port)[0]
            except (ConnectionResetError, BrokenPipeError, AssertionError):
                continue  # one too many of those who were too many
            if code != served:
                continue
            end = chance.random()
            if end < 0.2:
                sock.sendall(chance.randbytes(chance.randrange(100_000)))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                continue
            goes_round(sock, chance.randbytes(chance.choice([1, 1000, 100_000, 600_000])))
            whole += 1
    return whole


def goes_round(sock: socket.socket, data: bytes) -> None:
    """All of *data* comes back, and then the end."""

    def send() -> None:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)

    sending = threading.Thread(target=send)
    sending.start()
    received = b""
    while piece := sock.recv(1 << 18):
        received += piece
    sending.join()
    assert received == data


def buckets(ledger: Ledger) -> list[Bucket]:
    """All that there are."""
    found = []
    for account in ledger._accounts.values():
        found += [bucket for bucket in (account.upload, account.download) if bucket is not None]
    return found


@pytest_twisted.inlineCallbacks
def test_changing(serve: Serve) -> Playing:
    """Rates, counts and rules come and go while sessions do."""
    chance = random.Random(7)
    pool = ThreadPool(CLIENTS, CLIENTS)
    pool.start()
    with Origin(echo) as origin:
        proxy: Proxy = yield serve()

        def change() -> None:
            limits = ServerLimits(**{scope: some_limits(chance, scope) for scope in _SCOPES})  # type: ignore[arg-type]
            policy: Any = {"policy": some_rules(chance)} if chance.random() < 0.5 else {}
            proxy.factory.reconfigure(limits=limits, **policy)

        changing = LoopingCall(change)
        changing.start(0.02)
        try:
            whole = yield gatherResults(
                [
                    deferToThreadPool(reactor, pool, comes_back, proxy, origin.port, seed)
                    for seed in range(CLIENTS)
                ]
            )
        finally:
            changing.stop()
            pool.stop()
        assert sum(whole) > CLIENTS
        yield until(lambda: not proxy.sessions.live)
    ledger = proxy.sessions.context.ledger
    assert (len(ledger), ledger.refusing) == (0, 0)
    counters = [
        counter.value for account in ledger._accounts.values() for counter in account._counters.values()
    ]
    assert not any(counters)
    for bucket in buckets(ledger):
        assert bucket.waiting == 0
        assert not bucket._left
        assert bucket._timer is None
