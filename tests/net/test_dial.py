"""From checked addresses to one connection."""

from __future__ import annotations

import errno
import gc
import socket
import sys
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given, strategies as st
from twisted.internet import error, reactor as _reactor
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock, LoopingCall, deferLater
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from socksproxy.errors import ConnectFailed, NameNotFound, reply_for
from socksproxy.net.dial import (
    ATTEMPT_DELAY,
    MAX_ATTEMPTS,
    Destination,
    Dialed,
    SocketDialer,
    TransportDialer,
    adopted,
    as_deferred,
    dial,
    interleaved,
)
from socksproxy.net.tcp_options import socket_options
from socksproxy.values.outgoing import Outgoing
from socksproxy.values.timeouts import Timeouts
from socksproxy.wire.words import Address, Reply

from ..support.proxy import options_of
from ..support.relay import PATIENCE, an_engine, open_descriptors, raw, read_exactly, read_to_end, socket_pair

reactor: Any = _reactor
Playing = Generator[Any, Any, None]


def four(number: int) -> Address:
    return Address.of(f"192.0.2.{number}", 80)


def six(number: int) -> Address:
    return Address.of(f"2001:db8::{number:x}", 80)


class TestInterleaved:
    """The families in turn, so that a dead one costs one delay (RFC 8305, section 4)."""

    @pytest.mark.parametrize(
        ("addresses", "mixed"),
        [
            ([], []),
            ([four(1)], [four(1)]),
            ([four(1), four(2)], [four(1), four(2)]),
            ([six(1), six(2), four(1), four(2)], [six(1), four(1), six(2), four(2)]),
            ([four(1), four(2), six(1), six(2)], [four(1), six(1), four(2), six(2)]),
            ([six(1), six(2), six(3), four(1)], [six(1), four(1), six(2), six(3)]),
            ([four(1), six(1), six(2), six(3)], [four(1), six(1), six(2), six(3)]),
        ],
    )
    def test_order(self, addresses: list[Address], mixed: list[Address]) -> None:
        assert interleaved(addresses) == mixed

    @given(st.lists(st.builds(four, st.integers(1, 99)) | st.builds(six, st.integers(1, 99)), max_size=30))
    def test_any(self, addresses: list[Address]) -> None:
        """None is lost; each family keeps the resolver's order; the first stays the first."""
        mixed = interleaved(addresses)
        assert sorted(mixed) == sorted(addresses)
        assert mixed[:1] == addresses[:1]
        for kind in {address.type for address in addresses}:
            assert [a for a in mixed if a.type is kind] == [a for a in addresses if a.type is kind]


class Racing:
    """
    A race of fake attempts.

    :ivar attempts: the addresses that were tried, in order, and their Deferreds.
    :ivar cancelled: the addresses whose attempts were cancelled.
    :ivar result: the connection, or the failure's value, once there is one.
    """

    def __init__(self, *addresses: Address) -> None:
        self.clock = Clock()
        self.attempts: list[tuple[Address, Deferred[Any]]] = []
        self.cancelled: list[Address] = []
        self.result: Any = None
        self.deferred = dial(addresses, self.connect, self.clock)
        self.deferred.addCallbacks(self._won, self._lost)

    def _won(self, connection: Any) -> None:
        assert self.result is None
        self.result = connection

    def _lost(self, failure: Failure) -> None:
        assert self.result is None
        self.result = failure.value

    def connect(self, address: Address) -> Deferred[Any]:
        attempt: Deferred[Any] = Deferred(lambda _: self.cancelled.append(address))
        self.attempts.append((address, attempt))
        return attempt

    @property
    def tried(self) -> list[Address]:
        return [address for address, _ in self.attempts]

    def connects(self, number: int) -> None:
        """The attempt to the address of that number connects."""
        self.attempts[number][1].callback(f"connection {number}")

    def fails(self, number: int, code: int = errno.ECONNREFUSED, text: str = "Connection refused") -> None:
        """The attempt to the address of that number fails."""
        self.attempts[number][1].errback(OSError(code, text))


