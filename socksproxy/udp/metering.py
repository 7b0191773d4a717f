"""
How much of an association's payload may pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..limits.buckets import Meter, Meters
from .targets import Target


class Metering:
    """
    The meters of one association. An association without limits has none of this.

    :param meters: what limits all datagrams; None: only rules set limits.
    """

    __slots__ = ("_by_rule", "_of_replies", "meters")

    def __init__(self, meters: Meters | None) -> None:
        self.meters = meters
        self._by_rule: dict[str, Meters | None] = {}
        #: By the headers for replies: what limits replies from destinations under rules with limits.
        self._of_replies: dict[bytes, Meters] = {}

    def of_rule(self, rule: str, make: Callable[[str], Meters | None]) -> Meters | None:
        """The meters of all datagrams under *rule*, to however many destinations."""
        if rule not in self._by_rule:
            self._by_rule[rule] = make(rule)
        return self._by_rule[rule]

    @property
    def has_rules(self) -> bool:
        """Whether a rule has set limits."""
        return bool(self._by_rule)

    def upload(self, target: Target) -> Meter | None:
        """What limits datagrams to *target*."""
        meters = target.meters or self.meters
        return None if meters is None else meters.up

    def download(self, header: bytes) -> Meter | None:
        """What limits datagrams for the client that get *header*."""
        meters = self._of_replies.get(header) or self.meters
        return None if meters is None else meters.down

    def add_replies(self, header: bytes, host: str, port: int, targets: Iterable[Target]) -> None:
        """
        Replies from *host* and *port* get *header*, and have the limits of what *targets* send to there.

        Replies from another port of that host have the limits of what is sent to the host.
        """
        found = None
        for target in targets:
            if target.sockaddr == (host, port):
                found = target.meters
                break
            if target.sockaddr is not None and target.sockaddr[0] == host:
                found = target.meters or found
        if found is not None:
            self._of_replies[header] = found

    def forget_replies(self) -> None:
        """The limits of replies are to be found anew."""
        self._of_replies.clear()

    def leave(self, kept: Meters | None = None) -> None:
        """Take the association out of all queues, but for those of *kept*."""
        for meters in (self.meters, *self._by_rule.values()):
            if meters is not None and meters is not kept:
                meters.leave()
