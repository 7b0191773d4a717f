"""
How much of an association's payload may pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..limits.buckets import Meter, Meters
from ..net.names import literal
from .flows import UpstreamFlow
from .targets import Target


class Metering:
    """
    The meters of one association. An association without limits has no metering.

    :param meters: the meters of all datagrams; None: only rules set limits.
    :ivar by_rule: the meters of rules that set limits, by the rule's name.
    """

    __slots__ = ("_of_replies", "by_rule", "meters")

    def __init__(self, meters: Meters | None) -> None:
        self.meters = meters
        self.by_rule: dict[str, Meters | None] = {}
        # By the headers for replies: the meters of replies from destinations under rules with limits.
        self._of_replies: dict[bytes, Meters] = {}

    def of_rule(self, rule: str, make: Callable[[str], Meters | None]) -> Meters | None:
        """The meters of all datagrams under *rule*, to any number of destinations."""
        if rule not in self.by_rule:
            self.by_rule[rule] = make(rule)
        return self.by_rule[rule]

    def upload(self, target: Target) -> Meter | None:
        """The meter of datagrams to *target*; None: there is no limit."""
        meters = target.meters or self.meters
        return None if meters is None else meters.up

    def download(self, header: bytes) -> Meter | None:
        """The meter of datagrams to the client that get *header*; None: there is no limit."""
        meters = self._of_replies.get(header) or self.meters
        return None if meters is None else meters.down

    def add_replies(
        self, header: bytes, host: str, port: int, targets: Iterable[Target], flow: UpstreamFlow | None = None
    ) -> None:
        """
        Limit replies from *host* and *port*, which get *header*, as datagrams to there are limited.

        Replies from a port that is none of *targets* have the limits of datagrams to the same host. The
        address of a name that a proxy looks up is not known: replies from unknown hosts have its limits.

        :param flow: the way by which the replies come; None: directly.
        """
        found, at_host = None, False
        for target in targets:
            if target.flow is not flow or target.sockaddr is None:
                continue
            if target.sockaddr == (host, port):
                found = target.meters
                break
            if target.sockaddr[0] == host:
                found, at_host = target.meters or (found if at_host else None), True
            elif flow is not None and not at_host and literal(target.sockaddr[0]) is None:
                found = target.meters or found
        if found is not None:
            self._of_replies[header] = found

    def forget_replies(self) -> None:
        """Forget the limits of replies, which :meth:`add_replies` finds anew."""
        self._of_replies.clear()

    def leave(self, kept: Meters | None = None) -> None:
        """Take the association out of all queues except those of *kept*."""
        for meters in (self.meters, *self.by_rule.values()):
            if meters is not None and meters is not kept:
                meters.leave()
