"""
Whether a client that has closed its direction of a connection is still there.

A client's FIN does not tell whether the client only sends no more (RFC 9293, section 3.6), has closed the
connection, or has died. If its program has closed the connection, its host answers data with a reset (RFC
1122, section 4.2.2.13). The question is one urgent byte, which a program does not read unless it asks for
urgent data.
"""

from __future__ import annotations

import select
from contextlib import suppress
from socket import AF_UNIX, MSG_OOB, SocketType


def ask(link: SocketType) -> None:
    """Ask the peer of *link* for a reset if it has closed the connection; :func:`has_ended` then says so."""
    if link.family == AF_UNIX:
        return  # the system knows without a question
    with suppress(OSError):  # the connection has ended, as :func:`has_ended` says
        link.send(b"\0", MSG_OOB)


def has_ended(link: SocketType) -> bool:
    """Whether *link* has ended in both directions, or failed."""
    if not hasattr(select, "poll"):
        return False  # a platform on which only timeouts tell
    poll = select.poll()
    poll.register(link.fileno(), 0)
    return bool(poll.poll(0))
