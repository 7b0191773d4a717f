"""
The limits of holders: values that the operator sets.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import Literal, NamedTuple

import attrs


class Rate(NamedTuple):
    """
    A lasting rate of bytes or events.

    :ivar per_second: the amount per second.
    :ivar burst: how much may pass at once after a pause; None: as much as in a quarter of a second.
    """

    per_second: float
    burst: float | None = None


class Fallback(Enum):
    """What becomes of a limit of all nodes while the store that they share does not answer."""

    #: Each node has its part of the limit.
    SHARE = "share"
    #: What the limit concerns is refused.
    STRICT = "strict"
    #: Each node has the whole limit.
    LOCAL = "local"


@attrs.frozen(kw_only=True)
class Limits:
    """
    The limits of one holder, such as a client or a user; None: no limit.

    In the record of a user or a group, None leaves the limit to others, and UNLIMITED or UNLIMITED_RATE lifts
    a limit that would count otherwise.

    :ivar sessions: sessions at once.
    :ivar binds: BINDs that wait for their peers at once.
    :ivar associations: UDP associations at once.
    :ivar devices: different client addresses of a user at once. The addresses of one IPv6 /64 are one.
    :ivar new_sessions: the rate at which sessions may begin.
    :ivar upload: bytes from clients to destinations, all sessions together.
    :ivar download: bytes from destinations to clients, all sessions together.
    :ivar daily: bytes of both directions in a day.
    :ivar monthly: bytes of both directions in a month.
    :ivar counts: the direction of the bytes that count in a day and a month: upload (from clients) or
        download (to clients). Default: both.
    :ivar shared: what becomes of these limits while the store of ``[shared]`` does not answer: "share" (each
        node has its part), "strict" (new sessions are refused) or "local" (each node has the whole limit).
    """

    sessions: int | None = None
    binds: int | None = None
    associations: int | None = None
    devices: int | None = None
    new_sessions: Rate | None = None
    upload: Rate | None = None
    download: Rate | None = None
    daily: int | None = None
    monthly: int | None = None
    counts: Literal["upload", "download"] | None = None
    shared: Fallback | None = None

    @property
    def counts_bytes(self) -> bool:
        """Whether there is a limit on the bytes of a day or a month."""
        return self.daily is not None or self.monthly is not None

    def __bool__(self) -> bool:
        """Whether there is any limit."""
        if self == _NONE:
            return False
        if self.shared is None and self.counts is None:
            return True
        return attrs.evolve(self, shared=None, counts=None) != _NONE

    def over(self, template: Limits) -> Limits:
        """These limits, with the limits of *template* in place of None."""
        said = {
            field.name: value
            for field in attrs.fields(Limits)
            if (value := getattr(self, field.name)) is not None
        }
        return attrs.evolve(template, **said)

    def over_all(self, template: Limits) -> Limits:
        """These limits over *template*, the last one: see :meth:`over`. UNLIMITED becomes no limit."""
        found = self.over(template)
        lifted = {
            field.name: None
            for field in attrs.fields(Limits)
            if getattr(found, field.name) in (UNLIMITED, UNLIMITED_RATE)
        }
        return attrs.evolve(found, **lifted) if lifted else found


#: The directions of bytes, of which a quota may count one.
DIRECTIONS = ("upload", "download")

#: The number and the rate that lift a limit, in the record of a user or a group.
UNLIMITED = -1
UNLIMITED_RATE = Rate(math.inf)

#: Every session asks whether it is limited, and a comparison with this costs next to nothing.
_NONE = Limits()


@attrs.frozen(kw_only=True)
class ServerLimits:
    """
    The limits of a server, beside those of users' records and of rules.

    :ivar server: the limits of all clients together.
    :ivar client: the limits of each client address; on Unix sockets, of each local user.
    :ivar network: the limits of each network of clients.
    :ivar user: the limits of each user, as far as the user's record has no others.
    :ivar session: the limits of each session; rates only.
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
