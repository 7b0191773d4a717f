"""Early data of all sessions together: see :mod:`socksproxy.session.early_data`."""

from __future__ import annotations

import socket
from collections.abc import Generator
from contextlib import ExitStack
from typing import Any

import pytest
import pytest_twisted

from socksproxy.session import early_data as early
from socksproxy.session.early_data import FREE, READ, EarlyData
from socksproxy.session.parts import Phase

from ..conftest import Serve
from ..support.hosts import Hosts
from ..support.origin import Origin, echo
from ..support.proxy import Proxy, ask5, greet, greeting, reply5, request5, until
from ..support.relay import read_exactly, send_what_fits

Playing = Generator[Any, Any, None]

SLOW = "slow.example"


class Reader:
    """A session."""

    def __init__(self, account: EarlyData) -> None:
        self._account = account
        self.size = 0
        self.paused = False

    def keeps(self, size: int) -> None:
        self.size = size
        self._account.keeps(self, size)

    def pause_reading(self) -> None:
        assert not self.paused
        self.paused = True

    def resume_reading(self) -> None:
        assert self.paused
        self.paused = False


class TestEarlyData:
    def test_room_for_all(self) -> None:
        account = EarlyData(100_000)
        readers = [Reader(account) for _ in range(10)]
        for reader in readers:
            reader.keeps(10_000)
        assert not any(reader.paused for reader in readers)
        for reader in readers:
            reader.keeps(0)
        assert account.kept == 0

    def test_over_it(self) -> None:
        """Those that keep more wait, and each goes on once."""
        account = EarlyData(100_000)
        big, late, small = (Reader(account) for _ in range(3))
        big.keeps(95_000)
        late.keeps(FREE + 1)
        small.keeps(FREE)
        late.keeps(FREE + 2)
        assert (big.paused, late.paused, small.paused) == (False, True, False)
        big.keeps(0)
        assert not late.paused
        late.keeps(0)
        small.keeps(0)
        assert account.kept == 0

    def test_one_that_waits_ends(self) -> None:
        account = EarlyData(0)
        reader = Reader(account)
        reader.keeps(FREE + 1)
        assert reader.paused
        reader.keeps(0)
        assert not reader.paused
        assert account.kept == 0

    def test_as_many_as_there_is_room_for(self) -> None:
        """In the order in which they came: what each reads next has room, too."""
        account = EarlyData(100_000)
        big = Reader(account)
        big.keeps(101_000)
        readers = [Reader(account) for _ in range(4)]
        for reader in readers:
            reader.keeps(FREE + 1)
        assert all(reader.paused for reader in readers)
        big.keeps(100_000 - 4 * (FREE + 1) - 3 * READ)
        assert not big.paused
        assert [reader.paused for reader in readers] == [False, False, True, True]


@pytest_twisted.inlineCallbacks
def test_all_sessions_together(serve: Serve) -> Playing:
    """Many sessions keep no more than there may be, and lose nothing."""
    count, most, hosts = 8, 50_000, Hosts({SLOW: None})
    data = bytes(range(256)) * 200
    with Origin(echo) as origin, ExitStack() as stack:
        proxy: Proxy = yield serve(resolver=hosts)
        proxy.sessions.context.early = account = EarlyData(most)
        clients = [stack.enter_context(proxy.connect()) for _ in range(count)]
        for client in clients:
            yield proxy.play(greet, client)
            client.sendall(request5(SLOW, origin.port))
            assert send_what_fits(client, data) == len(data)
        yield until(lambda: account.kept > most)
        yield until(lambda: all(session.negotiation.early for session in proxy.sessions.live))
        yield until(lambda: len(account._waiting) >= count - 1)
        assert account.kept <= most + count * (FREE + READ)
        assert account.kept == sum(len(session.negotiation.early) for session in proxy.sessions.live)
        hosts.answer(SLOW, "127.0.0.1")
        for client in clients:
            assert (yield proxy.play(reply5, client, 10))[0] == 0
            assert (yield proxy.play(read_exactly, client, len(data))) == data
        assert account.kept == 0
        assert not account._waiting


@pytest_twisted.inlineCallbacks
def test_one_session_is_not_in_the_way_of_another(serve: Serve) -> Playing:
    """While there is no room, a usual handshake goes on; with little room, an unusual one a moment later."""
    hosts = Hosts({SLOW: None})
    with Origin(echo) as origin:
        proxy: Proxy = yield serve(resolver=hosts)
        proxy.sessions.context.early = account = EarlyData(10_000)
        with proxy.connect() as big, proxy.connect() as usual, proxy.connect() as unusual:
            yield proxy.play(greet, big)
            big.sendall(request5(SLOW, origin.port) + bytes(30_000))
            yield until(lambda: account.kept > 10_000)
            assert (yield proxy.play(ask5, usual, "127.0.0.1", origin.port))[0] == 0
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(early, "FREE", 0)
                unusual.sendall(greeting()[:1])
                yield until(lambda: len(account._waiting) == 2)
                big.close()
                unusual.sendall(greeting()[1:])
                hosts.answer(SLOW)
                assert (yield proxy.play(unusual.recv, 2)) == b"\x05\x00"
            assert account.kept == 0


@pytest.mark.parametrize("end", ["client", "refused", "aborted"])
@pytest_twisted.inlineCallbacks
def test_ends(serve: Serve, end: str) -> Playing:
    """Nothing stays counted, however a session ends."""
    hosts = Hosts({SLOW: None})
    proxy: Proxy = yield serve(resolver=hosts)
    account = proxy.sessions.context.early
    with proxy.connect() as client:
        yield proxy.play(greet, client)
        client.sendall(request5(SLOW, 80) + bytes(3000))
        yield until(lambda: account.kept == 3000)
        (session,) = proxy.sessions.live
        assert session.phase is Phase.SERVING
        if end == "refused":
            hosts.answer(SLOW)
            yield until(lambda: account.kept == 0)
            assert session.phase is Phase.FINISHING  # type: ignore[comparison-overlap]
        elif end == "aborted":
            session.abort()
        else:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()
        yield until(lambda: account.kept == 0)
    yield proxy.record()
