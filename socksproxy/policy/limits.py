"""
How many sessions there may be at once, and who has how many.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class SessionLimits(NamedTuple):
    """
    The most sessions at once; None: no limit but the system's.

    :ivar sessions: of all clients together.
    :ivar per_client: of one client address.
    """

    sessions: int | None = None
    per_client: int | None = None


class Timeouts(NamedTuple):
    """
    How long a session may stay in a state, in seconds; None: for ever.

    :ivar handshake: from the connection to the whole request.
    :ivar connect: from the request to the reply: looking up and connecting.
    :ivar idle: without a byte in either direction of a relay.
    """

    handshake: float | None = 10.0
    connect: float | None = 30.0
    idle: float | None = None


class Admission(Enum):
    """What becomes of a new session."""

    SERVE = "serve"
    #: It is told so by the protocol's own reply, once it has asked.
    REFUSE = "refuse"
    #: So many are waiting to be told that this one is closed unheard.
    DROP = "drop"


#: How many sessions over a limit are still listened to, so that they can be told.
PATIENCE = 32


def judged(over: int) -> Admission:
    """What becomes of a session that makes them *over* more than there may be."""
    if over <= 0:
        return Admission.SERVE
    return Admission.REFUSE if over <= PATIENCE else Admission.DROP


class SessionCount:
    """Counts sessions against :class:`SessionLimits`; a :meth:`release` follows every :meth:`admit`."""

    def __init__(self, limits: SessionLimits = SessionLimits()) -> None:
        self.limits = limits
        self.total = 0
        self._by_client: dict[str | None, int] = {}

    def admit(self, client: str | None) -> Admission:
        """
        Count a session and judge it.

        :param client: the literal address; None: a Unix socket's, which all count
            as one client; empty: not known yet, which has no limit of its own.
        """
        self.total += 1
        limit = self.limits.sessions
        over = 0 if limit is None else self.total - limit
        per_client = self.limits.per_client
        if per_client is not None and client != "":
            count = self._by_client[client] = self._by_client.get(client, 0) + 1
            over = max(over, count - per_client)
        return judged(over)

    def release(self, client: str | None) -> None:
        """A session of *client* has ended."""
        self.total -= 1
        count = self._by_client.get(client)
        if count is None:
            return
        if count == 1:
            del self._by_client[client]
        else:
            self._by_client[client] = count - 1


class ClientCount:
    """
    Counts what a client address may have only so many of.

    :param most: so many; None: no limit.
    """

    def __init__(self, most: int | None) -> None:
        self.most = most
        self.by_client: dict[str | None, int] = {}

    def take(self, client: str | None) -> bool:
        """
        Whether *client* may have one more; a :meth:`give` is to follow if so.

        :param client: the literal address; None: a Unix socket's, which all count as one client.
        """
        count = self.by_client.get(client, 0)
        if self.most is not None and count >= self.most:
            return False
        self.by_client[client] = count + 1
        return True

    def give(self, client: str | None) -> None:
        """*client* has one less."""
        count = self.by_client[client]
        if count == 1:
            del self.by_client[client]
        else:
            self.by_client[client] = count - 1
