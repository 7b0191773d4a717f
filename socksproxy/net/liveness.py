"""
Whether a client that has closed its direction of a connection is still there.

Its FIN is the same whether it will only send no more (RFC 9293, section 3.6), or has closed the
connection, or has died. A host answers data for a connection that its program has closed with a reset
(RFC 1122, section 4.2.2.13). The data that asks is one urgent byte: a program that has not asked for
urgent data does not read it.
"""

from __future__ import annotations

import select
from contextlib import suppress
from socket import AF_UNIX, MSG_OOB, SocketType


def ask(link: SocketType) -> None:
    """Have the peer of *link* answer with a reset if it has closed; :func:`has_ended` tells it then."""
    if link.family == AF_UNIX:
        return  # the system knows it by itself
    with suppress(OSError):  # it has ended, which :func:`has_ended` tells
        link.send(b"\0", MSG_OOB)


def has_ended(link: SocketType) -> bool:
    """Whether *link* has ended in both directions, or failed."""
    if not hasattr(select, "poll"):
        return False  # a platform on which only timeouts tell
    poll = select.poll()
    poll.register(link.fileno(), 0)
    return bool(poll.poll(0))
