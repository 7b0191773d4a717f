"""
What an operator says of limits.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import attrs


class Rate(NamedTuple):
    """
    How fast something may go on, for ever.

    :ivar per_second: the amount per second.
    :ivar burst: how much may pass at once after a pause; None: as much as in a quarter of a second.
    """

    per_second: float
    burst: float | None = None


@attrs.frozen(kw_only=True)
class Limits:
    """
    How much one holder may have, such as a client or a user; None: as much as there is. In a record of a
    user or a group None says nothing, and UNLIMITED or UNLIMITED_RATE lifts a limit that would count.

    :ivar sessions: sessions at once.
    :ivar binds: BINDs that wait for their peers at once.
    :ivar associations: UDP associations at once.
    :ivar new_sessions: sessions that begin in a time.
    :ivar upload: bytes from clients to destinations, all sessions together.
    :ivar download: bytes from destinations to clients, all sessions together.
    :ivar daily: bytes of both directions in a day.
    :ivar monthly: bytes of both directions in a month.
    """

    sessions: int | None = None
    binds: int | None = None
    associations: int | None = None
    new_sessions: Rate | None = None
    upload: Rate | None = None
    download: Rate | None = None
    daily: int | None = None
    monthly: int | None = None

    @property
    def counts_bytes(self) -> bool:
        """Whether it limits what is moved in a day or a month."""
        return self.daily is not None or self.monthly is not None

    def __bool__(self) -> bool:
        """Whether it limits anything."""
        return self != _NONE

    def over(self, template: Limits) -> Limits:
        """What this says, and what *template* does where this says nothing."""
        said = {
            field.name: value
            for field in attrs.fields(Limits)
            if (value := getattr(self, field.name)) is not None
        }
        return attrs.evolve(template, **said)

    def over_all(self, template: Limits) -> Limits:
        """As :meth:`over`, where *template* is the last: what is UNLIMITED has no limit."""
        found = self.over(template)
        lifted = {
            field.name: None
            for field in attrs.fields(Limits)
            if getattr(found, field.name) in (UNLIMITED, UNLIMITED_RATE)
        }
        return attrs.evolve(found, **lifted) if lifted else found


#: In a user's or a group's record: a limit that would count otherwise does not; and a rate.
UNLIMITED = -1
UNLIMITED_RATE = Rate(math.inf)

#: It is asked of every session whether it is limited, and a comparison costs next to nothing.
_NONE = Limits()


@attrs.frozen(kw_only=True)
class ServerLimits:
    """
    The limits of a server, beside those of users' records and of rules.

    :ivar server: of all clients together.
    :ivar client: of each client address; on Unix sockets, of each local user.
    :ivar network: of each network of clients.
    :ivar user: of each user whose record has no other.
    :ivar session: of each session; rates only.
    :ivar ipv4_prefix: bits that the IPv4 addresses of one network have in common.
    :ivar ipv6_prefix: bits that the IPv6 addresses of one network have in common; a household has 64,
        or fewer.
    """

    server: Limits = Limits()
    client: Limits = Limits(binds=32, associations=4096)
    network: Limits = Limits()
    user: Limits = Limits()
    session: Limits = Limits()
    ipv4_prefix: int = 24
    ipv6_prefix: int = 64

    @property
    def counts_bytes(self) -> bool:
        """Whether the bytes of a day or a month are limited for any holder."""
        return any(limits.counts_bytes for limits in (self.server, self.client, self.network, self.user))
