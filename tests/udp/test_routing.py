"""One UDP port in several processes: see :mod:`socksproxy.udp.routing`. The processes are lists here."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from twisted.internet.task import Clock

from socksproxy.udp.association import Association
from socksproxy.udp.routing import ConnectedDemux, RoutedDemux, Router, Routing
from socksproxy.wire.datagram import build_header
from socksproxy.wire.words import Address

from .test_demux import DATAGRAM, an_association

PLACE = ("127.0.0.1", 1080)
HOST = "192.0.2.1"


class Wrapped:
    """Encapsulation that one client's datagrams have."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def unwrap_datagram(self, data: bytes) -> bytes:
        from socksproxy.wire.words import ProtocolError

        if not data.startswith(b"\x01" + self._key):
            raise ProtocolError("another one's")
        return data[2:]


class Port:
    """A socket."""

    def __init__(self, demux: Any = None, peer: Any = None) -> None:
        self.demux = demux
        self.peer = peer
        self.closed = False

    def close(self) -> None:
        self.closed = True


class Outlet:
    """What an association sends with."""

    def __init__(self, port: Port) -> None:
        self.port: Any = port
        self.client: Any = None


class Worker:
    """A worker with one shared port."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._routing = Routing(lambda message, data: router.received(self, message, data))
        self.opened: list[Port] = []
        self.short = self.busy = False
        self.waiting: list[tuple[list[Any], bytes]] = []
        self.shared = Port()
        self.demux = self.shared.demux = RoutedDemux(self._routing, PLACE, self._open)
        #: What associations have taken, in their order.
        self.took: list[tuple[Association, bytes]] = []

    def _open(self, host: str, port: int, demux: Any, peer: Any) -> Port:
        assert (host, port) == PLACE
        if self.short:
            raise OSError("no descriptor")
        self.opened.append(Port(demux, peer))
        return self.opened[-1]

    def send(self, message: list[Any], data: bytes) -> None:
        """From the router."""
        self.waiting.append((message, data))
        if not self.busy:
            self.read()

    def read(self) -> None:
        """Take what the router has sent."""
        while self.waiting:
            self._routing.received(*self.waiting.pop(0))

    def begin(self, port: int | None = None, host: str = HOST, wrapping: Any = None, **more: Any) -> Any:
        """An association."""
        association: Any = an_association(host, port, **more)
        association.wrapping = wrapping
        self.busy = True
        self.demux.add(association)
        association.outlet = Outlet(self.shared)
        self.busy = False
        self.read()
        return association

    def end(self, association: Any) -> bool:
        """*association* ends; returned is whether the socket that it had stays open."""
        used: bool = association.outlet.port.demux.remove(association)
        return used


@pytest.fixture
def router() -> Router:
    return Router(Clock())


@pytest.fixture
def workers(router: Router, monkeypatch: pytest.MonkeyPatch) -> list[Worker]:
    found = [Worker(router) for _ in range(3)]

    def note(association: Association, data: bytes) -> None:
        owner = next(each for each in found if association in each.demux._numbers)
        owner.took.append((association, data))

    monkeypatch.setattr(Association, "from_client", note)
    return found


def test_the_right_worker(workers: list[Worker]) -> None:
    """Wherever a first datagram comes, the worker with the association gets it; it has a socket then."""
    associations = [worker.begin(host=f"192.0.2.{number}") for number, worker in enumerate(workers)]
    for number in range(3):
        workers[1].demux.find(f"192.0.2.{number}", 5000, DATAGRAM)
    for worker, association in zip(workers, associations, strict=True):
        assert worker.took == [(association, DATAGRAM)]
        (port,) = worker.opened
        assert association.outlet.port is port
        assert association.outlet.client == port.peer == (association.host, 5000)
        # Further ones come there.
        assert port.demux.find(association.host, 5000, b"") is association
    workers[1].demux.find("192.0.2.9", 5000, DATAGRAM)
    assert sum(len(worker.took) for worker in workers) == 3


def test_the_order_of_one_process(workers: list[Worker]) -> None:
    """Who has named the port; else the oldest that has named none; else the oldest: over all workers."""
    named, older, newer = workers[0].begin(7), workers[1].begin(), workers[2].begin()
    for port in (8, 7, 9, 10):
        workers[2].demux.find(HOST, port, DATAGRAM)
    assert workers[1].took == [(older, DATAGRAM)]
    assert workers[0].took == [(named, DATAGRAM)]
    assert workers[2].took == [(newer, DATAGRAM)]
    assert (older.port, named.port, newer.port) == (8, 7, 9)


@pytest.mark.parametrize("named", [None, 7])
def test_a_datagram_overtakes(workers: list[Worker], router: Router, named: int | None) -> None:
    """It may come before its association, and not long before; another client's is not taken for it."""
    clock: Any = router._clock
    workers[1].demux.find(HOST, 7, b"too early")
    clock.advance(2)
    workers[1].demux.find("192.0.2.2", 7, b"another client's")
    workers[1].demux.find(HOST, 7, DATAGRAM)
    association = workers[0].begin(named)
    assert workers[0].took == [(association, DATAGRAM)]
    other = workers[2].begin(8, host="192.0.2.2")
    assert workers[2].took == []
    assert not other.latched
    for _ in range(1000):
        workers[1].demux.find("192.0.2.3", 7, bytes(1000))
    assert len(router._held) == 256


