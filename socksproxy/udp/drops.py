"""
Why datagrams are dropped.
"""

from __future__ import annotations

import errno
from enum import Enum


class Drop(Enum):
    """Why a datagram is not passed on; the value is the access record's word for it."""

    #: It is from the client, but is no SOCKS datagram.
    MALFORMED = "malformed"
    #: It came to the client's port, but not from the client.
    FOREIGN = "foreign"
    #: It is a fragment of an incomplete set.
    FRAGMENT = "fragment"
    DENIED = "denied"
    UNRESOLVABLE = "unresolvable"
    #: A queue of ours or of the system had no room for it.
    OVERFLOW = "overflow"
    #: It is from a source that the client has not sent to.
    FILTERED = "filtered"
    #: It exceeded a limit of the association.
    LIMITED = "limited"
    #: Its way out carries no UDP, or the proxy there gives no association.
    UPSTREAM = "upstream"
    TOO_BIG = "too_big"
    UNREACHABLE = "unreachable"


_DROP_BY_ERRNO = {
    errno.EMSGSIZE: Drop.TOO_BIG,
    errno.EAGAIN: Drop.OVERFLOW,
    errno.ENOBUFS: Drop.OVERFLOW,
    errno.ENOMEM: Drop.OVERFLOW,
    # A packet filter on this machine, or the broadcast address of a network.
    errno.EACCES: Drop.DENIED,
    errno.EPERM: Drop.DENIED,
}


def drop_for(problem: OSError) -> Drop:
    """The reason for dropping a datagram that the system has refused with *problem*."""
    return _DROP_BY_ERRNO.get(problem.errno or 0, Drop.UNREACHABLE)
