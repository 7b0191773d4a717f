"""
What the choice of a pool's member costs, in time and in memory.

    python benchmarks/pools.py [--members 1000]

A choice goes as a session's does: the key, the member, its sessions. Memory is that of all that the pool
keeps of its members after as many clients have come: settings, numbers, health, routes, remembered hashes.
Of those it keeps 4,096 at the most, however many members there are.
"""

from __future__ import annotations

import argparse
import gc
import time
import tracemalloc
from collections.abc import Callable, Sequence
from functools import partial

from twisted.internet import reactor

from socksproxy import SOCKSFactory
from socksproxy.routes.counters import enter
from socksproxy.routes.interfaces import Trail
from socksproxy.routes.members import Member
from socksproxy.routes.pool import PoolRoute
from socksproxy.values.outgoing import Asker
from socksproxy.values.pools import Choose, UpstreamPool
from socksproxy.values.upstreams import Upstream
from socksproxy.wire.password import Credentials
from socksproxy.wire.words import Address

CALLS, ROUNDS = 20_000, 5
DESTINATION = Address.of("192.0.2.1", 443)


class Client:
    """A session, as pools see it."""

    def __init__(self, number: int) -> None:
        self._asker = Asker(f"192.0.2.{number % 251}", f"user-{number}")

    def ends(self) -> None:
        """See :class:`socksproxy.routes.interfaces.Traveller`."""

    def pin(self) -> None:
        """See :class:`socksproxy.routes.interfaces.Traveller`."""

    def name(self) -> None:
        """See :class:`socksproxy.routes.interfaces.Traveller`."""

    def asker(self) -> Asker:
        """See :class:`socksproxy.routes.interfaces.Traveller`."""
        return self._asker


class Exits:
    """A file of members."""

    path = "exits"

    def __init__(self, count: int) -> None:
        self.table = dict(map(self._member, range(count)))

    def _member(self, number: int) -> tuple[str, Upstream]:
        login = Credentials(f"user-{number}".encode(), f"password-{number}".encode())
        address = Address.of(f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}", 1080)
        return f"{address}", Upstream(type="socks5", address=address, login=login)


def route_of(count: int, choose: Choose) -> PoolRoute:
    """The route of a server through a pool of *count* members."""
    pool = UpstreamPool(members_file=Exits(count), choose=choose)
    route = SOCKSFactory(reactor, pools={"pool": pool}, via="pool").context.route
    assert isinstance(route, PoolRoute)
    return route


def chosen(route: PoolRoute, trail: Trail) -> Member:
    """The member for one connection, which begins and ends."""
    member = route.members.next((), route.key(trail, DESTINATION))
    assert member is not None
    enter((member.counters,))
    member.counters.leave()
    return member


def choose_again(route: PoolRoute, trails: Sequence[Trail], number: int) -> None:
    """The choice for one of a few clients."""
    chosen(route, trails[number % len(trails)])


def choose_first(route: PoolRoute, number: int) -> None:
    """The choice for a client that has not been here."""
    chosen(route, Trail(None, traveller=Client(number)))


def cost(call: Callable[[int], object], calls: int) -> float:
    """Microseconds of *call*, the best of some rounds."""
    best = float("inf")
    for turn in range(ROUNDS):
        began = time.process_time()
        for number in range(calls):
            call(turn * calls + number)
        best = min(best, time.process_time() - began)
    return best / calls * 1e6


def memory(count: int, choose: Choose) -> float:
    """Bytes for each member, after each one has been chosen."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    route = route_of(count, choose)
    for member in route.members:
        route.way(member)
    for number in range(count):
        chosen(route, Trail(None, traveller=Client(number)))
    gc.collect()
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return used / count


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=1000)
    count = parser.parse_args().members
    trails = [Trail(None, traveller=Client(number)) for number in range(200)]
    for choose in Choose:
        route = route_of(count, choose)
        for trail in trails:
            chosen(route, trail)
        known = cost(partial(choose_again, route, trails), CALLS)
        print(f"{choose.value}: {known:.1f} us a choice among {count}", end="")
        if choose.hashes and choose is not Choose.HASH_DESTINATION:
            fresh = route_of(count, Choose.HASH_USER)
            first = cost(partial(choose_first, fresh), 200)
            print(f", the first one of a key {first / 1000:.2f} ms", end="")
        print(f"; {memory(count, choose):.0f} bytes a member")


if __name__ == "__main__":
    main()
