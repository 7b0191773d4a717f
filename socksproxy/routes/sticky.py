"""
Sticky sessions: the choice that a user keeps for a time.

The choice is the first one by rendezvous hashing (:mod:`socksproxy.values.rendezvous`) of the user, the word
and the moment of the first use. So only that moment is kept (:mod:`.first_uses`), and the member that a
session has moved to because its own did not work.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.logger import Logger

from ..logs.throttle import LogThrottle
from ..values.rendezvous import key_of, score
from ..values.sticky import StickySettings
from .first_uses import Entry, FirstUses, FirstUsesError

_log = Logger(namespace="socksproxy")

T = TypeVar("T")


class Pin:
    """
    A sticky session, as one of the user's connections knows it.

    :param pins: keep the moves.
    :param name: the kind of the name, the name, and the word.
    :param entry: its first use and its end.
    :ivar word: the word that the user has chosen; empty: no user has.
    :ivar key: the key of the choice, for rendezvous hashing.
    """

    __slots__ = ("_ends", "_name", "_pins", "key", "word")

    def __init__(self, pins: Pins, name: tuple[str, str, str], entry: Entry) -> None:
        self._pins = pins
        self._name = name
        self._ends = entry.ends
        self.word = name[-1]
        self.key = key_of(*name, str(entry.began))

    @property
    def strict(self) -> bool:
        """Whether a connection fails where the session's member of a pool does not work."""
        return self._pins.settings.strict

    @property
    def login(self) -> bytes:
        """What an upstream may know the session by: 32 bytes that confirm no guess of user and word."""
        return self._pins.sealed(self.key)

    def moved(self, pool: str) -> int:
        """The :func:`hash_of` the member of *pool* that the session has moved to; 0: it has not moved."""
        return self._pins.moved(self._of(pool))

    def move(self, pool: str, member: str) -> None:
        """The session stays with *member* of *pool* from now on."""
        self._pins.move(self._of(pool), self._ends, hash_of(member))

    def _of(self, pool: str) -> bytes:
        return key_of("pool", pool, *self._name)


class Pins:
    """
    The sticky sessions of a server.

    :param settings: the file, and how sticky sessions are.
    :param reactor: tells the time, for the rate of log lines.
    :param wall: tells the seconds since the epoch.
    :param before: the sticky sessions of the settings before; what they keep in memory goes on.
    """

    def __init__(
        self,
        settings: StickySettings,
        reactor: Any,
        wall: Callable[[], float] = time.time,
        before: Pins | None = None,
    ) -> None:
        self.settings = settings
        self._wall = wall
        self._failures = LogThrottle(reactor)
        self._in_memory: FirstUses = FirstUses(None, wall) if before is None else before._in_memory
        # The file is opened with the first session: the process has changed to its user by then.
        self._uses: FirstUses | None = None

    def pin(self, user: str, word: str, seconds: float | None = None) -> Pin:
        """
        The sticky session *word* of *user*.

        :param seconds: for how long it is sticky, where it is new; None: as the settings say.
        """
        return self._pin(("user", user, word), seconds)

    def pin_client(self, client: str) -> Pin:
        """The sticky session of *client*, who has no name."""
        return self._pin(("client", client, ""), None)

    def _pin(self, name: tuple[str, str, str], seconds: float | None) -> Pin:
        asked, key = self.settings.seconds if seconds is None else seconds, key_of(*name)
        return Pin(self, name, self._do(lambda uses: uses.began(key, asked)))

    def moved(self, name: bytes) -> int:
        """See :meth:`.FirstUses.moved`."""
        return self._do(lambda uses: uses.moved(name))

    def move(self, name: bytes, ends: int, member: int) -> None:
        """See :meth:`.FirstUses.move`."""
        self._do(lambda uses: uses.move(name, ends, member))

    def sealed(self, name: bytes) -> bytes:
        """See :meth:`.FirstUses.sealed`."""
        return self._do(lambda uses: uses.sealed(name))

    def close(self) -> None:
        """Close the file. It is opened again for a session that goes on."""
        uses, self._uses = self._uses, None
        if uses is not None:
            uses.close()

    def _do(self, work: Callable[[FirstUses], T]) -> T:
        """What *work* finds in the file, or in memory where there is no file or the file cannot be used."""
        path = self.settings.file
        if path is None:
            return work(self._in_memory)
        try:
            if self._uses is None:
                self._uses = FirstUses(path, self._wall)
            return work(self._uses)
        except FirstUsesError as problem:
            self.close()
            times = self._failures.due()
            if times:
                _log.error(
                    "sticky sessions are kept in memory, and last until the server ends: {problem} "
                    "({times} times since the last such line)",
                    problem=str(problem),
                    times=times,
                )
            return work(self._in_memory)


def hash_of(member: str) -> int:
    """The number of *member*, by which a move is kept."""
    # 0 stands for a session that has not moved.
    return int.from_bytes(score(b"member", member), "big") or 1
