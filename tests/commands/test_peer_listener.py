"""See :mod:`socksproxy.commands.peer_listener`. On real sockets: ``tests/commands/test_bind.py``."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReadDescriptor
from zope.interface.verify import verifyObject

from socksproxy.commands.peer_listener import PeerListener, for_engine, listening_socket
from socksproxy.net.dial import Dialed
from socksproxy.net.tcp_options import socket_options
from socksproxy.relay.engine import RelayEngine
from socksproxy.values.timeouts import Timeouts
from socksproxy.wire.words import Address

from ..support.proxy import options_of, reactor
from ..support.relay import open_descriptors


class Watching:
    """Stands for a reactor: what it watches."""

    def __init__(self) -> None:
        self.readers: set[Any] = set()

    def addReader(self, reader: Any) -> None:
        self.readers.add(reader)

    def removeReader(self, reader: Any) -> None:
        assert reader.fileno() >= 0
        self.readers.discard(reader)


class Listening:
    """Stands for a listening socket: each ``accept`` gives, or raises, the next of *answers*."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.closed = False

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", 4000

    def fileno(self) -> int:
        return -1 if self.closed else 99

    def close(self) -> None:
        self.closed = True

    def accept(self) -> Any:
        answer = self.answers.pop(0) if self.answers else BlockingIOError()
        if isinstance(answer, BaseException):
            raise answer
        return answer


def listener(listening: Any, admits: Callable[[Address], bool] = lambda peer: True, **more: Any) -> Any:
    reactor = Watching()
    made: Any = PeerListener(reactor, listening, admits, more.get("take", lambda link: link))
    made.watching = reactor.readers
    made.outcome = []
    made.accepted.addBoth(made.outcome.append)
    return made


def test_interface() -> None:
    assert verifyObject(IReadDescriptor, listener(Listening()))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_no_descriptor_for_the_peer(number: int) -> None:
    """
    The peer that waits would wake the reactor for ever: it is told by the close, the client by
    its reply.
    """
    listening = Listening(OSError(number, os.strerror(number)))
    waiting = listener(listening)
    assert waiting.watching == {waiting}
    waiting.doRead()
    assert waiting.outcome[0].value.errno == number
    assert listening.closed
    assert waiting.watching == set()
    waiting.doRead()
    waiting.connectionLost(None)
    assert waiting.fileno() == -1


def test_gone_in_the_queue() -> None:
    """Who went away before being accepted does not keep the next one out."""
    mine, theirs = socket.socketpair(socket.AF_UNIX)
    with mine, theirs:
        accepted = Accepted(theirs)
        listening = Listening(OSError(errno.ECONNABORTED, ""), (accepted, ("127.0.0.1", 5)))
        waiting = listener(listening)
        waiting.doRead()
        (dialed,) = waiting.outcome
        assert dialed.reached == Address.of("127.0.0.1", 5)
        dialed.link.close()


