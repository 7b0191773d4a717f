"""
The ways out that clients' connections have taken, for the BINDs that follow them.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime

#: Seconds for which a way is remembered, and how many are.
LIFETIME, MOST = 300.0, 4096


class Whose(NamedTuple):
    """
    The owner of a connection, whose BIND may follow it.

    :ivar client: the address of the client, or the local user.
    :ivar user: the name of the user.
    :ivar word: the word of the sticky session; empty: there is none.
    """

    client: str | None
    user: str | None
    word: str


class ConnectedWays:
    """
    Remembers, for a while, by which proxies a client has reached a host.

    :param clock: tells the time.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._ways: OrderedDict[tuple[Whose, str | None], tuple[float, str]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._ways)

    def note(self, whose: Whose, host: str, via: str) -> None:
        """A connection of *whose* has reached *host* by *via*."""
        until = self._clock.seconds() + LIFETIME
        for key in ((whose, host), (whose, None)):
            self._ways[key] = until, via
            self._ways.move_to_end(key)
        while len(self._ways) > MOST:
            self._ways.popitem(last=False)

    def find(self, whose: Whose, host: str | None) -> str | None:
        """The way by which *whose* has last reached *host* (None: any host); None: not lately."""
        until, via = self._ways.get((whose, host), (0.0, None))
        return via if until > self._clock.seconds() else None
