"""
Why datagrams are dropped.
"""

from __future__ import annotations

import errno
from enum import Enum


class Drop(Enum):
    """Why a datagram is not passed on; the value is the access record's word for it."""

    #: From the client, but no SOCKS datagram.
    MALFORMED = "malformed"
    #: To the client's port, but not from the client.
    FOREIGN = "foreign"
    #: A fragment whose set did not come together.
    FRAGMENT = "fragment"
    DENIED = "denied"
    UNRESOLVABLE = "unresolvable"
    #: There was no room for it, in a queue of ours or of the system's.
    OVERFLOW = "overflow"
    #: From a source that the client has not sent to.
    FILTERED = "filtered"
    #: It came faster than the bytes of its association may.
    LIMITED = "limited"
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
    """Why a datagram is dropped that the system did not take."""
    return _DROP_BY_ERRNO.get(problem.errno or 0, Drop.UNREACHABLE)