class TestRace:
    """RFC 8305: a head start of 250 ms each, the first that connects wins, nothing is left."""

    def test_one_address(self) -> None:
        """No race: its own error is the result."""
        racing = Racing(four(1))
        assert racing.clock.getDelayedCalls() == []
        racing.fails(0)
        assert isinstance(racing.result, ConnectionRefusedError)

    def test_head_start(self) -> None:
        racing = Racing(six(1), four(1), six(2))
        racing.clock.advance(ATTEMPT_DELAY - 0.001)
        assert racing.tried == [six(1)]
        racing.clock.advance(0.001)
        assert racing.tried == [six(1), four(1)]
        racing.clock.advance(ATTEMPT_DELAY)
        assert racing.tried == [six(1), four(1), six(2)]
        assert racing.clock.getDelayedCalls() == []

    def test_the_delay_is_the_rfc_s(self) -> None:
        assert ATTEMPT_DELAY == 0.25

    def test_first_to_connect(self) -> None:
        """The others are cancelled, those to come are not begun."""
        racing = Racing(six(1), four(1), six(2), four(2))
        racing.clock.advance(ATTEMPT_DELAY)
        racing.clock.advance(ATTEMPT_DELAY)
        racing.connects(1)
        assert racing.result == "connection 1"
        assert sorted(racing.cancelled) == sorted([six(1), six(2)])
        assert racing.clock.getDelayedCalls() == []
        assert racing.tried == [six(1), four(1), six(2)]

    def test_at_once(self) -> None:
        """On loopback an attempt may have connected before it is looked at."""
        clock = Clock()
        tried: list[Address] = []

        def connect(address: Address) -> Deferred[Any]:
            tried.append(address)
            return succeed(address)

        results: list[Any] = []
        dial([six(1), four(1)], connect, clock).addCallback(results.append)
        assert results == tried == [six(1)]
        assert clock.getDelayedCalls() == []

    def test_a_failure_hurries_the_next(self) -> None:
        """A refusal is an answer: nothing is gained by waiting."""
        racing = Racing(six(1), four(1), six(2))
        racing.clock.advance(0.1)
        racing.fails(0)
        assert racing.tried == [six(1), four(1)]
        # The delay counts from the attempt that has just begun.
        racing.clock.advance(ATTEMPT_DELAY - 0.001)
        assert racing.tried == [six(1), four(1)]
        racing.clock.advance(0.001)
        assert racing.tried == [six(1), four(1), six(2)]
        assert racing.result is None
        racing.connects(2)
        assert racing.result == "connection 2"
        assert racing.cancelled == [four(1)]

    def test_the_last_may_take_its_time(self) -> None:
        racing = Racing(six(1), four(1))
        racing.clock.advance(ATTEMPT_DELAY)
        racing.fails(1)
        racing.clock.advance(60)
        assert racing.result is None
        racing.connects(0)
        assert racing.result == "connection 0"

    def test_all_fail(self) -> None:
        racing = Racing(six(1), four(1))
        racing.fails(0, errno.ENETUNREACH, "Network is unreachable")
        assert racing.result is None
        racing.fails(1)
        assert isinstance(racing.result, ConnectFailed)
        assert racing.result.reply is Reply.CONNECTION_REFUSED
        assert str(racing.result) == "connection refused"
        assert racing.cancelled == []

    def test_all_fail_at_once(self) -> None:
        """As on a machine without any route: an error for each within the call."""
        results: list[Any] = []
        addresses = [four(number) for number in range(1, 10)]
        tried: list[Address] = []

        def connect(address: Address) -> Deferred[Any]:
            tried.append(address)
            return fail(OSError(errno.ENETUNREACH, "Network is unreachable"))

        clock = Clock()
        attempt: Any = dial(addresses, connect, clock)
        attempt.addErrback(lambda failure: results.append(failure.value.reply))
        assert tried == addresses
        assert results == [Reply.NETWORK_UNREACHABLE]
        assert clock.getDelayedCalls() == []

    @pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
    def test_the_most_telling_reply(self, order: tuple[int, ...]) -> None:
        """It says which attempt got furthest, in whatever order they failed; the text belongs to it."""
        racing = Racing(six(1), four(1), six(2))
        racing.clock.pump([ATTEMPT_DELAY] * 2)
        problems = [
            (errno.ENETUNREACH, "Network is unreachable"),
            (errno.ETIMEDOUT, "Connection timed out"),
            (errno.EHOSTUNREACH, "No route to host"),
        ]
        for number in order:
            racing.fails(number, *problems[number])
        assert racing.result.reply is Reply.TTL_EXPIRED
        assert str(racing.result) == "connection timed out"

    def test_errors_of_every_kind(self) -> None:
        racing = Racing(six(1), four(1))
        racing.attempts[0][1].errback(NameNotFound("odd, but an error"))
        racing.attempts[1][1].errback(ZeroDivisionError())
        assert racing.result.reply is Reply.HOST_UNREACHABLE
        assert str(racing.result) == "odd, but an error"

    def test_cancelled(self) -> None:
        """A client that goes away: every attempt ends, none begins."""
        racing = Racing(six(1), four(1), six(2))
        racing.clock.advance(ATTEMPT_DELAY)
        racing.deferred.cancel()
        assert isinstance(racing.result, CancelledError)
        assert sorted(racing.cancelled) == sorted([six(1), four(1)])
        assert racing.clock.getDelayedCalls() == []
        racing.clock.advance(60)
        assert racing.tried == [six(1), four(1)]

    def test_one_address_cancelled(self) -> None:
        racing = Racing(four(1))
        racing.deferred.cancel()
        assert racing.cancelled == [four(1)]

    def test_the_number_of_attempts_has_a_bound(self) -> None:
        """Who owns a name could have us knock at thousands of doors."""
        racing = Racing(*(four(number) for number in range(1, 60)))
        racing.clock.pump([ATTEMPT_DELAY] * 100)
        assert len(racing.tried) == MAX_ATTEMPTS
        for number in range(MAX_ATTEMPTS):
            racing.fails(number)
        assert racing.result.reply is Reply.CONNECTION_REFUSED

    @pytest.mark.parametrize("place", [0, 1, 2])
    def test_a_dialer_that_raises(self, place: int) -> None:
        """It is an attempt that failed, and never a race without an end."""
        addresses = [six(1), four(1), six(2)]
        tried: list[Address] = []

        def connect(address: Address) -> Deferred[Any]:
            tried.append(address)
            if address is addresses[place]:
                raise ZeroDivisionError
            return fail(OSError(errno.ECONNREFUSED, "Connection refused"))

        results: list[Any] = []
        clock = Clock()
        dial(addresses, connect, clock).addBoth(results.append)
        clock.pump([ATTEMPT_DELAY] * 4)
        assert tried == addresses
        assert [result.value.reply for result in results] == [Reply.CONNECTION_REFUSED]

    @given(
        st.integers(2, 6),
        st.lists(st.tuples(st.sampled_from(["connects", "fails", "waits"]), st.integers(0, 5)), max_size=30),
        st.booleans(),
    )
    def test_any_course(self, size: int, events: list[tuple[str, int]], cancel: bool) -> None:
        """However it goes: one result, and then no attempt is under way and no timer is set."""
        racing = Racing(*(four(number) for number in range(1, size + 1)))
        over: set[int] = set()
        for what, number in events:
            if racing.result is not None:
                break
            if what == "waits":
                racing.clock.advance(ATTEMPT_DELAY / 2)
            elif number < len(racing.attempts) and number not in over:
                over.add(number)
                getattr(racing, what)(number)
        if racing.result is None and cancel:
            racing.deferred.cancel()
        if racing.result is None:
            assert set(range(len(racing.attempts))) - over or len(racing.attempts) < size
            assert racing.cancelled == []
            return
        assert racing.clock.getDelayedCalls() == []
        assert len(racing.cancelled) == len(racing.attempts) - len(over)