def test_malformed(workers: list[Worker]) -> None:
    """The association counts it, and waits for a better one."""
    association = workers[0].begin()
    workers[1].demux.find(HOST, 7, b"rubbish")
    assert not association.latched
    assert sum(association.dropped.values()) == 1
    workers[1].demux.find(HOST, 8, DATAGRAM)
    assert workers[0].took == [(association, DATAGRAM)]


def test_before_the_socket_is_connected(workers: list[Worker]) -> None:
    """Another client's datagram in a socket of its own goes to the other client's association."""
    one, two = workers[0].begin(host="192.0.2.1"), workers[1].begin(host="192.0.2.2")
    workers[0].demux.find("192.0.2.1", 7, DATAGRAM)
    (port,) = workers[0].opened
    assert port.demux.find("192.0.2.2", 7, DATAGRAM) is None
    assert workers[1].took == [(two, DATAGRAM)]
    assert workers[0].took == [(one, DATAGRAM)]


@pytest.mark.parametrize("relatch", [False, True])
def test_another_port(workers: list[Worker], relatch: bool) -> None:
    """A client may change its port, if that is allowed; the socket is another one then."""
    association = workers[0].begin(relatch=relatch)
    for port in (7, 8):
        workers[1].demux.find(HOST, port, DATAGRAM)
    assert len(workers[0].took) == 1 + relatch
    assert association.port == (8 if relatch else 7)
    assert [port.closed for port in workers[0].opened] == ([True, False] if relatch else [False])


def test_without_descriptors(workers: list[Worker]) -> None:
    """The router goes on to pass the datagrams on, and replies leave from the shared socket."""
    workers[0].short = True
    association = workers[0].begin()
    for _ in range(2):
        workers[1].demux.find(HOST, 7, DATAGRAM)
    assert workers[0].took == [(association, DATAGRAM)] * 2
    assert association.outlet.port is workers[0].shared
    assert association.outlet.client == (HOST, 7)
    assert not workers[0].end(association)


def test_ends(workers: list[Worker], router: Router) -> None:
    """A shared socket closes with the last association of its worker, and nothing is left."""
    first, second = workers[0].begin(), workers[0].begin()
    workers[1].demux.find(HOST, 7, DATAGRAM)
    (port,) = workers[0].opened
    assert isinstance(port.demux, ConnectedDemux)
    assert not workers[0].end(first)
    assert not workers[0].shared.closed
    assert not workers[0].end(second)
    workers[1].demux.find(HOST, 7, DATAGRAM)
    assert len(workers[0].took) == 1
    assert router._peers == {}


def test_a_worker_dies(workers: list[Worker], router: Router) -> None:
    """Its associations are gone; others get their clients' datagrams as before."""
    dead, alive = workers[0].begin(), workers[1].begin(7)
    workers[2].demux.find(HOST, 6, DATAGRAM)
    assert workers[0].took == [(dead, DATAGRAM)]
    router.gone(workers[0])
    router.gone(workers[0])
    workers[2].demux.find(HOST, 7, DATAGRAM)
    assert workers[1].took == [(alive, DATAGRAM)]
    assert list(router._remotes) == [workers[1]]


def test_encapsulated(workers: list[Worker]) -> None:
    """The worker that can unwrap a datagram has the association; other clients are not waited for."""
    one, two = workers[0].begin(wrapping=Wrapped(b"1")), workers[1].begin(wrapping=Wrapped(b"2"))
    plain = workers[2].begin()
    workers[2].demux.find(HOST, 7, b"\x012" + DATAGRAM)
    assert [association for association, _ in workers[1].took] == [two]
    assert not one.latched
    workers[2].demux.find(HOST, 8, DATAGRAM)
    assert workers[2].took == [(plain, DATAGRAM)]
    workers[0].demux.find(HOST, 9, b"\x011" + DATAGRAM)
    assert (one.port, two.port, plain.port) == (9, 7, 8)
    # Without a socket of its own the router knows the port.
    workers[0].demux.find(HOST, 7, b"\x012" + DATAGRAM)
    assert len(workers[1].took) == 2


def test_many(workers: list[Worker]) -> None:
    """Two hundred clients of one address that name their ports: none gets another one's datagram."""
    number = count()
    clients = {port: workers[next(number) % 3].begin(port) for port in range(5000, 5200)}
    for port in reversed(clients):
        data = build_header(Address.of("198.51.100.1", port)) + b"x"
        workers[port % 3].demux.find(HOST, port, data)
    took = dict(pair for worker in workers for pair in worker.took)
    for port, association in clients.items():
        assert took[association] == build_header(Address.of("198.51.100.1", port)) + b"x"
