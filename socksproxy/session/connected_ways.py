"""
The ways out that clients' connections have taken, for the BINDs that follow them.
"""

from __future__ import annotations

from collections import OrderedDict

from twisted.internet.interfaces import IReactorTime

#: Seconds for which a way is remembered, and how many are.
LIFETIME, MOST = 300.0, 4096


class ConnectedWays:
    """
    Remembers, for a while, by which proxies a client has reached a host.

    :param clock: tells the time.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._ways: OrderedDict[tuple[str | None, str | None], tuple[float, str]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._ways)

    def note(self, client: str | None, host: str, via: str) -> None:
        """
        *client* has reached *host* by *via*.

        :param client: whose connection it is.
        """
        until = self._clock.seconds() + LIFETIME
        for key in ((client, host), (client, None)):
            self._ways[key] = until, via
            self._ways.move_to_end(key)
        while len(self._ways) > MOST:
            self._ways.popitem(last=False)

    def find(self, client: str | None, host: str | None) -> str | None:
        """The way by which *client* has last reached *host* (None: any host); None: it has not lately."""
        until, via = self._ways.get((client, host), (0.0, None))
        return via if until > self._clock.seconds() else None
