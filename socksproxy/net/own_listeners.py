"""
The addresses of the proxy's own listeners, so that a client cannot connect it to itself.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from .local import is_local
from .names import plain
from .special_addresses import WILDCARDS

#: The word of rules for every Unix socket.
UNIX = "unix"

#: The place of a listener: a literal address and a port, or the path of a Unix socket.
Place = tuple[str, int] | str

#: Places whose words are remembered.
_REMEMBERED = 256


class OwnListeners:
    """The addresses on which this proxy accepts clients."""

    def __init__(self) -> None:
        self._exact: set[tuple[str, int]] = set()
        self._everywhere: set[tuple[str, int]] = set()
        self._names: dict[Place, str] = {}
        self._learn()

    def _learn(self) -> None:
        # Every session asks, and changes are rare.
        self._ports = {port for _, port in self._exact | self._everywhere}
        self._words = lru_cache(_REMEMBERED)(self._words_of)

    def call(self, place: Place, name: str | None) -> None:
        """
        Have *name* be the word of rules for the listener on *place*; a wildcard stands for any address.

        :param name: None: rules can only name the place.
        """
        place = _plain_place(place)
        if name is None:
            self._names.pop(place, None)
        else:
            self._names[place] = name
        self._learn()

    def call_all(self, names: Mapping[Place, str | None]) -> Mapping[Place, str | None]:
        """
        Give names to all listeners at once; a listener that is not in *names* has none.

        :returns: the names until now.
        """
        before = self._names
        self._names = {_plain_place(place): name for place, name in names.items() if name is not None}
        self._learn()
        return before

    def words_for(self, reached: Place) -> tuple[str, ...]:
        """
        The words of rules for the listener of a client.

        :param reached: the address and port of ours that the client has reached, or the path of a Unix
            socket.
        :returns: the name, if the listener has one; the address and port, or ``unix:`` and the path, and
            ``unix``.
        """
        return self._words(reached)

    def _words_of(self, reached: Place) -> tuple[str, ...]:
        name = self._names.get(reached)
        if isinstance(reached, str):
            words = (f"unix:{reached}", UNIX) if reached else (UNIX,)
        else:
            host, port = reached
            # A listener on "::" may serve IPv4 as well, where none on "0.0.0.0" does.
            for wildcard in ("::", "0.0.0.0") if ":" in host else ("0.0.0.0", "::"):
                name = name or self._names.get((wildcard, port))
            words = (f"[{host}]:{port}" if ":" in host else f"{host}:{port}",)
        return words if name is None else (name, *words)

    def add(self, host: str, port: int) -> None:
        """Count *host* (a literal address, or a wildcard) and *port* as ours."""
        self._places_like(plain(host)).add((plain(host), port))
        self._learn()

    def discard(self, host: str, port: int) -> None:
        """Stop counting *host* and *port* as ours."""
        self._places_like(plain(host)).discard((plain(host), port))
        self._learn()

    def _places_like(self, host: str) -> set[tuple[str, int]]:
        return self._everywhere if host in WILDCARDS else self._exact

    def include(self, host: str, port: int) -> bool:
        """Whether a connection to the literal address *host* and *port* would come back here."""
        if port not in self._ports:
            return False
        host = plain(host)
        if (host, port) in self._exact:
            return True
        everywhere = any((wildcard, port) in self._everywhere for wildcard in WILDCARDS)
        if host in WILDCARDS:  # the kernel connects these to loopback
            return everywhere or any(port == own for _, own in self._exact)
        return everywhere and is_local(host)


def _plain_place(place: Place) -> Place:
    return place if isinstance(place, str) else (plain(place[0]), place[1])


def place_of(address: Any) -> Place:
    """The place of *address*, one of Twisted's."""
    host = getattr(address, "host", None)
    return (plain(host), address.port) if isinstance(host, str) else path_of(getattr(address, "name", None))


def path_of(name: str | bytes | None) -> str:
    """The path of a Unix socket by its *name* from the system; ``@`` begins the name of an abstract one."""
    path = os.fsdecode(name or b"")
    return f"@{path[1:]}" if path.startswith("\0") else path
