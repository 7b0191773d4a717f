"""
What a program is told when the proxy refuses: replies as the errno that the kernel would give for the same.
"""

from __future__ import annotations

import errno

from ..client.handshake import HandshakeFailed, Problem
from ..wire.words import Reply

# A failure of the proxy's own, or one without a cause, is ENETUNREACH: "refused" is the destination's word.
_BY_REPLY: dict[int, int] = {
    Reply.NOT_ALLOWED: errno.EACCES,
    Reply.NETWORK_UNREACHABLE: errno.ENETUNREACH,
    Reply.HOST_UNREACHABLE: errno.EHOSTUNREACH,
    Reply.CONNECTION_REFUSED: errno.ECONNREFUSED,
    Reply.TTL_EXPIRED: errno.ETIMEDOUT,
    Reply.COMMAND_NOT_SUPPORTED: errno.EOPNOTSUPP,
    # So that the program tries its next address.
    Reply.ADDRESS_TYPE_NOT_SUPPORTED: errno.ENETUNREACH,
}
# Tor's F0 to F7 (torspec, socks-extensions): an onion service that cannot be reached.
_ONION = range(0xF0, 0xF8)


def errno_for(problem: HandshakeFailed) -> int:
    """The errno that says *problem*."""
    if problem.problem is Problem.REFUSED:
        if problem.meaning in _ONION:
            return errno.EHOSTUNREACH
        return _BY_REPLY.get(problem.meaning, errno.ENETUNREACH)
    if problem.problem in (Problem.LOGIN, Problem.NO_METHOD):
        return errno.EACCES
    return errno.EPROTO if problem.problem is Problem.PROTOCOL else errno.ECONNRESET
