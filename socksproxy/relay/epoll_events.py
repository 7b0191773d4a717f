"""
What epoll tells, by its names: importable where there is no epoll, too.
"""

from __future__ import annotations

import select

READ: int = getattr(select, "EPOLLIN", 0x1)
URGENT: int = getattr(select, "EPOLLPRI", 0x2)
WRITE: int = getattr(select, "EPOLLOUT", 0x4)
ERROR: int = getattr(select, "EPOLLERR", 0x8)
HANG_UP: int = getattr(select, "EPOLLHUP", 0x10)
PEER_CLOSED: int = getattr(select, "EPOLLRDHUP", 0x2000)
EDGE: int = getattr(select, "EPOLLET", 1 << 31)

#: What a session's sockets are registered for, once and for all.
EVERYTHING = READ | URGENT | WRITE | PEER_CLOSED | EDGE
#: The socket is in order no more.
BROKEN = HANG_UP | ERROR
#: No more than what is there will come.
ENDING = PEER_CLOSED | BROKEN
#: There is something to be had by reading: data, an end or an error.
READABLE = READ | URGENT | ENDING
#: A short read does not tell that the socket is empty: the end, or urgent data, comes in the same edge.
UNEVEN = URGENT | ENDING