class Accepted:
    """An accepted socket, of a kind that takes no TCP options."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.family = sock.family
        self.closed = False

    def setsockopt(self, *_: int) -> None:
        """Not here."""

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", 4000

    def detach(self) -> int:
        return self.sock.detach()

    def close(self) -> None:
        self.closed = True


def test_budget() -> None:
    """A crowd of strangers leaves the reactor time for others."""
    crowd = [Accepted(socket.socket()) for _ in range(40)]
    listening = Listening(*[(one, ("127.0.0.2", 5)) for one in crowd])
    waiting = listener(listening, lambda peer: False)
    waiting.doRead()
    assert 0 < sum(one.closed for one in crowd) < 40
    waiting.doRead()
    waiting.doRead()
    assert all(one.closed for one in crowd)
    assert waiting.outcome == []
    for one in crowd:
        one.sock.close()


@pytest.mark.parametrize(
    ("sockaddr", "host"),
    [
        (("::ffff:192.0.2.1", 5, 0, 0), "192.0.2.1"),
        (("fe80::1%eth0", 5, 0, 2), "fe80::1"),
        (("2001:db8::1", 5, 0, 0), "2001:db8::1"),
    ],
)
def test_forms_of_the_peer(sockaddr: Any, host: str) -> None:
    """The peer is who it is, in whatever form the system tells."""
    asked: list[Address] = []

    def admits(peer: Address) -> bool:
        asked.append(peer)
        return False

    with socket.socket() as unused:
        listener(Listening((Accepted(unused), sockaddr)), admits).doRead()
    assert asked == [Address.of(host, 5)]


@pytest.mark.parametrize(
    "problem", [OSError(errno.ENOSPC, "No space left on device"), MemoryError(), RuntimeError("unforeseen")]
)
def test_cannot_be_taken(problem: Exception) -> None:
    """The epoll is full, say: the descriptor is closed, and the client told."""

    def fails(link: Any) -> Any:
        raise problem

    before = open_descriptors()
    mine, theirs = socket.socketpair()
    with mine:
        waiting = listener(Listening((Accepted(theirs), ("127.0.0.1", 5))), take=fails)
        waiting.doRead()
        assert waiting.outcome[0].value is problem
        assert mine.recv(1) == b""
    assert open_descriptors() <= before


def test_fault_when_judged() -> None:
    """A connection that cannot be judged is closed, and the peer that comes next is taken."""
    mine, theirs = socket.socketpair(socket.AF_UNIX)
    with mine, theirs, socket.socket() as unused:
        stranger = Accepted(unused)
        answers = [RuntimeError("unforeseen")]

        def admits(_: Address) -> bool:
            if answers:
                raise answers.pop()
            return True

        listening = Listening((stranger, ("127.0.0.2", 5)), (Accepted(theirs), ("127.0.0.1", 5)))
        waiting = listener(listening, admits)
        waiting.doRead()
        assert stranger.closed
        (dialed,) = waiting.outcome
        dialed.link.close()


@pytest.mark.parametrize("end", ["cancel", "connectionLost"])
def test_ends(end: str) -> None:
    """Cancelled, or by the reactor's own end: the port is closed, once."""
    listening = Listening()
    waiting = listener(listening)
    waiting.accepted.cancel() if end == "cancel" else waiting.connectionLost(None)
    waiting.accepted.cancel()
    waiting.connectionLost(None)
    (outcome,) = waiting.outcome
    assert outcome.check(CancelledError)
    assert listening.closed
    assert waiting.watching == set()


def test_link() -> None:
    """What is taken is a plain socket that does not block, with the options of a relay."""
    with (
        listening_socket("127.0.0.1", 0) as listening,
        socket.socket() as peer,
        contextlib.closing(RelayEngine(reactor)) as engine,
    ):
        options = socket_options(Timeouts(keepalive=61, keepalive_interval=7, user_timeout=9))
        waiting = listener(listening, take=for_engine(lambda: engine, options))
        peer.connect(("127.0.0.1", waiting.port))
        waiting.doRead()
        dialed: Dialed = waiting.outcome[0]
        link: Any = dialed.link
        assert not os.get_blocking(link.fileno())
        assert link.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert options_of(link) == (1, 1, 61, 7, 9000)
        assert dialed.reached == Address.of(*peer.getsockname())
        assert dialed.outgoing == Address.of("127.0.0.1", waiting.port)
        link.close()


@pytest.mark.parametrize(
    ("host", "number"), [("192.0.2.77", errno.EADDRNOTAVAIL), ("127.0.0.1", errno.EADDRINUSE)]
)
def test_cannot_listen(host: str, number: int) -> None:
    """What the system says is passed on, and no descriptor stays."""
    with listening_socket("127.0.0.1", 0) as taken:
        before = open_descriptors()
        with pytest.raises(OSError) as caught:  # noqa: PT011 - its number is what matters
            listening_socket(host, taken.getsockname()[1])
        assert caught.value.errno == number
        assert open_descriptors() <= before


def test_port_of_a_moment_ago() -> None:
    """A port whose last connection we have closed serves again, and not only after a minute."""
    with listening_socket("127.0.0.1", 0) as listening:
        address = listening.getsockname()
        with socket.create_connection(address) as peer:
            listening.accept()[0].close()
            assert peer.recv(1) == b""
    listening_socket(*address).close()


def test_ipv6_alone() -> None:
    """A listener on :: is not one for IPv4 in disguise."""
    with listening_socket("::", 0) as listening:
        assert listening.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