class TestOutgoing:
    """The address that a connection leaves from is its family's."""

    def test_systems_choice(self) -> None:
        assert Outgoing().source(four(1)) is None
        assert Outgoing().source(six(1)) is None

    def test_by_family(self) -> None:
        outgoing = Outgoing("192.0.2.200", "2001:db8::200")
        assert outgoing.source(four(1)) == ("192.0.2.200", 0)
        assert outgoing.source(six(1)) == ("2001:db8::200", 0)

    def test_one_family(self) -> None:
        assert Outgoing(ipv4="192.0.2.200").source(six(1)) is None
        assert Outgoing(ipv6="2001:db8::200").source(four(1)) is None


@pytest.fixture(params=["127.0.0.1", "::1"])
def listening(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """Somebody to connect to."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.socket(family) as listening:
        listening.bind((request.param, 0))
        listening.listen(5)
        listening.settimeout(PATIENCE)
        yield listening


def address_of(sock: socket.socket) -> Address:
    host, port = sock.getsockname()[:2]
    return Address.of(host, port)


def refusing() -> Address:
    """An address that refuses: its port is taken, and nobody listens."""
    return address_of(_TAKEN)


_TAKEN = socket.socket()
_TAKEN.bind(("127.0.0.1", 0))


@pytest.fixture(params=["transports"] + (["engine"] if sys.platform == "linux" else []))
def make_dialer(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """``make_dialer(outgoing)``: a dialer of each kind, on the real reactor."""
    if request.param == "transports":
        yield lambda outgoing=Outgoing(), **more: TransportDialer(reactor, outgoing, **more)
        return
    with an_engine() as engine:

        def make(outgoing: Outgoing = Outgoing(), **more: Any) -> Callable[[Address], Deferred[Any]]:
            dialer = SocketDialer(engine, outgoing, **more)
            return lambda address: as_deferred(dialer(address))

        yield make


def problem_of(attempt: Deferred[Any]) -> Deferred[Any]:
    """What the attempt fails with."""
    return attempt.addCallbacks(lambda _: pytest.fail("it did not fail"), lambda failure: failure.value)


def errno_of(problem: Any) -> object:
    """The error number of a problem of the system's or of Twisted's."""
    return problem.errno if isinstance(problem, OSError) else problem.osError


def close(dialed: Dialed) -> None:
    """Close what was dialed, whatever it is."""
    if isinstance(dialed.link, Destination):
        dialed.link.transport.abortConnection()
    else:
        dialed.link.close()


class TestDialers:
    """Both kinds, on real sockets."""

    @pytest_twisted.inlineCallbacks
    def test_connected(self, make_dialer: Callable[..., Any], listening: socket.socket) -> Playing:
        """BND.ADDR and BND.PORT of the reply are what the destination sees."""
        destination = address_of(listening)
        dialed: Dialed = yield make_dialer()(destination)
        accepted, peer = listening.accept()
        with accepted:
            assert dialed.reached == destination
            assert dialed.outgoing == Address.of(*peer[:2])
        close(dialed)

    @pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0", "::ffff:127.0.0.1"])
    @pytest_twisted.inlineCallbacks
    def test_connected_to_itself(
        self, make_dialer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, host: str
    ) -> Playing:
        """Nothing listens at a port that the kernel chooses for the very socket: refused."""
        source = "::1" if host == "::1" else "::ffff:127.0.0.1" if ":" in host else "127.0.0.1"
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as free:
            free.bind((source, 0))
            port = free.getsockname()[1]
        # The kernel chooses that port once in thousands of times; here it has to.
        monkeypatch.setattr(Outgoing, "source", lambda self, destination: (source, port))
        before = open_descriptors()
        problem = yield problem_of(make_dialer()(Address.of(host, port)))
        assert reply_for(problem) is Reply.CONNECTION_REFUSED
        yield until(lambda: open_descriptors() <= before)

    @pytest_twisted.inlineCallbacks
    def test_same_port_at_both_ends(
        self, make_dialer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> Playing:
        """That alone is no connection to itself."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
            monkeypatch.setattr(Outgoing, "source", lambda self, destination: ("127.0.0.2", port))
            dialed: Dialed = yield make_dialer()(address_of(listening))
        assert dialed.outgoing == Address.of("127.0.0.2", port)
        close(dialed)

    @pytest_twisted.inlineCallbacks
    def test_options(self, make_dialer: Callable[..., Any], listening: socket.socket) -> Playing:
        options = socket_options(Timeouts(keepalive=61, keepalive_interval=7, user_timeout=9))
        dialed: Dialed = yield make_dialer(options=options)(address_of(listening))
        link: Any = dialed.link
        sock = link.transport.socket if isinstance(link, Destination) else link  # type: ignore[attr-defined]
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert options_of(sock) == (1, 1, 61, 7, 9000)
        assert sock.gettimeout() == 0
        close(dialed)

    @pytest_twisted.inlineCallbacks
    def test_outgoing(self, make_dialer: Callable[..., Any]) -> Playing:
        """The operator's choice is what the destination sees, and what the reply tells."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            dialed: Dialed = yield make_dialer(Outgoing(ipv4="127.0.0.2"))(address_of(listening))
            accepted, peer = listening.accept()
            accepted.close()
        assert peer[0] == "127.0.0.2"
        assert dialed.outgoing == Address.of(*peer)
        close(dialed)

    @pytest_twisted.inlineCallbacks
    def test_outgoing_ipv6(self, make_dialer: Callable[..., Any]) -> Playing:
        """There is one loopback address; that it is bound shows when it is another that is to be."""
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as listening:
            dialed: Dialed = yield make_dialer(Outgoing("192.0.2.200", "::1"))(address_of(listening))
            close(dialed)
            problem = yield problem_of(make_dialer(Outgoing(ipv6="2001:db8::200"))(address_of(listening)))
        assert errno_of(problem) == errno.EADDRNOTAVAIL

    @pytest_twisted.inlineCallbacks
    def test_outgoing_that_is_not_ours(self, make_dialer: Callable[..., Any]) -> Playing:
        problem = yield problem_of(make_dialer(Outgoing(ipv4="192.0.2.200"))(refusing()))
        assert errno_of(problem) == errno.EADDRNOTAVAIL

    @pytest_twisted.inlineCallbacks
    def test_refused(self, make_dialer: Callable[..., Any]) -> Playing:
        problem = yield problem_of(make_dialer()(refusing()))
        assert reply_for(problem) is Reply.CONNECTION_REFUSED

    @pytest_twisted.inlineCallbacks
    def test_race(self, make_dialer: Callable[..., Any], listening: socket.socket) -> Playing:
        """One address refuses, the other answers."""
        dialed: Dialed = yield dial([refusing(), address_of(listening)], make_dialer(), reactor)
        assert dialed.reached == address_of(listening)
        close(dialed)

    @pytest_twisted.inlineCallbacks
    def test_race_in_vain(self, make_dialer: Callable[..., Any]) -> Playing:
        with pytest.raises(ConnectFailed) as caught:
            yield dial([refusing(), refusing()], make_dialer(), reactor)
        assert caught.value.reply is Reply.CONNECTION_REFUSED

    @pytest_twisted.inlineCallbacks
    def test_cancelled(self, make_dialer: Callable[..., Any]) -> Playing:
        """The client goes away while its destination does not answer: no descriptor is left."""
        yield deferToThread(lambda: None)  # what the reactor's thread pool opens once is not ours
        gc.collect()
        before = open_descriptors()
        with Hanging() as destination:
            during = open_descriptors()
            attempt = make_dialer()(destination)
            assert len(open_descriptors() - during) == 1
            attempt.cancel()
            with pytest.raises(CancelledError):
                yield attempt
            yield turn()
            assert open_descriptors() - during == set()
        assert open_descriptors() - before == set()

    @pytest_twisted.inlineCallbacks
    def test_losers_are_closed(self, make_dialer: Callable[..., Any], listening: socket.socket) -> Playing:
        """An address that hangs is let go when another has answered."""
        with Hanging() as hanging:
            during = open_descriptors()
            dialed: Dialed = yield dial([hanging, address_of(listening)], make_dialer(), reactor)
            assert dialed.reached == address_of(listening)
            yield turn()
            assert len(open_descriptors() - during) == 1
            close(dialed)


def turn() -> Deferred[None]:
    """A turn of the reactor or two: descriptors are closed in the one that follows."""
    return deferLater(reactor, 0.01, lambda: None)


class Hanging:
    """An address that answers nothing: so many wait to be accepted that the kernel drops what comes."""

    def __enter__(self) -> Address:
        self._listening = socket.socket()
        self._listening.bind(("127.0.0.1", 0))
        self._listening.listen(0)
        self._fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(self._listening.getsockname())
            self._fillers.append(filler)
        return address_of(self._listening)

    def __exit__(self, *_: object) -> None:
        for filler in self._fillers:
            filler.close()
        self._listening.close()


class TestTransportDialer:
    """What only Twisted's transports do."""

    def test_timeout(self) -> None:
        """Where nobody else ends it, an attempt ends by itself."""
        memory = MemoryReactorClock()
        TransportDialer(memory, timeout=7.0)(four(1))
        host, port, _, timeout, bind = memory.tcpClients[0]
        assert (host, port, timeout, bind) == ("192.0.2.1", 80, 7.0, None)

    def test_cancelled_and_connected_all_the_same(self) -> None:
        """A connection that comes too late is closed: nobody would ever do it."""
        memory = MemoryReactorClock()
        attempt = TransportDialer(memory)(four(1))
        factory = memory.tcpClients[0][2]
        attempt.addErrback(lambda failure: failure.trap(CancelledError))
        attempt.cancel()
        aborted: list[bool] = []

        class Transport:
            def abortConnection(self) -> None:
                aborted.append(True)

        protocol: Any = factory.buildProtocol(None)
        protocol.makeConnection(Transport())
        assert aborted == [True]

    def test_cancelled_and_failed_all_the_same(self) -> None:
        """Twisted tells the factory that its attempt was stopped: that is no second result."""
        memory = MemoryReactorClock()
        attempt = TransportDialer(memory)(four(1))
        factory = memory.tcpClients[0][2]
        attempt.addErrback(lambda failure: failure.trap(CancelledError))
        attempt.cancel()
        connector: Any = None
        factory.clientConnectionFailed(connector, Failure(error.UserError()))

    def test_quiet(self) -> None:
        """A line in the log for each factory that starts and stops would be two for each session."""
        memory = MemoryReactorClock()
        TransportDialer(memory)(four(1))
        assert memory.tcpClients[0][2].noisy is False


class End:
    """A relay's end that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.data = b""
        self.lost: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def readConnectionLost(self) -> None:
        self.told.append("read closed")

    def writeConnectionLost(self) -> None:
        self.told.append("write closed")

    def connectionLost(self, reason: Failure) -> None:
        self.told.append("lost")
        self.lost.callback(None)


class TestAdopted:
    """A plain socket becomes a transport again, where the client's cannot be detached."""

    @pytest_twisted.inlineCallbacks
    def test_both_ways(self) -> Playing:
        mine, theirs = socket_pair()
        link = adopted(reactor, raw(theirs))
        link.end = end = End()
        link.transport.write(b"hello")
        assert (yield deferToThread(read_exactly, mine, 5)) == b"hello"
        mine.sendall(b"world")
        mine.shutdown(socket.SHUT_WR)
        yield until(lambda: "read closed" in end.told)
        assert end.data == b"world"
        # It is half-closed: we can still send.
        link.transport.write(b"more")
        link.transport.loseConnection()
        assert (yield deferToThread(read_to_end, mine)) == b"more"
        yield end.lost.addTimeout(PATIENCE, reactor)
        assert end.told[-1] == "lost"
        mine.close()

    @pytest_twisted.inlineCallbacks
    def test_one_descriptor(self) -> Playing:
        """The transport has a copy; the original is closed, and nothing is left in the end."""
        mine, theirs = socket_pair()
        link_socket = raw(theirs)
        before = open_descriptors()
        link = adopted(reactor, link_socket)
        assert link_socket.fileno() == -1
        assert len(open_descriptors()) == len(before)
        link.end = end = End()
        link.transport.abortConnection()
        yield end.lost.addTimeout(PATIENCE, reactor)
        assert len(open_descriptors()) == len(before) - 1
        mine.close()

    def test_in_vain(self) -> None:
        """A socket that cannot be adopted is closed, not forgotten."""

        class Reactor:
            def adoptStreamConnection(self, *_: object) -> None:
                raise OSError(errno.EMFILE, "Too many open files")

        mine, theirs = socket_pair()
        link = raw(theirs)
        with pytest.raises(OSError, match="Too many open files"):
            adopted(Reactor(), link)
        assert link.fileno() == -1
        assert read_to_end(mine) == b""
        mine.close()

    @pytest_twisted.inlineCallbacks
    def test_nobody_listens_yet(self) -> Playing:
        """Between the connection and the relay there is no end to tell: nothing breaks."""
        mine, theirs = socket_pair()
        link = adopted(reactor, raw(theirs))
        mine.sendall(b"early")
        mine.shutdown(socket.SHUT_WR)
        yield turn()
        link.transport.loseWriteConnection()
        assert (yield deferToThread(read_to_end, mine)) == b""
        yield turn()
        mine.close()


def until(holds: Callable[[], bool]) -> Deferred[None]:
    """Wait until *holds*, as long as it takes, within reason."""

    def check() -> None:
        if holds():
            loop.stop()

    loop = LoopingCall(check)
    return loop.start(0.01).addTimeout(PATIENCE, reactor).addCallback(lambda _: None)


def test_destination_is_a_protocol() -> None:
    """Data that comes while there is no end yet is kept, and no more is read; ends are dropped."""
    link = Destination()
    transport: Any = StringTransport()
    link.makeConnection(transport)  # nobody waits for the connection
    link.dataReceived(b"x")
    assert (link.early, transport.producerState) == (b"x", "paused")
    link.readConnectionLost()
    link.writeConnectionLost()
    link.connectionLost()
    link.end = end = End()
    link.writeConnectionLost()
    assert end.told == ["write closed"]
